"""The same network in PyTorch, ONNX Runtime and OpenVINO, in float and in 8 bits.

Installed by the extra ``peers``. No program but those that compare speed reads this; the
libraries are imported when they are used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from autosplit.errors import InputError

INPUT = "images"
LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "nncf")

# Forms of an 8-bit ONNX network: format, type of activations. Weights are int8 per channel.
ONNX_FORMS = {"QDQ s8s8": ("QDQ", "QInt8"), "QOp u8s8": ("QOperator", "QUInt8")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """A network that is ready to run.

    Attributes:
      name: as in the tables.
      bits: 32 or 8.
      take: makes f32[N, H, W, 3] what ``run`` takes; not timed.
      run: returns when the result is there.
      give: makes f32[N, classes] of the result; not timed.
    """

    name: str
    bits: int
    take: Callable[[np.ndarray], Any]
    run: Callable[[Any], Any]
    give: Callable[[Any], np.ndarray]

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Runs all images, f32[N, H, W, 3], and returns f32[N, classes]."""
        return self.give(self.run(self.take(images)))


def library(name: str) -> Any:
    """Imports a library of the extra ``peers``.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"The library {name} is missing ({error}); expected those of the extra `peers`. "
            "Run pip install -c requirements.txt -e '.[peers]', or `make peers`."
        ) from error


def versions() -> dict[str, str]:
    """Returns the versions of all peers."""
    metadata = importlib.import_module("importlib.metadata")
    return {name: metadata.version(name) for name in LIBRARIES}


def channels_first(images: np.ndarray) -> np.ndarray:
    """Returns f32[N, 3, H, W] of f32[N, H, W, 3].

    >>> channels_first(np.zeros((1, 4, 5, 3))).shape
    (1, 3, 4, 5)
    """
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


# ---- PyTorch


def torch_network(name: str, state_dict: Mapping[str, np.ndarray]) -> Any:
    """Makes torchvision's network with some weights.

    Args:
      name: of torchvision's function, e.g. ``"resnet50"``.
      state_dict: from `autosplit.converters.to_state_dict`.
    """
    torch = library("torch")
    # torchvision's extension links CUDA and does not load where there is none; the operators
    # that its import describes are declared here and never called.
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            declared.define(f"{operator}(Tensor boxes, Tensor scores, float limit) -> Tensor")
    network = getattr(library("torchvision").models, name)(weights=None).eval()
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state_dict.items()}
    network.load_state_dict(tensors)
    return network


def torch_runner(network: Any, threads: int) -> Runner:
    """Runs a network in PyTorch, channels last, in inference mode."""
    torch = library("torch")
    torch.set_num_threads(threads)
    network = network.to(memory_format=torch.channels_last)

    def take(images: np.ndarray) -> Any:
        tensor = torch.from_numpy(channels_first(images))
        return tensor.contiguous(memory_format=torch.channels_last)

    def run(tensor: Any) -> Any:
        with torch.inference_mode():
            return network(tensor)

    return Runner(name="torch float", bits=32, take=take, run=run, give=lambda y: y.numpy())


# ---- ONNX Runtime


def export_onnx(network: Any, path: pathlib.Path, image_size: int) -> None:
    """Writes a PyTorch network as ONNX, for any number of images, made ready to be quantized."""
    torch, shapes = library("torch"), library("onnxruntime.quantization.shape_inference")
    example = torch.zeros(2, 3, image_size, image_size)
    raw = path.with_name(f"raw_{path.name}")
    with quiet():
        torch.onnx.export(
            network, (example,), str(raw), dynamo=True, verbose=False, external_data=False,
            input_names=[INPUT], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        )  # fmt: skip
        shapes.quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)


def quantize_onnx(
    source: pathlib.Path,
    target: pathlib.Path,
    images: np.ndarray,
    form: str,
    *,
    method: str = "MinMax",
    exclude: Sequence[str] = (),
) -> None:
    """Calibrates and quantizes with ONNX Runtime's own tools.

    Args:
      source, target: files.
      images: f32[N, H, W, 3], read one by one.
      form: key of `ONNX_FORMS`.
      method: of calibration: MinMax, Entropy, Percentile or Distribution.
      exclude: names of nodes that stay float.
    """
    quantization = library("onnxruntime.quantization")
    kind, activations = ONNX_FORMS[form]
    with quiet():
        quantization.quantize_static(
            str(source), str(target), onnx_reader(images),
            quant_format=quantization.QuantFormat[kind], per_channel=True,
            activation_type=quantization.QuantType[activations],
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
            nodes_to_exclude=list(exclude),
        )  # fmt: skip


def onnx_reader(images: np.ndarray) -> Any:
    """Returns a reader of calibration data that gives the images one by one."""
    rest: Iterator[np.ndarray] = iter(channels_first(images))

    def get_next(self: Any) -> dict[str, np.ndarray] | None:
        image = next(rest, None)
        return None if image is None else {INPUT: image[None]}

    # Its base class is only known once the library is imported.
    base = library("onnxruntime.quantization").CalibrationDataReader
    return type("Reader", (base,), {"get_next": get_next})()


def onnx_weighted_nodes(path: pathlib.Path) -> list[str]:
    """Returns the names of all convolutions and products, in order."""
    model = library("onnx").load(str(path))
    return [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def onnx_runner(path: pathlib.Path, name: str, bits: int, threads: int) -> Runner:
    """Runs an ONNX file on the CPU with all optimizations, which are the default."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Runner(
        name=name, bits=bits, take=channels_first,
        run=lambda x: session.run(None, {INPUT: x})[0], give=np.asarray,
    )  # fmt: skip


# ---- OpenVINO


def openvino_model(path: pathlib.Path, image_size: int) -> Any:
    """Reads an ONNX file for one image at a time."""
    model = library("openvino").Core().read_model(str(path))
    model.reshape([1, 3, image_size, image_size])
    return model


def quantize_openvino(model: Any, images: np.ndarray, ignored: Sequence[str] = ()) -> Any:
    """Quantizes with NNCF's post-training method, its mixed preset, on all images."""
    nncf = library("nncf")
    data = nncf.Dataset([image[None] for image in channels_first(images)])
    with quiet():
        return nncf.quantize(
            model, data, subset_size=len(images), preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=list(ignored)) if ignored else None,
        )  # fmt: skip


def openvino_weighted_nodes(model: Any) -> list[str]:
    """Returns the names of all convolutions and products, in order."""
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    return [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in kinds]


def openvino_runner(model: Any, name: str, bits: int, threads: int, batch: int) -> Runner:
    """Compiles a model for a number of images; what is not quantized stays float32."""
    openvino = library("openvino")
    copied = model.clone()
    copied.reshape([batch, *copied.inputs[0].shape[1:]])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(copied, "CPU", settings).create_infer_request()

    def give(result: Any) -> np.ndarray:
        return np.array(next(iter(result.values())))

    return Runner(
        name=name, bits=bits, take=channels_first,
        run=lambda x: request.infer([x], share_inputs=True), give=give,
    )  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' progress bars, warnings and remarks off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def run_in_parts(runner: Runner, images: np.ndarray, batch: int) -> np.ndarray:
    """Runs images in batches of the size that a runner was made for.

    Raises:
      InputError: the number of images is no multiple of the batch.
    """
    if len(images) % batch:
        raise InputError(
            f"{len(images)} images make no whole batches of {batch}; expected a multiple of it. "
            "Set config.images."
        )
    parts: Iterable[np.ndarray] = np.split(images, len(images) // batch)
    return np.concatenate([runner.outputs(part) for part in parts])
