r"""Persons found in a video: a split detector beside cloud-only JPEG, in the browser.

    python -m experiments.face_demo --config=configs/face_demo.py --workdir=build/face_demo \
        [--port 8765] [--camera 0] [--seconds 30 | --seconds_each 5]

The first run times the layers of the network on this machine, plans for every rate below and
saves the plans; later runs read what it saved. ``--seconds`` stops by itself, ``--seconds_each``
after visiting every setting; the medians of every stage are in ``measured.json``.

Expected, of ``--seconds_each 20`` on 2 cores that did other work besides (the clip's medians; one
frame at a time; bytes with all headers on a link of 3 Mbps with a round trip of 20 ms):

    split after pool 3, 2 bits, zstd    52 ms     4,293 bytes    output error 0.017
    cloud-only, JPEG q30                53 ms     4,858 bytes    output error 0.016
    cloud-only, JPEG q50                54 ms     6,282 bytes    output error 0.010
    cloud-only, JPEG q75                69 ms     8,800 bytes    output error 0.005
    cloud-only, JPEG q90                87 ms    14,097 bytes    output error 0.002

At 1 Mbps the split takes 86 ms and JPEG q75 112 ms; from some 8 Mbps on cloud-only is the faster
one, by 3 ms at 13 Mbps and 7 at 50, as bytes hardly count there. At an equal error (q30) the
split is thus no faster than the noise: JPEG is a good code for a photograph of this size, and
the first layer of YOLOv3-tiny that is smaller than its input has half as many numbers as
that has pixels. The split plan is switched at 6.3, 10 and 25 Mbps, to 3, 4 and 5 bits.

Duration: the plans 100 s on 2 busy cores, after a download of 36 MB; then 10 s until the page
is there.

The network is YOLOv3-tiny with published weights at 256 x 192 pixels; the photographs that
calibrate (ImageNet's) are not those of the clip. Both halves run on this machine at its own
speed, as two processes; the link between them is imitated. The edge may hold 1 MiB of weights
and activations, an eighth of the network, so it cannot do all by itself.

Of the plans that keep the limits, the one that costs least at a rate is saved for it:
``latency_s + error_weight_s * output_error``. A fast link is thus used to send more bits. The
error is that of the raw heads, before boxes are decoded from them: a box is there or not, which
tells little about what lies below it.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the demonstration in the browser."""
    config = ml_collections.ConfigDict()
    config.title = "A person detector, split between edge and cloud"
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = "yolov3_tiny"
    config.model.weights = "yolov3_tiny"
    # Multiples of 32.
    config.model.height = 192
    config.model.width = 256
    config.model.score_threshold = 0.3
    config.model.iou_threshold = 0.5
    config.model.max_detections = 20

    # Names of packages: what calibrates, and what the clip is made of.
    config.calibration = ml_collections.ConfigDict()
    config.calibration.source = "imagenet_photographs"
    config.calibration.limit = 12
    config.clip = ml_collections.ConfigDict()
    config.clip.source = "detector_photographs"
    config.clip.frames_per_s = 12.0
    config.clip.move_s = 5.0

    # "measured" times the layers on this machine; else a preset or a device file.
    config.edge = "measured"
    config.cloud = "measured"
    config.network = ml_collections.ConfigDict()
    config.network.name = "3 Mbps"
    config.network.uplink_bits_per_s = 3e6
    config.network.downlink_bits_per_s = 3e6
    config.network.round_trip_s = 0.02
    config.network.message_overhead_bytes = 200
    # The slider goes from the first to the last; there is a plan for each.
    config.rates_bits_per_s = (0.5e6, 1e6, 2e6, 3e6, 5e6, 8e6, 13e6, 20e6, 32e6, 50e6)

    config.bits = (2, 3, 4, 5, 6, 7, 8)
    config.clipping = "mse"
    config.constraints = ml_collections.ConfigDict()
    config.constraints.memory_bytes = 1 << 20
    config.constraints.output_error = 0.03
    # What an output error of 1 counts like; an error of 0.01 thus like 8 ms.
    config.error_weight_s = 0.8

    # Of cloud-only, chosen on the page; Pillow's own default is 75.
    config.jpeg_qualities = (30, 50, 75, 90)
    config.jpeg_quality = 75
    return config
