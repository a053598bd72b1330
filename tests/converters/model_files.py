"""Writes small model files for tests, with each format's own library or by its description."""

import json

import numpy as np


def write_tfjs(folder, weights, shards=2):
    """Writes a TensorFlow.js layers model of one group; returns the path of its model.json."""
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in weights.values())
    bounds = [len(content) * i // shards for i in range(shards + 1)]
    names = [f"group1-shard{i + 1}of{shards}.bin" for i in range(shards)]
    for name, start, stop in zip(names, bounds, bounds[1:], strict=False):
        (folder / name).write_bytes(content[start:stop])
    entries = [
        {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        for name, array in weights.items()
    ]
    manifest = {"weightsManifest": [{"paths": names, "weights": entries}]}
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder / "model.json"


def write_onnx(path, operations, constants, inputs=("images",), outputs=("outputs",)):
    """Writes an ONNX model; operations are (kind, inputs, outputs, attributes)."""
    import onnx

    def described(names):
        return [onnx.helper.make_tensor_value_info(name, 1, None) for name in names]

    nodes = [
        onnx.helper.make_node(kind, ins, outs, **attributes)
        for kind, ins, outs, attributes in operations
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "graph", described(inputs), described(outputs), tensors)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


KERAS_LEAVES = {
    ("params", "kernel"): "kernel",
    ("params", "scale"): "gamma",
    ("params", "bias"): "beta",
    ("batch_stats", "mean"): "moving_mean",
    ("batch_stats", "var"): "moving_variance",
}
KERAS_STEM_AND_HEAD = {"conv1": "conv1", "bn1": "bn_conv1", "fc": "fc1000"}


def keras_name(path):
    """Names a Linen variable of a ResNet with `Bottleneck` as Keras' ResNet-50 does."""
    collection, *block, layer, leaf = path
    is_norm = "bn" in layer or layer == "downsample_1"
    name = KERAS_LEAVES[collection, leaf] if is_norm or leaf != "bias" else "bias"
    if not block:
        return f"{KERAS_STEM_AND_HEAD[layer]}/{name}"
    stage, index = map(int, block[0].removeprefix("layer").split("_"))
    branch = "1" if "downsample" in layer else f"2{'abc'[int(layer[-1]) - 1]}"
    return f"{'bn' if is_norm else 'res'}{stage + 1}{'abcdef'[index]}_branch{branch}/{name}"


def write_tflite(path, tensors, operations):
    """Writes a LiteRT model.

    Args:
      path: of the file.
      tensors: (name, array or None) for each tensor; None for what is computed.
      operations: (kind, positions of inputs, positions of outputs), in order.
    """
    import flatbuffers
    import tflite

    builder = flatbuffers.Builder(1024)

    def vector(start, add, items):
        start(builder, len(items))
        for item in reversed(items):
            add(item)
        return builder.EndVector()

    def tables(start, items):
        return vector(start, builder.PrependUOffsetTRelative, items)

    def buffer(content):
        data = builder.CreateByteVector(content) if content else None
        tflite.BufferStart(builder)
        if data is not None:
            tflite.BufferAddData(builder, data)
        return tflite.BufferEnd(builder)

    def tensor(position, name, array):
        shape = array.shape if array is not None else (1,)
        text = builder.CreateString(name)
        lengths = vector(tflite.TensorStartShapeVector, builder.PrependInt32, shape)
        is_integer = array is not None and array.dtype == np.int32
        tflite.TensorStart(builder)
        tflite.TensorAddName(builder, text)
        tflite.TensorAddShape(builder, lengths)
        tflite.TensorAddType(
            builder, tflite.TensorType.INT32 if is_integer else tflite.TensorType.FLOAT32
        )
        tflite.TensorAddBuffer(builder, position + 1)
        return tflite.TensorEnd(builder)

    def code(kind):
        number = getattr(tflite.BuiltinOperator, kind)
        tflite.OperatorCodeStart(builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, number)
        tflite.OperatorCodeAddBuiltinCode(builder, number)
        return tflite.OperatorCodeEnd(builder)

    def operator(kind, ins, outs):
        inputs = vector(tflite.OperatorStartInputsVector, builder.PrependInt32, ins)
        outputs = vector(tflite.OperatorStartOutputsVector, builder.PrependInt32, outs)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, kinds.index(kind))
        tflite.OperatorAddInputs(builder, inputs)
        tflite.OperatorAddOutputs(builder, outputs)
        return tflite.OperatorEnd(builder)

    kinds = sorted({kind for kind, _, _ in operations})
    # The first buffer is empty and stands for all tensors that are computed.
    contents = [b"", *(b"" if array is None else array.tobytes() for _, array in tensors)]
    buffers = tables(tflite.ModelStartBuffersVector, [buffer(content) for content in contents])
    codes = tables(tflite.ModelStartOperatorCodesVector, [code(kind) for kind in kinds])
    described = [tensor(i, name, array) for i, (name, array) in enumerate(tensors)]
    all_tensors = tables(tflite.SubGraphStartTensorsVector, described)
    steps = [operator(*operation) for operation in operations]
    all_operators = tables(tflite.SubGraphStartOperatorsVector, steps)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, all_tensors)
    tflite.SubGraphAddOperators(builder, all_operators)
    subgraphs = tables(tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(builder)])
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def write_tflite_mobilenet(path, params, extra=()):
    """Writes the Linen parameters of a MobileNet-v1 with its batch norms' biases folded in."""
    tensors, operations = [("input", None)], []

    def add(kind, kernel, bias):
        source, position = operations[-1][2][0] if operations else 0, len(tensors)
        name = f"layer{len(operations)}"
        tensors.extend([(f"{name}/weights", kernel), (f"{name}/bias", bias), (name, None)])
        operations.append((kind, (source, position, position + 1), (position + 2,)))

    for index in range(sum(module.endswith("_0") for module in params)):
        kernel = params[f"features_{index}_0"]["kernel"]
        bias = params[f"features_{index}_1"]["bias"]
        if index % 2:  # height, width, 1, channels
            add("DEPTHWISE_CONV_2D", np.moveaxis(kernel, 2, 0), bias)
        else:  # height, width, in, out
            add("CONV_2D", np.moveaxis(kernel, 3, 0), bias)
    linear = params["classifier_1"]
    add("CONV_2D", linear["kernel"].T[:, None, None, :], linear["bias"])
    tensors.append(("shape", np.array([1, -1], np.int32)))
    operations.append(("RESHAPE", (operations[-1][2][0], len(tensors) - 1), (len(tensors),)))
    tensors.append(("logits", None))
    tensors.extend(extra)
    return write_tflite(path, tensors, operations)
