r"""YOLOv3-tiny at 512 x 512.

    python -m experiments.workload --config=configs/workloads/yolov3_tiny_512.py \
        --workdir=build/workloads/yolov3_tiny_512

Expected, at 3 Mbps, 32 MiB and an output error of the raw
heads of at most 0.02 on the photographs that calibrate, simulated:

    cloud-only, JPEG             83 ms    quality 50
    auto-split                  161 ms    8 of 22 layers, 32 KiB sent
    edge-only                   222 ms
    one width                   223 ms    uniform 6-bit
    DADS                        395 ms
    cloud-only, PNG           1,049 ms
    cloud-only, raw           2,011 ms

The cut is after pool_3; the edge holds 3.57 MiB. Times of PNG and JPEG vary by a few ms: to
encode is measured.

Duration: trace, profile and solve take 40 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_detector


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_detector("yolov3_tiny", "YOLOv3-tiny", 512, 32 * MIB, weights="yolov3_tiny")
