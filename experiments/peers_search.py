"""What a search costs with the tools of ONNX Runtime and OpenVINO: calibrate, rebuild, evaluate."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments import peers

_FORM = "QDQ s8s8"


def calibration_times(
    model: pathlib.Path, images: np.ndarray, methods: Sequence[str], scratch: pathlib.Path
) -> dict[str, float]:
    """Times ONNX Runtime's calibration of all tensors, once for each method.

    Args:
      model: from `experiments.peers.export_onnx`.
      images: f32[N, H, W, 3].
      methods: MinMax, Entropy, Percentile or Distribution.
      scratch: folder for its augmented models.

    Returns:
      Seconds by method.
    """
    times = {}
    for method in methods:
        start_s = time.perf_counter()
        _ranges(model, images, method, scratch)
        times[method] = time.perf_counter() - start_s
    return times


def _ranges(model: pathlib.Path, images: np.ndarray, method: str, scratch: pathlib.Path) -> Any:
    calibrate = peers.library("onnxruntime.quantization.calibrate")
    with peers.quiet():
        calibrator = calibrate.create_calibrator(
            str(model), None, str(scratch / "augmented.onnx"),
            calibrate_method=calibrate.CalibrationMethod[method],
        )  # fmt: skip
        calibrator.collect_data(peers.onnx_reader(images))
        return calibrator.compute_data()


def onnx_rebuild(
    model: pathlib.Path, excluded: Sequence[Sequence[str]], calibration: np.ndarray,
    images: np.ndarray, threads: int, scratch: pathlib.Path,
) -> Iterator[tuple[float, np.ndarray]]:  # fmt: skip
    """Calibrates, quantizes and evaluates with ONNX Runtime, once for each assignment.

    Args:
      model: from `experiments.peers.export_onnx`.
      excluded: names of the nodes that stay float, by assignment.
      calibration: f32[n, H, W, 3].
      images: f32[N, H, W, 3] to evaluate on, all in one call.
      threads: of the session.
      scratch: folder for the quantized model.

    Yields:
      Seconds and outputs.
    """
    target = scratch / "mixed.onnx"
    for names in excluded:

        def once(names: Sequence[str] = names) -> np.ndarray:
            peers.quantize_onnx(model, target, calibration, _FORM, exclude=names)
            return peers.onnx_runner(target, "onnxruntime", 8, threads).outputs(images)

        yield _timed(once)


def onnx_rebuild_calibrated(
    model: pathlib.Path, excluded: Sequence[Sequence[str]], calibration: np.ndarray,
    images: np.ndarray, threads: int, scratch: pathlib.Path,
) -> Iterator[tuple[float, np.ndarray]]:  # fmt: skip
    """Does the same as `onnx_rebuild` with ranges that are found once and not timed.

    ONNX Runtime's own function always calibrates; this calls the quantizer behind it.
    """
    onnx, quantization = peers.library("onnx"), peers.library("onnxruntime.quantization")
    quantizer = peers.library("onnxruntime.quantization.qdq_quantizer").QDQQuantizer
    registry = peers.library("onnxruntime.quantization.registry")
    ranges = _ranges(model, calibration, "MinMax", scratch)
    int8 = quantization.QuantType.QInt8
    target = scratch / "mixed.onnx"
    for names in excluded:

        def once(names: Sequence[str] = names) -> np.ndarray:
            with peers.quiet():
                made = quantizer(
                    onnx.load(str(model)), True, False, int8, int8, ranges, [], list(names),
                    list(registry.QDQRegistry), {},
                )  # fmt: skip
                made.quantize_model()
                made.model.save_model_to_file(str(target), False)
            return peers.onnx_runner(target, "onnxruntime", 8, threads).outputs(images)

        yield _timed(once)


def openvino_rebuild(
    model: Any, ignored: Sequence[Sequence[str]], calibration: np.ndarray, images: np.ndarray,
    threads: int,
) -> Iterator[tuple[float, np.ndarray]]:  # fmt: skip
    """Quantizes with NNCF, compiles and evaluates with OpenVINO, once for each assignment."""
    for names in ignored:

        def once(names: Sequence[str] = names) -> np.ndarray:
            quantized = peers.quantize_openvino(model, calibration, names)
            runner = peers.openvino_runner(quantized, "openvino", 8, threads, len(images))
            return runner.outputs(images)

        yield _timed(once)


def _timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start_s = time.perf_counter()
    outputs = work()
    return time.perf_counter() - start_s, outputs
