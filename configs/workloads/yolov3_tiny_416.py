r"""YOLOv3-tiny at 416 x 416.

    python -m experiments.workload --config=configs/workloads/yolov3_tiny_416.py \
        --workdir=build/workloads/yolov3_tiny_416

Expected, at 3 Mbps, 32 MiB and an output error of the raw
heads of at most 0.02 on the photographs that calibrate, simulated:

    cloud-only, JPEG             54 ms    quality 50
    auto-split                  108 ms    8 of 22 layers, 21.1 KiB sent
    edge-only                   148 ms
    one width                   150 ms    uniform 6-bit
    DADS                        268 ms
    cloud-only, PNG             507 ms
    cloud-only, raw           1,330 ms

The cut is after pool_3; the edge holds 2.06 MiB. Times of PNG and JPEG vary by a few ms: to
encode is measured.

Duration: trace, profile and solve take 44 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_detector


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_detector("yolov3_tiny", "YOLOv3-tiny", 416, 32 * MIB, weights="yolov3_tiny")
