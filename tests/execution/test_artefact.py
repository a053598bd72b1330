"""Saved splits are bit-equal after loading, need no model code and are as large as planned."""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import ArtefactError, InputError
from autosplit.execution.artefact import load
from autosplit.solvers.charging import price


def assert_bit_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def assert_round_trip(case, plan, path):
    split = autosplit.split(case.graph, case.params, plan)
    split.save(path)
    loaded = load(path)
    payload = split.edge(*case.inputs)
    assert_bit_equal(loaded.edge(*case.inputs), payload)
    assert_bit_equal(loaded.cloud(payload), split.cloud(payload))
    assert loaded.manifest.split_id == split.manifest.split_id
    return loaded


class TestRoundTrip:
    def test_bit_equal(self, dense, made, saved):
        loaded = load(saved)
        payload = made.edge(*dense.inputs)
        assert_bit_equal(loaded.edge(*dense.inputs), payload)
        assert_bit_equal(loaded.cloud(payload), made.cloud(payload))
        assert_bit_equal(loaded.edge_layers(*dense.inputs), made.edge_layers(*dense.inputs))

    def test_the_manifest_is_the_same_but_for_what_is_stored(self, made, saved):
        stored = ("edge_arrays", "cloud_arrays", "files", "plan")
        found = load(saved).manifest
        for field in dataclasses.fields(found):
            if field.name not in stored:
                assert getattr(found, field.name) == getattr(made.manifest, field.name)
        # JSON has no tuples.
        assert found.plan == json.loads(json.dumps(made.manifest.plan))
        for name, digest in found.files.items():
            assert digest == hashlib.sha256((saved / name).read_bytes()).hexdigest()

    def test_every_kind_of_network(self, network, tmp_path):
        cuts = network.graph.cuts()
        assert_round_trip(network, cuts[len(cuts) // 2], tmp_path / "split")

    @pytest.mark.parametrize("which", [0, -1])
    def test_cloud_only_and_edge_only(self, dense, tmp_path, which):
        loaded = assert_round_trip(dense, dense.graph.cuts()[which], tmp_path / "split")
        assert bool(loaded.manifest.crossing) == (which == 0)

    def test_one_bit_weights_and_activations(self, dense, split_plan, tmp_path):
        low = dataclasses.replace(
            split_plan,
            w_bits=tuple(1 if b <= 8 else b for b in split_plan.w_bits),
            a_bits=tuple(1 if b <= 8 else b for b in split_plan.a_bits),
        )
        assert_round_trip(dense, low, tmp_path / "split")

    def test_bfloat16(self, tmp_path):
        import types

        def fn(p, x):
            return jax.nn.relu(x @ p) @ p

        p, x = jnp.eye(4, dtype=jnp.bfloat16) * 1.5, jnp.ones((2, 4), jnp.bfloat16)
        case = types.SimpleNamespace(
            graph=autosplit.trace(fn, p, x), params=p, inputs=(x,)
        )
        loaded = assert_round_trip(case, case.graph.cuts()[1], tmp_path / "split")
        assert [s.dtype for s in loaded.manifest.crossing] == ["bfloat16"]

    def test_custom_containers_become_a_flat_tuple(self, tmp_path):
        Point = collections.namedtuple("Point", "x y")

        def fn(p, x):
            return Point(x=x @ p, y={"z": (x @ p).sum()})

        p, x = jnp.eye(3), jnp.ones((1, 3))
        graph = autosplit.trace(fn, p, x)
        split = autosplit.split(graph, p, graph.cuts()[0])
        assert isinstance(split.cloud(split.edge(x)), Point)
        split.save(tmp_path / "split")
        found = load(tmp_path / "split")
        outputs = found.cloud(found.edge(x))
        assert type(outputs) is tuple
        assert_bit_equal(outputs, tuple(jax.tree.leaves(fn(p, x))))

    def test_nothing_and_nested_outputs(self, tmp_path):
        def fn(p, x):
            return {"none": None, "list": [x @ p, (x.sum(),)], "empty": ()}

        p, x = jnp.eye(3), jnp.ones((1, 3))
        graph = autosplit.trace(fn, p, x)
        autosplit.split(graph, p, graph.cuts()[0]).save(tmp_path / "split")
        found = load(tmp_path / "split")
        assert_bit_equal(found.cloud(found.edge(x)), fn(p, x))


class TestWithoutTheModel:
    def test_a_process_that_cannot_import_the_model(self, tmp_path):
        code, model, save = tmp_path / "code", "vanished_model", tmp_path / "split"
        code.mkdir()
        (code / f"{model}.py").write_text(
            textwrap.dedent(
                """
                import flax.linen as nn

                class Net(nn.Module):
                    @nn.compact
                    def __call__(self, x):
                        return {"y": nn.Dense(3)(nn.relu(nn.Dense(4)(x)))}
                """
            )
        )
        sys.path.insert(0, str(code))
        try:
            net = __import__(model).Net()
        finally:
            sys.path.remove(str(code))
        x = jnp.linspace(-1, 1, 10).reshape(2, 5)
        params = net.init(jax.random.key(0), x)
        graph = autosplit.trace(net.apply, params, x)
        split = autosplit.split(graph, params, graph.cuts()[1])
        split.save(save)
        expected = split.cloud(split.edge(x))["y"]
        np.save(tmp_path / "x.npy", x)
        shutil.rmtree(code)
        del sys.modules[model]
        script = f"""
            import sys
            import numpy as np
            from autosplit.execution.artefact import load
            split = load({str(save)!r})
            x = np.load({str(tmp_path / "x.npy")!r})
            np.save({str(tmp_path / "y.npy")!r}, split.cloud(split.edge(x))["y"])
            assert {model!r} not in sys.modules
            assert not any(name.split(".")[0] == "flax" for name in sys.modules)
        """
        root = str(pathlib.Path(autosplit.__file__).parents[1])
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


class TestSizes:
    def test_edge_weights_are_as_large_as_planned(self, saved, split_plan):
        assert os.path.getsize(saved / "edge_weights.bin") == split_plan.edge_weight_bytes

    def test_weights_files_hold_their_arrays_and_nothing_else(self, saved):
        manifest = load(saved).manifest
        for name, specs in (
            ("edge_weights.bin", manifest.edge_arrays), ("cloud_weights.bin", manifest.cloud_arrays)
        ):  # fmt: skip
            used = {(spec.offset, spec.offset + spec.num_bytes) for spec in specs}
            assert sum(end - start for start, end in used) == os.path.getsize(saved / name)

    def test_shared_weights_are_stored_once(self, tmp_path):
        from autosplit.hardware import EYERISS, TPU, Network

        def fn(p, x):
            for _ in range(3):
                x = jnp.tanh(x @ p["w"] + p["b"])
            return x

        rng = np.random.default_rng(0)
        params = {"w": jnp.asarray(rng.normal(size=(8, 8)), jnp.float32), "b": jnp.ones(8)}
        batch = rng.normal(size=(4, 8)).astype(np.float32)
        graph = autosplit.trace(fn, params, jax.ShapeDtypeStruct((2, 8), jnp.float32))
        profile = autosplit.profile(
            graph, params, batch, edge=EYERISS, cloud=TPU,
            network=Network(uplink_bits_per_s=1e6), bits=(4, 8),
        )  # fmt: skip
        for cut in (1, 2, 3):
            plan = price(
                profile, cut=cut, w_bits=np.full(3, 4), a_bits=np.full(4, 8), label="test"
            )
            split = autosplit.split(graph, params, plan)
            split.save(tmp_path / str(cut))
            # 64 levels of 4 bits, 8 scales, 8 biases.
            stored = os.path.getsize(tmp_path / str(cut) / "edge_weights.bin")
            assert stored == plan.edge_weight_bytes == 32 + 32 + 32
            loaded = load(tmp_path / str(cut))
            x = jnp.asarray(batch[:2])
            assert_bit_equal(loaded.cloud(loaded.edge(x)), split.cloud(split.edge(x)))


class TestSides:
    def test_one_side_runs_alone(self, dense, made, saved, tmp_path):
        edge, cloud = load(saved, sides=["edge"]), load(saved, sides=["cloud"])
        payload = edge.edge(*dense.inputs)
        assert_bit_equal(cloud.cloud(payload), made.cloud(made.edge(*dense.inputs)))
        with pytest.raises(InputError, match="cloud half was not loaded"):
            edge.cloud(payload)
        with pytest.raises(InputError, match="edge half was not loaded"):
            cloud.edge(*dense.inputs)

    def test_a_side_needs_only_its_own_files(self, dense, copy):
        for name in ("cloud.stablehlo", "cloud_batch.stablehlo", "cloud_weights.bin"):
            (copy / name).unlink()
        load(copy, sides=["edge"]).edge(*dense.inputs)
        with pytest.raises(ArtefactError, match=r"cloud\.stablehlo"):
            load(copy)

    def test_an_unknown_side_is_refused(self, saved):
        with pytest.raises(InputError, match="device"):
            load(saved, sides=["device"])
