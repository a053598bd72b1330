"""Two halves at float bits are the function, at every cut; what crosses is as the manifest says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import (
    CutError,
    InputError,
    PlanMismatchError,
    UnknownPrimitiveError,
)
from autosplit.quant.packing import packed_bytes
from autosplit.workload import FLOAT_BITS


def assert_equal_outputs(found, expected, rtol=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.abs(one - other).max(initial=0) <= rtol * np.abs(other).max(initial=1e-30)


def assert_payload_as_declared(split, payload):
    assert len(payload) == len(split.manifest.crossing)
    for data, spec in zip(payload, split.manifest.crossing, strict=True):
        assert data.dtype == jnp.uint8
        assert data.shape == (spec.payload_bytes,)


def test_every_cut_is_the_function(network):
    expected = network.fn(network.params, *network.inputs)
    cuts = network.graph.cuts()
    assert len(cuts) > 2
    # Step by step, equal steps of all cuts compile once.
    with jax.disable_jit():
        for cut in cuts:
            split = autosplit.split(network.graph, network.params, cut)
            payload = split.edge(*network.inputs)
            if not all(cut.on_edge):
                assert_payload_as_declared(split, payload)
            assert_equal_outputs(split.cloud(payload), expected)


@pytest.mark.heavy
def test_every_cut_is_the_function_compiled(network):
    expected = network.fn(network.params, *network.inputs)
    for cut in network.graph.cuts():
        split = autosplit.split(network.graph, network.params, cut)
        assert_equal_outputs(split.cloud(split.edge(*network.inputs)), expected)


def test_compiled_stages_are_the_function(dense):
    expected = dense.fn(dense.params, *dense.inputs)
    for cut in dense.graph.cuts():
        split = autosplit.split(dense.graph, dense.params, cut)
        codes = split.edge_layers(*dense.inputs)
        payload = split.pack(codes)
        again = split.unpack(payload)
        for one, other in zip(codes, again, strict=True):
            np.testing.assert_array_equal(one, other)
        assert_equal_outputs(split.cloud_layers(again), expected)
        flat = split.cloud_outputs(again)
        assert_equal_outputs(list(flat), jax.tree.leaves(expected))


def test_crossing_tensors_of_any_dtype():
    def fn(p, x, n):
        h = x @ p
        big, best, wide = h > 0, jnp.argmax(h, -1), (n * 300).astype(jnp.int16)
        return jnp.where(big, h.astype(jnp.float16), 0).sum() + best.sum() + wide.sum(), wide, big

    p, inputs = jnp.eye(4), (jnp.arange(8.0).reshape(2, 4) - 3, jnp.array([1, -2], jnp.int32))
    graph = autosplit.trace(fn, p, *inputs)
    seen = set()
    expected = fn(p, *inputs)
    with jax.disable_jit():
        for cut in graph.cuts():
            split = autosplit.split(graph, p, cut)
            assert_equal_outputs(split.cloud(split.edge(*inputs)), expected)
            seen.update(spec.dtype for spec in split.manifest.crossing)
            assert all(spec.bits == FLOAT_BITS for spec in split.manifest.crossing)
    assert {"bool", "int16", "int32", "float32"} <= seen


def test_bfloat16_is_the_function():
    def fn(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["a"]

    params = {n: jax.random.normal(jax.random.key(i), (4, 4), jnp.bfloat16)
              for i, n in enumerate("ab")}  # fmt: skip
    x = jnp.ones((2, 4), jnp.bfloat16)
    graph = autosplit.trace(fn, params, x)
    for cut in graph.cuts():
        split = autosplit.split(graph, params, cut)
        payload = split.edge(x)
        # The compiler may keep more digits within a half.
        assert_equal_outputs(split.cloud(payload), fn(params, x), rtol=2e-2)
        if split.manifest.crossing:
            assert [s.dtype for s in split.manifest.crossing] == ["bfloat16"]
            assert [data.size for data in payload] == [2 * 4 * 2]


def test_empty_tensors_cross():
    def fn(p, x):
        return jnp.tanh(x @ p), x[:, :0] * 2.0

    graph = autosplit.trace(fn, jnp.eye(3), jnp.ones((2, 3)))
    for cut in graph.cuts():
        split = autosplit.split(graph, jnp.eye(3), cut)
        found = split.cloud(split.edge(jnp.ones((2, 3))))
        assert_equal_outputs(found, fn(jnp.eye(3), jnp.ones((2, 3))))


def test_captured_float64_arrays_are_cast():
    matrix = np.random.default_rng(0).normal(size=(4, 4))

    def fn(p, x):
        return jnp.maximum(x @ matrix, matrix[:2]) @ p

    x = jnp.ones((2, 4))
    graph = autosplit.trace(fn, jnp.eye(4), x)
    for cut in graph.cuts():
        split = autosplit.split(graph, jnp.eye(4), cut)
        assert_equal_outputs(split.cloud(split.edge(x)), fn(jnp.eye(4), x))


def test_random_keys_among_the_parameters_work():
    def fn(p, x):
        return jnp.tanh(x @ p["w"]) + jax.random.normal(p["key"], (2, 4))

    params = {"w": jnp.eye(4), "key": jax.random.key(3)}
    x = jnp.ones((2, 4))
    graph = autosplit.trace(fn, params, x)
    for cut in graph.cuts():
        split = autosplit.split(graph, params, cut)
        assert_equal_outputs(split.cloud(split.edge(x)), fn(params, x))


def test_random_keys_that_depend_on_data_are_refused():
    def fn(p, x):
        key = jax.random.fold_in(p["key"], jnp.argmax(x))
        return x @ p["w"] + jax.random.normal(key, (2, 4))

    with pytest.raises(UnknownPrimitiveError, match="random"):
        autosplit.trace(fn, {"w": jnp.eye(4), "key": jax.random.key(3)}, jnp.ones((2, 4)))


class TestQuantized:
    def test_codes_fit_their_bits(self, dense, made, split_plan):
        codes = made.edge_layers(*dense.inputs)
        crossing = np.flatnonzero(split_plan.crosses)
        assert len(codes) == len(crossing)
        for code, tensor, spec in zip(codes, crossing, made.manifest.crossing, strict=True):
            assert code.dtype == jnp.uint8
            assert code.shape == spec.shape == dense.graph.tensors[tensor].shape
            assert spec.bits == split_plan.a_bits[tensor]
            assert int(code.max()) < 2**spec.bits
            # The clip is used: some value is quantized to more than a bit.
            assert int(code.max()) > 1

    def test_payload_is_what_manifest_and_plan_say(self, dense, made, split_plan):
        payload = made.edge(*dense.inputs)
        assert_payload_as_declared(made, payload)
        for spec in made.manifest.crossing:
            assert spec.payload_bytes == packed_bytes(int(np.prod(spec.shape)), spec.bits)
        assert sum(data.size for data in payload) == split_plan.uplink_bytes

    def test_more_bits_are_nearer(self, dense, split_plan):
        profile, distance = dense.profile, []
        expected = jax.tree.leaves(dense.fn(dense.params, *dense.inputs))
        for k, bits in enumerate(profile.bits.tolist()):
            plan = dataclasses.replace(
                split_plan,
                w_bits=tuple(bits if b < FLOAT_BITS else b for b in split_plan.w_bits),
                a_bits=tuple(bits if b < FLOAT_BITS else b for b in split_plan.a_bits),
                weight_ratio=tuple(profile.weight_ratio[:, k].tolist()),
                activation_low=tuple(profile.activation_low[:, k].tolist()),
                activation_high=tuple(profile.activation_high[:, k].tolist()),
            )
            split = autosplit.split(dense.graph, dense.params, plan)
            found = jax.tree.leaves(split.cloud(split.edge(*dense.inputs)))
            distance.append(
                sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(found, expected, strict=True))
            )
        assert distance == sorted(distance, reverse=True)
        assert distance[-1] < 1e-2 * distance[0]

    def test_the_manifest_describes_the_plan(self, dense, made, split_plan):
        manifest = made.manifest
        assert manifest.label == split_plan.label
        assert manifest.cut_name == split_plan.cut_name
        assert manifest.fingerprint == dense.graph.fingerprint
        assert manifest.predicted["latency_s"] == split_plan.latency_s
        assert [(s.shape, s.dtype) for s in manifest.inputs] == [((2, 6), "float32")]
        assert [(s.shape, s.dtype) for s in manifest.outputs] == [
            ((2, 9), "float32"), ((2, 5), "float32"),
        ]  # fmt: skip

    def test_the_id_depends_on_plan_and_weights(self, dense, made, split_plan):
        def split_id(params, plan):
            return autosplit.split(dense.graph, params, plan).manifest.split_id

        assert len(made.manifest.split_id) == 64
        assert split_id(dense.params, split_plan) == made.manifest.split_id
        changed = {**dense.params, "c": dense.params["c"].at[0, 0].add(1)}
        other_plan = dataclasses.replace(split_plan, label="other")
        ids = {split_id(changed, split_plan), split_id(dense.params, other_plan)}
        assert len(ids - {made.manifest.split_id}) == 2

    def test_the_network_is_recorded(self, dense, split_plan):
        network = autosplit.Network(uplink_bits_per_s=1e6, name="slow")
        split = autosplit.split(dense.graph, dense.params, split_plan, network=network)
        assert split.manifest.network == dataclasses.asdict(network)


class TestRefused:
    def test_a_plan_for_another_graph(self, dense, split_plan):
        other = autosplit.trace(lambda w, x: x @ w, jnp.eye(3), jnp.ones((1, 3)))
        with pytest.raises(PlanMismatchError, match="Solve a profile of this graph"):
            autosplit.split(other, jnp.eye(3), split_plan)
        renamed = dataclasses.replace(split_plan, fingerprint="0" * 64)
        with pytest.raises(PlanMismatchError, match="000000000000"):
            autosplit.split(dense.graph, dense.params, renamed)

    def test_a_plan_that_is_not_closed(self, dense, split_plan):
        flags = (*(False for _ in split_plan.on_edge[1:]), True)
        with pytest.raises(CutError, match="not closed"):
            autosplit.split(
                dense.graph, dense.params, dataclasses.replace(split_plan, on_edge=flags)
            )

    def test_other_parameters(self, dense, split_plan):
        wrong = {**dense.params, "a": jnp.ones((6, 8))}
        with pytest.raises(InputError, match=r"\(6, 8\)"):
            autosplit.split(dense.graph, wrong, split_plan)

    @pytest.mark.parametrize(
        "inputs",
        [(np.ones((3, 6), np.float32),), (np.ones((2, 6), np.uint8),), (np.ones(()),), ()],
    )
    def test_other_inputs(self, made, inputs):
        with pytest.raises(InputError, match=r"the split takes \[\(\(2, 6\), 'float32'\)\]"):
            made.edge(*inputs)

    def test_two_inputs_for_one(self, dense, made):
        with pytest.raises(InputError, match="the split takes"):
            made.edge(*dense.inputs, *dense.inputs)

    def test_another_payload(self, dense, made):
        payload = made.edge(*dense.inputs)
        for wrong in (
            [data[:-1] for data in payload],
            [jnp.concatenate([data, data]) for data in payload],
            [data.astype(jnp.int32) for data in payload],
            [*payload, payload[0]],
            [],
        ):
            with pytest.raises(InputError):
                made.cloud(wrong)

    def test_another_payload_at_float_bits(self, dense):
        cut = dense.graph.cuts()[1]
        split = autosplit.split(dense.graph, dense.params, cut)
        payload = split.edge(*dense.inputs)
        with pytest.raises(InputError, match="expected uint8"):
            split.cloud([data[:-4] for data in payload])
        with pytest.raises(InputError, match="expected uint8"):
            split.cloud([data.view(jnp.int8) for data in payload])

    def test_another_number_of_outputs_from_the_edge(self, dense):
        split = autosplit.split(dense.graph, dense.params, dense.graph.cuts()[-1])
        outputs = split.edge(*dense.inputs)
        with pytest.raises(InputError, match="sends 2"):
            split.cloud(outputs[:1])
