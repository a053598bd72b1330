"""Synthetic profiles for the solvers' tests: no JAX, no measurements."""

import numpy as np
import pytest

from autosplit.hardware.network import Network
from autosplit.profiling.table import InputEncoding, Profile, Unquantized


def build_profile(*, bits, macs, weight_elements, weight_group, tensor_elements, producer, reads,
                  is_output, on_edge, rng, integer=(), network=None, edge_macs_per_s=3e10,
                  edge_bytes_per_s=1e9, quality=1.0, noise=0.0, open_cuts=False):
    """Prices a topology by a roofline: max(compute, data movement), plus noise."""
    bits = np.asarray(bits)
    layers, tensors, count = len(macs), len(producer), len(bits)
    macs = np.asarray(macs, dtype=np.int64)
    weight_elements = np.asarray(weight_elements)
    tensor_elements = np.asarray(tensor_elements)
    steps = 4.0 ** -bits
    free = (np.asarray(producer) >= 0) & ~np.isin(np.arange(tensors), integer)
    packed = -(-tensor_elements[:, None] * bits // 8)
    packed[np.asarray(producer) < 0] = tensor_elements[np.asarray(producer) < 0, None]
    for tensor in integer:
        packed[tensor] = 4 * tensor_elements[tensor]
    weight_bytes = np.where(weight_elements[:, None] > 0,
                            -(-weight_elements[:, None] * bits // 8) + 4, 12)
    touches = reads | (np.asarray(producer)[None] == np.arange(layers)[:, None])
    moved = (touches * tensor_elements[None]).sum(axis=1)
    compute_s = macs / edge_macs_per_s
    load_s = (weight_bytes[:, :, None] + moved[:, None, None] * bits[None, None] / 8)
    edge_s = np.maximum(compute_s[:, None, None], load_s / edge_bytes_per_s)
    edge_s = edge_s * (1 + noise * rng.uniform(-1, 1, edge_s.shape)) + 1e-6
    unweighted = weight_elements == 0
    edge_s[unweighted] = edge_s[unweighted][:, -1:]
    weight_error = rng.uniform(0.2, 1, (layers, 1)) * steps * ~unweighted[:, None]
    activation_error = rng.uniform(0.2, 1, (tensors, 1)) * steps * free[:, None]
    crosses = crossing(np.asarray(on_edge), reads, np.asarray(producer), np.asarray(is_output))
    plain = 2 * tensor_elements
    plain[~free] = packed[~free, -1]
    unquantized = Unquantized(
        bits=16, latency_s=2 * edge_s[:, -1, -1], energy_j=4 * edge_s[:, -1, -1],
        weight_bytes=2 * weight_elements + 12, tensor_bytes=plain, pack_s=plain * 1e-10 + 1e-6,
        unpack_s=plain * 1e-11 + 1e-6, pack_j=plain * 1e-9,
    )
    # Gains that are measured differ from bit-width to bit-width.
    uneven = np.random.default_rng(layers).uniform(0.8, 1.25, (max(layers, tensors), count))
    pixels = int(tensor_elements[np.asarray(producer) < 0].sum())
    return Profile(
        fingerprint="synthetic", clipping="mse", bits=bits,
        layer_names=tuple(f"layer{i}" for i in range(layers)),
        tensor_names=tuple(f"tensor{i}" for i in range(tensors)),
        macs=macs, has_weight=weight_elements > 0, weight_error=weight_error,
        weight_gain=rng.uniform(0.1, 2, (layers, 1)) * uneven[:layers] * quality,
        sensitivity="output",
        weight_ratio=np.linspace(0.5, 1, count) * np.ones((layers, 1)),
        weight_bytes=weight_bytes, weight_group=np.asarray(weight_group),
        activation_error=activation_error,
        activation_gain=rng.uniform(0.1, 2, (tensors, 1)) * uneven[:tensors] * quality,
        activation_low=-np.ones((tensors, count)), activation_high=np.ones((tensors, count)),
        tensor_bytes=packed, float_bytes=4 * tensor_elements,
        edge_latency_s=edge_s, edge_energy_j=edge_s * rng.uniform(0.5, 4, (layers, 1, 1)),
        pack_j=packed * 1e-9, cloud_latency_s=macs / 1e13 + 1e-6,
        pack_s=packed * 1e-10 + 1e-6, unpack_s=packed * 1e-11 + 1e-6,
        unquantized=unquantized, producer=np.asarray(producer), reads=reads,
        is_output=np.asarray(is_output),
        on_edge=np.asarray(on_edge), crosses=crosses,
        cut_names=tuple(f"cut{i}" for i in range(len(on_edge))),
        open_cuts=open_cuts,
        response_bytes=400,
        input_encodings=(
            InputEncoding(name="raw", payload_bytes=float(pixels), lossless=True),
            InputEncoding(name="png", payload_bytes=0.7 * pixels, lossless=True, encode_s=1e-3),
            InputEncoding(name="jpeg-q90", payload_bytes=0.1 * pixels, lossless=False),
        ),
        network=network or Network(uplink_bits_per_s=3e6, round_trip_s=5e-3,
                                   message_overhead_bytes=200, uplink_j_per_bit=1e-7,
                                   downlink_j_per_bit=5e-8),
        edge_name="edge", cloud_name="cloud",
    )


def crossing(on_edge, reads, producer, is_output):
    """Returns bool[C, T]: a tensor that the edge has and the cloud reads, or returns."""
    has = on_edge[:, np.maximum(producer, 0)] | (producer < 0)
    in_cloud = (~on_edge).astype(np.float32)
    wanted = (in_cloud @ reads.astype(np.float32) > 0) | is_output
    return has & wanted & ~on_edge.all(axis=1, keepdims=True)


def closed_sets(reads, producer):
    """Lists every set of layers that is closed under predecessors, the empty one first."""
    layers = len(reads)
    needs = [{int(producer[t]) for t in np.flatnonzero(reads[i]) if producer[t] >= 0}
             for i in range(layers)]
    sets = [flags for flags in range(2**layers)
            if all(not flags >> i & 1 or all(flags >> j & 1 for j in needs[i])
                   for i in range(layers))]
    rows = [[bool(flags >> i & 1) for i in range(layers)] for flags in sets]
    return np.array(sorted(rows, key=lambda row: (sum(row), row)))


def random_profile(seed, layers=None, count=None):
    """Makes a small DAG: branches, two inputs, shared weights, integers, free layers."""
    rng = np.random.default_rng(seed)
    layers = layers or int(rng.integers(2, 6))
    count = count or int(rng.integers(2, 4))
    inputs = int(rng.integers(1, 3))
    tensors = inputs + layers
    producer = np.concatenate([np.full(inputs, -1), np.arange(layers)])
    reads = np.zeros((layers, tensors), dtype=bool)
    for layer in range(layers):
        sources = rng.choice(inputs + layer, size=min(int(rng.integers(1, 4)), inputs + layer),
                             replace=False)
        reads[layer, sources] = True
    is_output = ~reads.any(axis=0) & (producer >= 0)
    is_output[-1] = True
    weights = rng.integers(1, 60, layers) * 100 * (rng.random(layers) < 0.75)
    group = np.arange(layers)
    if layers > 2 and rng.random() < 0.4:
        first, second = rng.choice(layers, size=2, replace=False)
        group[second] = group[first]
        weights[second] = weights[first]
    integer = (int(rng.integers(inputs, tensors)),) if rng.random() < 0.2 else ()
    cuts = closed_sets(reads, producer)
    if len(cuts) > 8:
        inner = np.sort(rng.choice(np.arange(1, len(cuts) - 1), size=6, replace=False))
        cuts = cuts[[0, *inner, len(cuts) - 1]]
    return build_profile(
        bits=np.sort(rng.choice([1, 2, 4, 5, 6, 7, 8], size=count, replace=False)),
        macs=rng.integers(1, 100, layers) * 10**5, weight_elements=weights, weight_group=group,
        tensor_elements=rng.integers(1, 40, tensors) * 50, producer=producer, reads=reads,
        is_output=is_output, on_edge=cuts, rng=rng, integer=integer,
        network=Network(uplink_bits_per_s=float(10 ** rng.uniform(5.5, 8)),
                        round_trip_s=float(rng.uniform(0, 2e-3)), message_overhead_bytes=100,
                        uplink_j_per_bit=float(10 ** rng.uniform(-9, -6)),
                        downlink_j_per_bit=1e-8),
        edge_bytes_per_s=float(10 ** rng.uniform(6.5, 8)), noise=float(rng.choice([0.0, 0.3])),
    )


def resnet50_profile(seed=0, uplink_bits_per_s=3e6, **edge):
    """Makes a profile with the shapes of ResNet-50 at 224 x 224 (adds are layers)."""
    rng = np.random.default_rng(seed)
    macs, weights, sizes, reads_list = [], [], [224 * 224 * 3], []

    def layer(sources, elements, weight, layer_macs):
        macs.append(layer_macs)
        weights.append(weight)
        sizes.append(elements)
        reads_list.append(sources)
        return len(sizes) - 1

    def conv(source, side, kernel, inputs, outputs):
        weight = kernel * kernel * inputs * outputs
        return layer([source], side * side * outputs, weight, side * side * weight)

    last = conv(0, 112, 7, 3, 64)
    last = layer([last], 56 * 56 * 64, 0, 0)
    channels = 64
    for width, blocks, side in ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)):
        for block in range(blocks):
            first = conv(last, side * (2 if block == 0 and width > 64 else 1), 1, channels, width)
            third = conv(conv(first, side, 3, width, width), side, 1, width, 4 * width)
            skip = conv(last, side, 1, channels, 4 * width) if block == 0 else last
            channels = 4 * width
            last = layer([third, skip], side * side * channels, 0, 0)
    last = layer([last], 2048, 0, 0)
    layer([last], 1000, 2048 * 1000, 2048 * 1000)
    layers, tensors = len(macs), len(sizes)
    reads = np.zeros((layers, tensors), dtype=bool)
    for index, sources in enumerate(reads_list):
        reads[index, sources] = True
    producer = np.arange(-1, layers)
    on_edge = np.tri(layers + 1, layers, k=-1, dtype=bool)
    return build_profile(
        bits=[1, 2, 4, 5, 6, 7, 8], macs=macs, weight_elements=np.array(weights),
        weight_group=np.arange(layers), tensor_elements=np.array(sizes), producer=producer,
        reads=reads, is_output=np.arange(tensors) == tensors - 1, on_edge=on_edge, rng=rng,
        network=Network(uplink_bits_per_s=uplink_bits_per_s, round_trip_s=10e-3,
                        message_overhead_bytes=300, uplink_j_per_bit=1e-7,
                        downlink_j_per_bit=5e-8), quality=0.1,
        **edge,
    )


def branchy_profile(layers, count=8, cuts=4096, seed=0, **edge):
    """Makes a deep DAG of residual and inception-like blocks, of varied tensor sizes.

    The cuts are all prefixes and, up to ``cuts`` in all, random closed sets: everything
    before a block, and some layers of each of its branches.
    """
    rng = np.random.default_rng(seed)
    macs, weights, sizes, reads_list, blocks = [], [], [64 * 64 * 3], [], []

    def layer(sources, elements, weight):
        macs.append(int(rng.integers(2, 20)) * 10**9 // layers if weight else 0)
        weights.append(weight)
        sizes.append(elements)
        reads_list.append(sources)
        return len(sizes) - 1

    while len(macs) < layers:
        last, first = len(sizes) - 1, len(macs)
        shrink = max(1 - first / layers, 0.02) ** 2
        branches = int(rng.integers(2, 5)) if rng.random() < 0.5 else 1
        ends, members = [], []
        for _ in range(branches):
            end, branch = last, []
            for _ in range(int(rng.integers(1, 4))):
                elements = int(rng.integers(150, 400) * 2000 * shrink)
                end = layer([end], elements, int(rng.integers(1, 200) * 400))
                branch.append(end - 1)
            ends.append(end)
            members.append(branch)
        layer(ends + [last] * (branches == 1), int(rng.integers(150, 400) * 2000 * shrink), 0)
        blocks.append((first, members))
    macs, weights, reads_list = macs[:layers], weights[:layers], reads_list[:layers]
    tensors = layers + 1
    reads = np.zeros((layers, tensors), dtype=bool)
    for index, sources in enumerate(reads_list):
        reads[index, sources] = True
    rows = {row.tobytes(): row for row in np.tri(layers + 1, layers, k=-1, dtype=bool)}
    for _ in range(20 * cuts):
        if len(rows) >= cuts:
            break
        first, members = blocks[rng.integers(len(blocks))]
        row = np.arange(layers) < first
        for branch in members:
            row[[i for i in branch[: rng.integers(len(branch) + 1)] if i < layers]] = True
        rows.setdefault(row.tobytes(), row)
    on_edge = np.array(sorted(rows.values(), key=lambda row: (row.sum(), row.tobytes())))
    return build_profile(
        bits=np.arange(9 - count, 9) if count > 2 else [4, 8], macs=macs,
        weight_elements=np.array(weights), weight_group=np.arange(layers),
        tensor_elements=np.array(sizes[:tensors]), producer=np.arange(-1, layers), reads=reads,
        is_output=~reads.any(axis=0), on_edge=on_edge, rng=rng, open_cuts=True,
        quality=0.05, **edge,
    )


@pytest.fixture
def make_branchy():
    """`branchy_profile`: as deep as is asked for, with up to 4096 cuts."""
    return branchy_profile


@pytest.fixture
def make_profile():
    """`random_profile`: a small profile from a seed."""
    return random_profile


@pytest.fixture
def make_resnet50():
    """`resnet50_profile`: L = 74, T = 75, K = 7."""
    return resnet50_profile
