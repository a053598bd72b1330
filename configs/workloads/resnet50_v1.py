r"""ResNet-50 v1 (Keras) at 224 x 224.

    python -m experiments.workload --config=configs/workloads/resnet50_v1.py \
        --workdir=build/workloads/resnet50_v1

Expected, at 3 Mbps, 4 MiB and an output error of at most 0.02
on the photographs that calibrate, simulated:

    cloud-only, PNG             260 ms
    edge-only                   384 ms    breaks memory, output error
    DADS                        402 ms
    cloud-only, raw             402 ms
    one width                   432 ms    uniform 6-bit
    auto-split                  496 ms    2 of 72 layers, 172 KiB sent

The cut is after pool; the edge holds 696 KiB. Times of PNG and JPEG vary by a few ms: to encode
is measured.

Duration: trace, profile and solve take 42 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier("resnet50_v1", "ResNet-50 v1 (Keras)", 4 * MIB, weights="resnet50_v1")
