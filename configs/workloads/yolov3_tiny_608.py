r"""YOLOv3-tiny at 608 x 608.

    python -m experiments.workload --config=configs/workloads/yolov3_tiny_608.py \
        --workdir=build/workloads/yolov3_tiny_608

Expected, at 3 Mbps, 32 MiB and an output error of the raw
heads of at most 0.02 on the photographs that calibrate, simulated:

    cloud-only, JPEG             96 ms    quality 50
    edge-only (chosen)          312 ms    22 of 22 layers, 0 B sent
    one width                   312 ms    uniform 6-bit
    DADS                        551 ms
    cloud-only, PNG           1,058 ms
    cloud-only, raw           2,833 ms

Everything runs on the edge, which holds 9.56 MiB. Times of PNG and JPEG vary by a few ms: to
encode is measured.

Duration: trace, profile and solve take 45 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_detector


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_detector("yolov3_tiny", "YOLOv3-tiny", 608, 32 * MIB, weights="yolov3_tiny")
