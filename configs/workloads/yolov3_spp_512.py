r"""YOLOv3-SPP at 512 x 512.

    python -m experiments.workload --config=configs/workloads/yolov3_spp_512.py \
        --workdir=build/workloads/yolov3_spp_512

The weights are random (no package has trained ones): latencies do not depend on what a
network has learned, accuracy does and means nothing here.

Expected: not yet run to its end at full size; the page of the work directory tells.

Duration: not yet measured.
"""

import ml_collections

from configs.workloads._base import MIB, make_detector


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_detector("yolov3_spp", "YOLOv3-SPP", 512, 256 * MIB)
