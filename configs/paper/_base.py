"""What all workloads of the paper's experiments share; no experiment by itself.

Facts of the set-up are those of "Auto-Split: A General Framework of Collaborative
Edge-Cloud AI" (KDD 2021, arXiv 2108.13041): devices, candidate bits, cloud bits, the link
and its sweep (a megabit has 1024 * 1024 bits), no round trip and no overhead of messages,
a memory budget for each network. The error limits are ours: the paper states losses of
accuracy on 50,000 images, which are not to be had here. A network with random weights is
held to the sum of its local errors, the budget of the paper's formulation, since what reaches
its outputs means nothing: 0.137 of ResNet-50 is what 6 bits everywhere make.
"""

import ml_collections

MIB = 1 << 20


def make_config(
    name: str, title: str, weights: str, memory_bytes: int
) -> ml_collections.ConfigDict:
    """Returns the experiment of one classifier.

    Args:
      name: of a model in `autosplit.models`.
      title: for tables and plots.
      weights: a package in `autosplit.data.PACKAGES`, the path of a checkpoint, or
        ``"random"``.
      memory_bytes: the edge's memory budget.
    """
    config = ml_collections.ConfigDict()
    config.title = title
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = name
    config.model.weights = weights

    config.images = ml_collections.ConfigDict()
    config.images.source = "imagenet_photographs"
    # All of them calibrate, and all errors are measured on them.
    config.images.limit = 8
    config.images.calibration = 8
    config.images.resize_pixels = 256
    config.images.crop_pixels = 224

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

    config.sweeps = ml_collections.ConfigDict()
    config.sweeps.uplink_bits_per_s = tuple(m * 1024.0**2 for m in (1, 3, 10, 20))
    if weights == "random":
        config.constraints.quant_mse = 0.1
        config.sweeps.quant_mse = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    else:
        config.constraints.output_error = 0.02
        config.sweeps.output_error = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.3)
    # From a quarter of the budget of the paper to where any of these networks fits whole.
    config.sweeps.memory_bytes = tuple(
        int(memory_bytes * factor) for factor in (0.25, 0.5, 1, 2, 4, 8)
    )
    # Links that state the energy of a bit: least latency beside least energy.
    config.sweeps.energy_networks = ("ble", "3g", "4g", "wifi")
    return config
