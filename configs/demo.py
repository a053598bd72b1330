"""MobileNet-v2 on real photographs, split between a small accelerator and a cloud.

    python -m experiments.main --config=configs/demo.py --workdir=build/demo

Expected: a cut in the last third of the network, under 10 kB sent for each photograph
instead of 150 kB, about a tenth of the raw photograph's latency over the 3 Mbps link,
and the right label on at least as many of the 20 photographs as half a point below the
float network allows. Everything is in build/demo/report.html.

Duration: 3 min on 2 cores, after a download of 15 MB.

Weights: torchvision's own checkpoint; photographs: 20 of ImageNet with labels. Both come
from registry packages (third_party/README.md). Edge and cloud are those of the Auto-Split
paper, as is the link's rate and the edge memory of 1 MiB; the round trip is ours.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the demonstration."""
    config = ml_collections.ConfigDict()
    config.title = "MobileNet-v2 split between edge and cloud"
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = "mobilenet_v2"
    # The name of a package in autosplit.data.PACKAGES, or the path of a checkpoint.
    config.model.weights = "mobilenet_v2"

    config.images = ml_collections.ConfigDict()
    # The name of a package, or a folder of images.
    config.images.source = "imagenet_photographs"
    config.images.limit = 20
    # The first images calibrate; all are evaluated, held-out ones apart.
    config.images.calibration = 8

    config.edge = "eyeriss"
    config.cloud = "tpu"
    config.network = ml_collections.ConfigDict()
    config.network.name = "3 Mbps"
    config.network.uplink_bits_per_s = 3.0 * 1024**2
    config.network.downlink_bits_per_s = 3.0 * 1024**2
    config.network.round_trip_s = 0.02
    config.network.message_overhead_bytes = 200

    config.bits = (2, 3, 4, 5, 6, 7, 8)
    config.clipping = "mse"

    config.constraints = ml_collections.ConfigDict()
    config.constraints.memory_bytes = 1 << 20
    config.constraints.output_error = 0.02
    return config
