"""The profile: every array has its form, and the sizes are those of what is stored and sent."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.errors import CalibrationError, InputError
from autosplit.graph import trace
from autosplit.hardware import EYERISS, TPU
from autosplit.profiling.pricing import layer_latency_s
from autosplit.profiling.sensitivity_tables import sensitivity_table
from autosplit.quant.packing import packed_bytes
from autosplit.solvers.charging import price
from autosplit.workload import tabulate


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


class TestForm:
    def test_shapes_and_dtypes(self, net, profiled):
        layers, tensors = len(net.graph.layers), len(net.graph.tensors)
        cuts, bits = len(net.graph.cuts()), len(profiled.bits)
        expected = {
            (bits,): "bits",
            (layers,): "macs has_weight weight_group cloud_latency_s",
            (layers, bits): "weight_error weight_gain weight_ratio weight_bytes",
            (layers, bits, bits): "edge_latency_s edge_energy_j",
            (tensors,): "float_bytes producer is_output",
            (tensors, bits): "activation_error activation_gain activation_low activation_high "
            "tensor_bytes pack_s unpack_s pack_j",
            (layers, tensors): "reads",
            (cuts, layers): "on_edge",
            (cuts, tensors): "crosses",
        }
        names = {name: shape for shape, text in expected.items() for name in text.split()}
        arrays = {
            f.name: getattr(profiled, f.name)
            for f in dataclasses.fields(profiled)
            if isinstance(getattr(profiled, f.name), np.ndarray)
        }
        assert {name: a.shape for name, a in arrays.items()} == names
        integers = "bits macs weight_bytes weight_group tensor_bytes float_bytes producer".split()
        flags = "has_weight reads is_output on_edge crosses".split()
        for name, array in arrays.items():
            kind = np.int64 if name in integers else bool if name in flags else np.float64
            assert array.dtype == kind, name
            assert np.isfinite(array).all(), name

    def test_names_and_texts(self, net, profiled):
        assert profiled.fingerprint == net.graph.fingerprint
        assert profiled.layer_names == tuple(layer.name for layer in net.graph.layers)
        assert profiled.tensor_names == tuple(t.name for t in net.graph.tensors)
        assert profiled.cut_names == tuple(c.name for c in net.graph.cuts())
        assert (profiled.edge_name, profiled.cloud_name) == (EYERISS.name, TPU.name)

    def test_topology_is_the_graph_s(self, net, profiled):
        for index, layer in enumerate(net.graph.layers):
            assert set(np.flatnonzero(profiled.reads[index])) == set(layer.inputs)
            assert set(np.flatnonzero(profiled.producer == index)) == set(layer.outputs)
            assert profiled.macs[index] == layer.macs
        for row, cut in enumerate(net.graph.cuts()):
            assert tuple(profiled.on_edge[row]) == cut.on_edge
            assert tuple(np.flatnonzero(profiled.crosses[row])) == cut.crossing
        assert not profiled.on_edge[0].any()
        assert profiled.on_edge[-1].all()
        assert set(np.flatnonzero(profiled.is_output)) == set(net.graph.outputs)

    def test_bits_are_sorted_and_distinct(self, net, make_profile):
        found = make_profile(net.graph, net.params, net.calibration, bits=(8, 2, 6, 2, 4))
        assert found.bits.tolist() == [2, 4, 6, 8]

    def test_cuts_may_be_given(self, net, make_profile):
        cuts = [net.graph.cut([]), net.graph.cut_after(net.graph.layers[0].name)]
        found = make_profile(net.graph, net.params, net.calibration, cuts=cuts)
        assert found.cut_names == tuple(c.name for c in cuts)
        assert found.on_edge.sum(axis=1).tolist() == [0, 1]

    def test_same_seed_same_profile(self, net, make_profile, profiled):
        again = make_profile(net.graph, net.params, net.calibration)
        np.testing.assert_array_equal(again.weight_gain, profiled.weight_gain)
        other = make_profile(net.graph, net.params, net.calibration, seed=1)
        assert (other.weight_gain != profiled.weight_gain).any()

    def test_measured_gains_predict_the_table(self, net, make_profile):
        found = make_profile(
            net.graph, net.params, net.calibration, sensitivity="measured", sensitivity_calls=8
        )
        table = sensitivity_table(net.graph, net.params, net.calibration, found)
        np.testing.assert_allclose(
            found.weight_gain * found.weight_error, table.weights.output_error, rtol=1e-4, atol=1e-9
        )
        np.testing.assert_allclose(
            found.activation_gain * found.activation_error,
            table.activations.output_error, rtol=1e-4, atol=1e-9,
        )  # fmt: skip

    def test_unknown_sensitivity_is_refused(self, net, make_profile):
        with pytest.raises(InputError, match="fisher"):
            make_profile(net.graph, net.params, net.calibration, sensitivity="hessian")

    @pytest.mark.parametrize("bits", [(), (0, 4), (4, 9), (32,)])
    def test_bits_out_of_range_are_refused(self, net, make_profile, bits):
        with pytest.raises(InputError, match="expected some of 1 to 8"):
            make_profile(net.graph, net.params, net.calibration, bits=bits)

    def test_unknown_clipping_is_refused(self, net, make_profile):
        with pytest.raises(InputError, match="minmax"):
            make_profile(net.graph, net.params, net.calibration, clipping="entropy")

    def test_other_parameters_are_refused(self, net, make_profile):
        with pytest.raises(InputError, match="structure"):
            make_profile(net.graph, {}, net.calibration)
        wrong = {**net.params, "dense": jnp.ones((12, 11))}
        with pytest.raises(InputError, match="shape"):
            make_profile(net.graph, wrong, net.calibration)
        with pytest.raises(InputError, match="dtype"):
            make_profile(
                net.graph, {**net.params, "dense": jnp.ones((12, 10), int)}, net.calibration
            )

    def test_an_empty_batch_is_refused(self, net, make_profile):
        with pytest.raises(CalibrationError, match="empty"):
            make_profile(net.graph, net.params, net.calibration[:0])


class TestStreams:
    """A stream of batches has the profile of all of them in one."""

    def fields(self, found, *, without=()):
        for field in dataclasses.fields(found):
            value = getattr(found, field.name)
            if isinstance(value, np.ndarray) and field.name not in without:
                yield field.name, value

    @pytest.mark.parametrize("sizes", [(1,) * 8, (3, 5)])
    def test_equals_the_profile_of_one_batch(self, net, make_profile, profiled, sizes):
        batches = np.split(net.calibration, np.cumsum(sizes)[:-1])
        # Chunks of a few calls.
        found = make_profile(net.graph, net.params, batches, memory_bytes=50_000)
        expected = dict(self.fields(profiled))
        for name, value in self.fields(found):
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)

    def test_progress_and_file(self, net, make_profile, profiled, tmp_path):
        told = []
        found = make_profile(
            net.graph,
            net.params,
            [net.calibration],
            memory_bytes=50_000,
            statistics_file=tmp_path / "statistics",
            on_progress=lambda *state: told.append(state),
        )
        assert told[-1] == (16, 16)
        assert not list(tmp_path.iterdir())
        np.testing.assert_allclose(found.activation_error, profiled.activation_error, rtol=1e-5)

    def test_gains_are_of_the_first_calls(self, net, make_profile):
        batches = [net.calibration[:1], net.calibration[1:4], net.calibration[4:] * np.nan]
        with pytest.raises(CalibrationError, match="Batch 2 of the stream"):
            make_profile(net.graph, net.params, batches)
        few = make_profile(net.graph, net.params, batches[:2], sensitivity_calls=2)
        whole = make_profile(net.graph, net.params, net.calibration[:4], sensitivity_calls=2)
        np.testing.assert_array_equal(few.activation_gain, whole.activation_gain)

    def test_a_generator_is_refused(self, net, make_profile):
        with pytest.raises(CalibrationError, match="can be read once"):
            make_profile(net.graph, net.params, (b for b in [net.calibration]))

    def test_an_empty_list_is_refused(self, net, make_profile):
        with pytest.raises(CalibrationError, match="no batch"):
            make_profile(net.graph, net.params, [])


class TestErrors:
    def test_graph_inputs_are_free_and_keep_their_range(self, net, profiled):
        assert not profiled.activation_error[0].any()
        assert (profiled.activation_low[0] == net.calibration.min()).all()
        assert (profiled.activation_high[0] == net.calibration.max()).all()

    def test_layers_without_weights_have_constant_rows(self, net, profiled):
        free = ~profiled.has_weight
        assert free.any()
        assert profiled.has_weight.any()
        assert not profiled.weight_error[free].any()
        assert not profiled.weight_gain[free].any()
        assert (profiled.weight_ratio[free] == 1).all()
        assert (np.diff(profiled.weight_bytes[free], axis=1) == 0).all()
        assert (np.diff(profiled.edge_latency_s[free], axis=1) == 0).all()

    def test_errors_fall_with_bits(self, profiled):
        assert (np.diff(profiled.weight_error[profiled.has_weight], axis=1) < 0).all()
        made = profiled.producer >= 0
        assert (np.diff(profiled.activation_error[made], axis=1) < 0).all()


class TestLatency:
    def test_equals_the_device_s_layer_by_layer(self, net, profiled):
        for index, layer in enumerate(net.graph.layers):
            seconds = EYERISS.latency_s(tabulate(layer.workloads), profiled.bits, profiled.bits)
            expected = np.asarray(seconds).sum(axis=0)
            if layer.weight is None:
                expected = np.broadcast_to(expected[-1:], expected.shape)
            np.testing.assert_allclose(profiled.edge_latency_s[index], expected, rtol=1e-12)
            cloud = np.asarray(TPU.latency_s(tabulate(layer.workloads), [16], [16])).sum()
            assert profiled.cloud_latency_s[index] == pytest.approx(cloud)

    def test_more_bits_take_no_less_time(self, profiled):
        assert (np.diff(profiled.edge_latency_s, axis=1) >= 0).all()
        assert (np.diff(profiled.edge_latency_s, axis=2) >= 0).all()
        assert (np.diff(profiled.pack_s, axis=1) >= 0).all()

    def test_a_loop_over_products_adds_up(self):
        def fn(p, x):
            def step(c, w):
                return jnp.tanh(c @ w["a"]) @ w["b"], None

            return jax.lax.scan(step, x, p)[0]

        params = {"a": shaped(5, 4, 8), "b": shaped(5, 8, 4)}
        graph = trace(fn, params, shaped(2, 4))
        (loop,) = graph.layers
        assert len(loop.workloads) > 1
        bits = np.array([2, 8])
        expected = np.asarray(EYERISS.latency_s(tabulate(loop.workloads), bits, bits)).sum(axis=0)
        # A loop has no weight of its own that could be quantized.
        expected = np.broadcast_to(expected[-1:], expected.shape)
        np.testing.assert_allclose(layer_latency_s(graph, EYERISS, bits, bits)[0], expected)


class TestSizes:
    def test_tensor_bytes_are_packed_sizes(self, net, profiled):
        for index, tensor in enumerate(net.graph.tensors):
            bits = [8] * len(profiled.bits) if tensor.producer < 0 else profiled.bits.tolist()
            expected = [packed_bytes(tensor.size, b) for b in bits]
            assert profiled.tensor_bytes[index].tolist() == expected
            assert profiled.float_bytes[index] == 4 * tensor.size

    def test_payload_of_every_cut_is_what_was_charged(self, net, profiled):
        w_bits = np.full(len(profiled.macs), 4)
        a_bits = np.full(len(profiled.producer), 6)
        for cut in range(1, len(profiled.cut_names)):
            plan = price(profiled, cut=cut, w_bits=w_bits, a_bits=a_bits, label="test")
            manifest = autosplit.split(net.graph, net.params, plan).manifest
            assert plan.uplink_bytes == sum(s.payload_bytes for s in manifest.crossing)

    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
    def test_weight_bytes_are_what_is_stored(self, make_profile, dtype, tmp_path):
        def fn(p, x):
            h = jnp.maximum(x @ p["a"] + p["bias"], p["floor"])
            return h @ p["b"]

        rng = np.random.default_rng(0)
        shapes = {"a": (5, 7), "bias": (7,), "floor": (2, 7), "b": (7, 3)}
        params = {n: jnp.asarray(rng.normal(size=s), dtype) for n, s in shapes.items()}
        graph = trace(fn, params, shaped(2, 5, dtype=dtype))
        found = make_profile(graph, params, rng.normal(size=(4, 5)).astype(np.float32))
        size = np.dtype(dtype).itemsize
        # Packed levels, a scale per channel; the bias and the constant in their own dtype.
        for k, bits in enumerate((2, 4, 6, 8)):
            assert found.weight_bytes[:, k].tolist() == [
                packed_bytes(35, bits) + 7 * 4 + 7 * size + 14 * size,
                packed_bytes(21, bits) + 3 * 4,
            ]
            for cut in (1, 2):
                plan = price(
                    found, cut=cut, w_bits=np.full(2, bits), a_bits=np.full(3, 8), label="test"
                )
                path = tmp_path / f"{bits}-{cut}"
                autosplit.split(graph, params, plan).save(path)
                stored = os.path.getsize(path / "edge_weights.bin")
                assert stored == plan.edge_weight_bytes == found.weight_bytes[:cut, k].sum()

    def test_shared_weights_are_one_group(self, make_profile):
        def fn(p, x):
            h = jnp.tanh(x @ p["a"] + p["bias"])
            h = jnp.tanh(h @ p["a"] + p["bias"])
            return jnp.tanh(h @ p["b"]) @ p["a"]

        params = {"a": jnp.eye(4), "b": jnp.eye(4), "bias": jnp.ones(4)}
        graph = trace(fn, params, shaped(1, 4))
        group = make_profile(graph, params, np.ones((2, 4))).weight_group
        assert group[0] == group[1] == group[3] != group[2]

    def test_layers_without_weight_are_groups_of_their_own(self, profiled):
        lone = profiled.weight_group[~profiled.has_weight]
        shared = profiled.weight_group[profiled.has_weight]
        assert len(set(lone)) == len(lone)
        assert not set(lone) & set(shared)

    def test_integers_keep_their_width(self, make_profile):
        def fn(p, ids, mask):
            h = p["table"][ids]
            best = jnp.argmax(h, -1)
            return (h @ p["w"]) * mask[..., None], best

        params = {"table": jnp.eye(6, 4), "w": jnp.ones((4, 4))}
        graph = trace(fn, params, shaped(1, 5, dtype=jnp.int32), shaped(1, 5, dtype=jnp.bool_))
        batch = np.arange(10).reshape(2, 5) % 6, np.ones((2, 5), bool)
        found = make_profile(graph, params, batch)
        for index, tensor in enumerate(graph.tensors):
            if not tensor.is_float:
                assert (found.tensor_bytes[index] == tensor.size * tensor.dtype.itemsize).all()
                assert not found.activation_error[index].any()
        assert found.tensor_bytes[0, 0] == 5 * 4
        assert found.tensor_bytes[1, 0] == 5
        # Embedding rows are a weight: quantized by column.
        assert found.has_weight[0]
        assert found.response_bytes == 5 * 4 * 4 + 5 * 4

    def test_integer_tables_are_constants(self, make_profile):
        def fn(p, x):
            return p["t"][jnp.argmax(x @ p["w"], -1)]

        params = {"w": jnp.eye(4), "t": jnp.arange(4)}
        found = make_profile(
            trace(fn, params, shaped(2, 4)), params, np.random.default_rng(0).normal(size=(4, 4))
        )
        assert found.has_weight.tolist() == [True] + [False] * (len(found.macs) - 1)
        assert found.weight_bytes[~found.has_weight].max() == 4 * 4


class TestInputEncodings:
    def test_raw_comes_first(self, net, profiled):
        names = [e.name for e in profiled.input_encodings]
        assert names[:2] == ["raw", "png"]
        raw = profiled.input_encodings[0]
        assert raw.payload_bytes == 8 * 8 * 3
        assert raw.lossless
        assert raw.encode_s == raw.decode_s == 0

    def test_given_images_are_measured(self, net, make_profile):
        flat = np.full((3, 8, 8, 3), 7, np.uint8)
        noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
        sizes = [
            {
                e.name: e.payload_bytes
                for e in make_profile(
                    net.graph, net.params, net.calibration, images=images
                ).input_encodings
            }
            for images in (flat, noise)
        ]
        assert sizes[0]["png"] < sizes[1]["png"]
        assert sizes[0]["raw"] == sizes[1]["raw"] == 192

    def test_a_call_of_several_images_costs_several(self, make_profile):
        def fn(p, x):
            return x.mean((1, 2)) @ p

        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
        batch = images.astype(np.float32) / 255
        found = [
            make_profile(
                trace(fn, jnp.ones((3, 2)), shaped(n, 8, 8, 3)), jnp.ones((3, 2)), batch,
                images=images,
            ).input_encodings
            for n in (1, 2)
        ]  # fmt: skip
        for one, two in zip(*found, strict=True):
            assert two.payload_bytes == pytest.approx(2 * one.payload_bytes)

    def test_what_is_no_image_has_raw_alone(self, make_profile):
        graph = trace(lambda w, x: x @ w, shaped(3, 2), shaped(1, 3))
        found = make_profile(graph, jnp.ones((3, 2)), np.ones((2, 3)))
        assert [e.name for e in found.input_encodings] == ["raw"]
        # Packed at 8 bits: whole groups of 8 levels.
        assert found.input_encodings[0].payload_bytes == 8


def test_graphs_without_floats_have_a_profile(make_profile):
    graph = trace(lambda w, i: (i * w).sum(-1), jnp.arange(4), shaped(2, 4, dtype=jnp.int32))
    found = make_profile(graph, jnp.arange(4), np.ones((2, 4), int))
    assert not found.has_weight.any()
    assert not found.activation_gain.any()
