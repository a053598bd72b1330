r"""YOLOv3-SPP at 416 x 416.

    python -m experiments.workload --config=configs/workloads/yolov3_spp_416.py \
        --workdir=build/workloads/yolov3_spp_416

The weights are random (no package has trained ones): latencies do not depend on what a
network has learned, accuracy does and means nothing here.

Expected, at 3 Mbps, 128 MiB and a sum of local errors (quant_mse) of at
most 0.1, simulated:

    cloud-only, JPEG            170 ms    quality 95
    cloud-only, PNG             604 ms
    auto-split                  767 ms    13 of 108 layers, 169 KiB sent
    DADS                      1,351 ms
    cloud-only, raw           1,351 ms
    one width                 1,648 ms    uniform 6-bit
    edge-only                 1,856 ms    breaks quant mse

The cut is after module_list_12/Conv2d; the edge holds 4.04 MiB. Times of PNG and JPEG vary by a
few ms: to encode is measured.

Duration: trace, profile and solve take 27 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_detector


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_detector("yolov3_spp", "YOLOv3-SPP", 416, 128 * MIB)
