"""What all workloads share; no workload by itself.

Facts of the set-up are those of "Auto-Split: A General Framework of Collaborative Edge-Cloud
AI" (KDD 2021, arXiv 2108.13041): devices, candidate bits, cloud bits, the link (a megabit has
1024 * 1024 bits, no round trip, no overhead of messages), and a memory budget for each
network. The error limits are ours: the paper states losses of accuracy on 50,000 images, which
are not to be had here. A network with trained weights keeps an output error of 0.02 on the
photographs that calibrate, a detector that of its raw heads; one with random weights a sum of
local errors, the paper's own budget, of 0.1.
"""

import ml_collections

MIB = 1 << 20
RANDOM = "random"


def make_classifier(
    name: str, title: str, memory_bytes: int, weights: str = RANDOM
) -> ml_collections.ConfigDict:
    """Returns the workload of a classifier of 224 x 224 pixels.

    Args:
      name: of a model in `autosplit.models`.
      title: for tables and plots.
      memory_bytes: the edge's memory budget.
      weights: a package in `autosplit.data.PACKAGES`, the path of a file of weights, or
        ``"random"``.
    """
    config = _make_config(name, title, memory_bytes, weights)
    config.images.limit = 20
    config.images.calibration = 8
    config.images.resize_pixels = 256
    config.images.crop_pixels = 224
    config.sensitivity_calls = 4
    config.latency.repeats = 20
    config.evaluation.chunk = 5
    return config


def make_detector(
    name: str, title: str, pixels: int, memory_bytes: int, weights: str = RANDOM
) -> ml_collections.ConfigDict:
    """Returns the workload of a detector: body, decoding and suppression in one function.

    Args:
      name, memory_bytes, weights: as for `make_classifier`.
      title: for tables and plots; the size is added.
      pixels: height and width of the input.
    """
    config = _make_config(name, f"{title} {pixels}", memory_bytes, weights)
    # Thresholds of COCO's evaluation.
    config.model.detector = ml_collections.ConfigDict()
    config.model.detector.score_threshold = 0.001
    config.model.detector.iou_threshold = 0.6
    config.model.detector.max_detections = 100
    config.model.detector.pre_nms = 1000
    config.model.detector.multi_label = True
    config.images.source = "detector_photographs"
    config.images.limit = 2
    config.images.calibration = 2
    config.images.resize_pixels = pixels
    config.images.crop_pixels = pixels
    # A file of COCO-format boxes, where ``source`` is the folder of its images.
    config.images.annotations = ""
    config.sensitivity_calls = 1
    config.latency.repeats = 5
    config.evaluation.chunk = 1
    return config


def _make_config(
    name: str, title: str, memory_bytes: int, weights: str
) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.title = title
    # Of random weights, and of the signs of the sensitivities.
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = name
    config.model.weights = weights

    config.images = ml_collections.ConfigDict()
    # The name of a package, or a folder. The first images calibrate, all are evaluated.
    config.images.source = "imagenet_photographs"

    config.edge = "eyeriss"
    config.cloud = "tpu"
    config.cloud_bits = 16
    config.network = ml_collections.ConfigDict()
    config.network.name = "3 Mbps"
    # The downlink has the same rate.
    config.network.uplink_bits_per_s = 3.0 * 1024**2
    config.network.round_trip_s = 0.0
    config.network.message_overhead_bytes = 0

    config.bits = (1, 2, 4, 5, 6, 7, 8)
    config.clipping = "mse"

    config.constraints = ml_collections.ConfigDict()
    config.constraints.memory_bytes = memory_bytes
    if weights == RANDOM:
        config.constraints.quant_mse = 0.1
    else:
        config.constraints.output_error = 0.02

    config.latency = ml_collections.ConfigDict()
    config.evaluation = ml_collections.ConfigDict()
    return config
