"""What the tests of device models draw: ``st.from_type(Workload)`` is any small layer."""

from hypothesis import strategies as st

from autosplit.workload import Workload


@st.composite
def layers(draw):
    """Any layer, small enough for loops."""
    size = st.integers(1, 13)
    groups = draw(st.sampled_from([1, 1, 2, 3, 5, 7]))
    return Workload(
        kind=draw(st.sampled_from(["conv", "conv", "gemm", "vector"])),
        batch=draw(st.integers(1, 2)),
        in_height=draw(size),
        in_width=draw(size),
        in_channels=groups * draw(st.integers(1, 9)),
        out_height=draw(size),
        out_width=draw(size),
        out_channels=groups * draw(st.integers(1, 8)),
        kernel_height=draw(st.integers(1, 6)),
        kernel_width=draw(st.integers(1, 6)),
        stride_height=draw(st.integers(1, 3)),
        stride_width=draw(st.integers(1, 3)),
        dilation_height=draw(st.integers(1, 2)),
        dilation_width=draw(st.integers(1, 2)),
        upsample_height=draw(st.integers(1, 3)),
        upsample_width=draw(st.integers(1, 3)),
        groups=groups,
        repeat=draw(st.integers(1, 2)),
        input_elements=draw(st.integers(0, 5000)),
        output_elements=draw(st.integers(0, 5000)),
        weight_elements=draw(st.integers(0, 5000)),
        vector_ops=draw(st.integers(0, 100)),
    )


st.register_type_strategy(Workload, layers())
