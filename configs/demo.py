"""MobileNet-v2 on real photographs, split between a small accelerator and a cloud.

    python -m experiments.main --config=configs/demo.py --workdir=build/demo

Expected, of the run on 20 photographs of which 8 calibrate: a cut after features_7, with 24
of 64 layers on the edge at 5 to 8 bits (weights) and 4 to 8 bits (activations), and 6,272
bytes sent for each photograph. Predicted latency of one request, and what it breaks:

    auto-split                 68 ms
    edge-only                  47 ms    needs 3.5 MiB where 1 MiB is allowed
    cloud-only, JPEG q50       53 ms    output error 0.17 where 0.02 is allowed
    cloud-only, JPEG q75       62 ms    output error 0.11
    cloud-only, JPEG q90       80 ms    output error 0.04
    cloud-only, JPEG q95       98 ms
    cloud-only, PNG           278 ms
    cloud-only, raw           417 ms
    uniform 8-bit             548 ms

The rows of JPEG and PNG vary by a few ms, as the time to compress is measured. Right
answers: 18 of 20 in float, 19 as split, which are too few to tell the two apart; of the 12
held-out photographs 11 and 12. The split's output error is 0.019 on the photographs that
calibrate and 0.025 on the others: the limit is judged on the former. Everything is in
build/demo/report.html.

Duration: 2 min on 2 cores, after a download of 15 MB.

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
    config.model.title = "MobileNet-v2"
    # The name of a package in autosplit.data.PACKAGES, the path of a PyTorch checkpoint, or a
    # directory that experiments.convert wrote.
    config.model.weights = "mobilenet_v2"

    config.images = ml_collections.ConfigDict()
    # The name of a package, or a folder of images.
    config.images.source = "imagenet_photographs"
    config.images.limit = 20
    config.images.resize_pixels = 256
    config.images.crop_pixels = 224
    # The first images calibrate; all are evaluated, held-out ones apart.
    config.images.calibration = 8

    config.edge = "eyeriss"
    config.cloud = "tpu"
    config.network = ml_collections.ConfigDict()
    # The paper's 3 Mbps, with a megabit of 1024 * 1024 bits.
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
