r"""EfficientNet-Lite0 at 224 x 224.

    python -m experiments.workload --config=configs/workloads/efficientnet_lite0.py \
        --workdir=build/workloads/efficientnet_lite0

The memory budget is ours; the paper has no such network.

Expected, at 3 Mbps, 1 MiB and an output error of at most 0.02
on the photographs that calibrate, simulated:

    edge-only                    68 ms    breaks memory
    cloud-only, PNG             287 ms
    auto-split                  337 ms    3 of 60 layers, 122 KiB sent
    DADS                        397 ms
    cloud-only, raw             397 ms
    one width                   528 ms    uniform 8-bit

The cut is after _blocks_0/_project_conv; the edge holds 345 KiB. Times of PNG and JPEG vary by a
few ms: to encode is measured.

Duration: trace, profile and solve take 74 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier(
        "efficientnet_lite0", "EfficientNet-Lite0", 1 * MIB, weights="efficientnet_lite0"
    )
