r"""YOLOv3-SPP at 608 x 608.

    python -m experiments.workload --config=configs/workloads/yolov3_spp_608.py \
        --workdir=build/workloads/yolov3_spp_608

The weights are random (no package has trained ones): latencies do not depend on what a
network has learned, accuracy does and means nothing here.

Expected, at 3 Mbps, 512 MiB and a sum of local errors (quant_mse) of at
most 0.1, simulated:

    cloud-only, JPEG            324 ms    quality 95
    cloud-only, PNG           1,091 ms
    auto-split                1,620 ms    13 of 108 layers, 361 KiB sent
    DADS                      2,867 ms
    cloud-only, raw           2,867 ms
    one width                 3,501 ms    uniform 6-bit
    edge-only                 3,890 ms    breaks quant mse

The cut is after module_list_12/Conv2d; the edge holds 8.54 MiB. Times of PNG and JPEG vary by a
few ms: to encode is measured.

Duration: trace, profile and solve take 35 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_detector


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_detector("yolov3_spp", "YOLOv3-SPP", 608, 512 * MIB)
