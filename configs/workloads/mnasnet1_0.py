r"""MNASNet 1.0 at 224 x 224.

    python -m experiments.workload --config=configs/workloads/mnasnet1_0.py \
        --workdir=build/workloads/mnasnet1_0

The weights are random (no package has trained ones): latencies do not depend on what a
network has learned, accuracy does and means nothing here.

Expected, at 3 Mbps, 4 MiB and a sum of local errors (quant_mse) of at
most 0.1, simulated:

    auto-split                   50 ms    28 of 64 layers, 7.66 KiB sent
    edge-only                    51 ms
    one width                    60 ms    uniform 6-bit
    cloud-only, JPEG             78 ms    quality 95
    DADS                        113 ms
    cloud-only, PNG             291 ms
    cloud-only, raw             396 ms

The cut is after layers_10_0/layers_6; the edge holds 332 KiB. Times of PNG and JPEG vary by a
few ms: to encode is measured.

Duration: trace, profile and solve take 62 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier("mnasnet1_0", "MNASNet 1.0", 4 * MIB)
