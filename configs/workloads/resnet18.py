r"""ResNet-18 at 224 x 224.

    python -m experiments.workload --config=configs/workloads/resnet18.py \
        --workdir=build/workloads/resnet18

Expected, at 3 Mbps, 1 MiB and an output error of at most 0.02
on the photographs that calibrate, simulated:

    cloud-only, JPEG             78 ms    quality 95
    edge-only                   117 ms    breaks memory, output error
    auto-split                  203 ms    12 of 31 layers, 49 KiB sent
    one width                   267 ms    uniform 6-bit
    cloud-only, PNG             318 ms
    DADS                        397 ms
    cloud-only, raw             397 ms

The cut is after layer2_0/add; the edge holds 902 KiB. Times of PNG and JPEG vary by a few ms: to
encode is measured.

Duration: trace, profile and solve take 56 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier("resnet18", "ResNet-18", 1 * MIB, weights="resnet18")
