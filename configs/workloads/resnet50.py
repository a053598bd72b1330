r"""ResNet-50 at 224 x 224.

    python -m experiments.workload --config=configs/workloads/resnet50.py \
        --workdir=build/workloads/resnet50

The weights are random (no package has trained ones): latencies do not depend on what a
network has learned, accuracy does and means nothing here.

Expected, at 3 Mbps, 4 MiB and a sum of local errors (quant_mse) of at
most 0.1, simulated:

    cloud-only, JPEG             84 ms    quality 95
    auto-split                  177 ms    2 of 72 layers, 49 KiB sent
    cloud-only, PNG             284 ms
    one width                   304 ms    uniform 4-bit
    DADS                        402 ms
    cloud-only, raw             402 ms
    edge-only                   407 ms

The cut is after pool; the edge holds 495 KiB. Times of PNG and JPEG vary by a few ms: to encode
is measured.

Duration: trace, profile and solve take 25 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier("resnet50", "ResNet-50", 4 * MIB)
