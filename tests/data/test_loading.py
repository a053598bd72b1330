"""Batches are a function of seed, epoch and position: not of threads, workers or interruptions."""

import functools
import itertools
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from autosplit import data
from autosplit.errors import CalibrationError, InputError

loading = pytest.importorskip("autosplit.data.loading", reason="loading needs grain")

PREPARE = functools.partial(data.resize_and_crop, resize=8, crop=6)
SHAPE = (6, 6, 3)
IMAGES = 11


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    files = [folder / f"{index:02d}.png" for index in range(IMAGES)]
    for index, path in enumerate(files):
        PIL.Image.new("RGB", (12 + index, 9), (20 * index,) * 3).save(path)
    return files


@pytest.fixture(scope="module")
def source(paths):
    labels = np.arange(IMAGES) + 100
    return data.FileSource(paths=paths, labels=labels, prepare=PREPARE, shape=SHAPE)


def read(source, start=0, **kwargs):
    return list(loading.load_batches(source, loading.Loading(**kwargs), start))


def test_a_batch_holds_the_prepared_images_of_its_indices(source, paths):
    batches = read(source, batch_size=4, seed=3)
    assert [batch.images.shape for batch in batches] == [(4, 6, 6, 3)] * 3
    assert sorted(i for b in batches for i in b.indices[b.valid]) == list(range(IMAGES))
    for batch in batches:
        for image, label, index, valid in zip(
            batch.images, batch.labels, batch.indices, batch.valid, strict=True
        ):
            if valid:
                np.testing.assert_array_equal(image, PREPARE(data.decode_image(paths[index])))
                assert label == 100 + index
            else:
                assert (label, index, image.any()) == (-1, -1, False)
    assert [int(batch.valid.sum()) for batch in batches] == [4, 4, 3]
    assert batches[0].images.dtype == np.uint8


def test_without_labels_a_batch_has_none(paths):
    source = data.FileSource(paths=paths[:2], prepare=PREPARE, shape=SHAPE)
    (batch,) = read(source, batch_size=2)
    assert batch.labels is None
    assert batch.indices.tolist() == [0, 1]


@pytest.mark.parametrize("remainder", loading.REMAINDERS)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [None, 0])
def test_processes_share_the_images_evenly(remainder, count, seed):
    for images, size in itertools.product([1, 7, 12, 40], [1, 4]):
        options = {"batch_size": size, "seed": seed, "process_count": count, "remainder": remainder}
        if remainder == "drop" and images < size * count:
            with pytest.raises(InputError, match="fill no batch"):
                loading.batch_indices(images, loading.Loading(**options))
            continue
        shards = [
            loading.batch_indices(images, loading.Loading(process_index=index, **options))
            for index in range(count)
        ]
        assert len({shard.shape for shard in shards}) == 1
        read = np.concatenate([shard.ravel() for shard in shards])
        valid = read[read >= 0]
        assert len(set(valid)) == len(valid)
        if remainder == "pad":
            assert set(valid) == set(range(images))
            assert len(read) < images + size * count
        else:
            assert len(valid) == len(read) > images - size * count
        # The processes' b-th batches together are the b-th batch of a lone process.
        alone = loading.batch_indices(
            images, loading.Loading(batch_size=size * count, seed=seed, remainder=remainder)
        )
        together = np.stack(shards, axis=-1).reshape(alone.shape)
        np.testing.assert_array_equal(together, alone)


def test_the_order_follows_seed_and_epoch():
    def order(**kwargs):
        return loading.batch_indices(100, loading.Loading(batch_size=10, **kwargs)).ravel().tolist()

    assert order() == list(range(100))
    assert order(epoch=5) == order()
    orders = [order(seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(each) == list(range(100)) for each in orders)
    assert len({tuple(each) for each in [*orders, order()]}) == 5
    assert order(seed=1, epoch=1) == orders[3]


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for field in ("images", "labels", "indices", "valid"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), strict=True)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (4, 3), (2, 50)])
def test_threads_and_prefetch_change_nothing(source, threads, prefetch):
    expected = read(source, batch_size=2, seed=1)
    options = {"threads": threads, "prefetch_batches": prefetch}
    assert_equal_batches(read(source, batch_size=2, seed=1, **options), expected)


@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_reading_goes_on_where_it_stopped(source, start):
    expected = read(source, batch_size=2, seed=1)
    assert len(expected) == 6
    assert_equal_batches(read(source, start, batch_size=2, seed=1), expected[start:])


@pytest.mark.heavy  # each worker is a Python process of its own
def test_workers_change_nothing(tmp_path):
    program = """
import functools, pathlib, sys
import numpy as np, PIL.Image
from autosplit import data
from autosplit.data.loading import Loading, load_batches

def main():
    folder = pathlib.Path(sys.argv[1])
    paths = [folder / f"{index:02d}.png" for index in range(11)]
    for index, path in enumerate(paths):
        PIL.Image.new("RGB", (12 + index, 9), (20 * index,) * 3).save(path)
    source = data.FileSource(
        paths=paths, prepare=functools.partial(data.resize_and_crop, resize=8, crop=6),
        shape=(6, 6, 3))
    alone, shared = [list(load_batches(source, Loading(batch_size=2, seed=1, workers=workers), 1))
                     for workers in (0, 2)]
    assert len(alone) == len(shared) == 5
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.indices, other.indices)
    paths[3].write_bytes(b"no image")
    try:
        list(load_batches(source, Loading(batch_size=2, seed=1, workers=2)))
    except Exception as error:
        print(type(error).__name__, error)

if __name__ == "__main__":
    main()
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(data.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert re.match(r"CalibrationError .*03\.png cannot be decoded", run.stdout), run.stdout


def test_a_corrupt_image_is_named_where_its_batch_is_due(paths, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(paths[0].read_bytes()[:40])
    source = data.FileSource(paths=[*paths[:3], bad], prepare=PREPARE, shape=SHAPE)
    batches = loading.load_batches(source, loading.Loading(batch_size=2))
    assert next(batches).indices.tolist() == [0, 1]
    with pytest.raises(CalibrationError, match=r"bad\.png cannot be decoded"):
        next(batches)


def test_images_of_another_size_are_named(paths):
    source = data.FileSource(paths=paths, prepare=np.asarray, shape=(9, 12, 3))
    assert source[0][0].shape == (9, 12, 3)
    with pytest.raises(InputError, match=r"01\.png was prepared as uint8\[9, 13, 3\]; expected"):
        source[1]


def test_labels_must_fit_the_files(paths):
    with pytest.raises(InputError, match=r"11 files have labels of shape \(3,\)"):
        data.FileSource(paths=paths, labels=np.arange(3), prepare=PREPARE, shape=SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected 1"),
        ({"epoch": -1}, "epoch is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"prefetch_batches": 0}, "prefetch_batches is 0"),
        ({"process_index": -1}, "process_index is -1"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2; expected 0 to 1"),
        ({"remainder": "keep"}, "remainder is 'keep'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        loading.Loading(**{"batch_size": 1} | options)


def test_a_start_out_of_range_is_refused_at_once(source):
    for start in (-1, 4):
        with pytest.raises(InputError, match="expected 0 to 3, the number of batches"):
            loading.load_batches(source, loading.Loading(batch_size=4), start)
    assert read(source, start=3, batch_size=4) == []
