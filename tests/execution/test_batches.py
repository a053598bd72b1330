"""Many requests at once give what each gives alone: in memory, and read back from disk."""

import jax
import numpy as np
import pytest

import autosplit
from autosplit.execution.artefact import load


def vary(inputs, seed):
    """Returns other inputs of the same form; integers and what is no array stay."""
    rng = np.random.default_rng(seed)

    def one(leaf):
        noise = rng.normal(size=np.shape(leaf))
        kind = np.asarray(leaf).dtype
        return leaf if kind.kind != "f" else (np.asarray(leaf) + noise).astype(kind)

    return jax.tree.map(one, inputs)


def assert_batch_is_its_requests(split, payloads, rtol=2e-5):
    stacked = [np.stack(tensor) for tensor in zip(*payloads, strict=True)]
    codes = split.unpack_batch(stacked)
    outputs = split.cloud_outputs_batch(codes)
    for index, payload in enumerate(payloads):
        alone = split.unpack(payload)
        for batched, code in zip(codes, alone, strict=True):
            np.testing.assert_array_equal(batched[index], code)
        for batched, want in zip(outputs, split.cloud_outputs(alone), strict=True):
            assert (batched.shape, batched.dtype) == ((len(payloads), *want.shape), want.dtype)
            scale = np.abs(np.asarray(want, np.float64)).max(initial=1e-30)
            np.testing.assert_allclose(batched[index], want, rtol=rtol, atol=rtol * scale)


def middle_cut(graph):
    cuts = [cut for cut in graph.cuts() if 0 < sum(cut.on_edge) < len(cut.on_edge)]
    return cuts[len(cuts) // 2]


def test_a_planned_split_computes_batches_of_any_size(dense, made, saved):
    loaded = load(saved, sides=("cloud",))
    assert loaded.batches
    assert made.batches
    for size in (1, 2, 5):
        payloads = [
            [np.asarray(x) for x in made.edge(*vary(dense.inputs, seed))] for seed in range(size)
        ]
        assert_batch_is_its_requests(made, payloads)
        assert_batch_is_its_requests(loaded, payloads)


@pytest.mark.heavy
def test_every_kind_of_network_computes_batches(network, tmp_path):
    split = autosplit.split(network.graph, network.params, middle_cut(network.graph))
    split.save(tmp_path / "split")
    loaded = load(tmp_path / "split", sides=("cloud",))
    assert loaded.batches
    payloads = [
        [np.asarray(x) for x in split.edge(*vary(network.inputs, seed))] for seed in range(3)
    ]
    assert_batch_is_its_requests(loaded, payloads, rtol=1e-4)


def test_an_older_split_without_batches_is_read(copy):
    """A split that was saved before there were batches has neither the file nor its checksum."""
    from autosplit.execution import export
    from autosplit.execution.manifest import read_manifest, write_manifest

    manifest = read_manifest(copy / export.MANIFEST)
    name = export.program_file(export.BATCH)
    del manifest.files[name]
    (copy / name).unlink()
    write_manifest(copy / export.MANIFEST, manifest)
    assert not load(copy).batches


def test_the_weights_of_a_split_move_to_a_device(made):
    device = jax.devices()[0]
    moved = made.on_device(device)
    for one in jax.tree.leaves(moved.cloud_half.weights):
        assert one.devices() == {device}
    assert moved.manifest is made.manifest
