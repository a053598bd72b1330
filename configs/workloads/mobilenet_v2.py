r"""MobileNet-v2 at 224 x 224.

    python -m experiments.workload --config=configs/workloads/mobilenet_v2.py \
        --workdir=build/workloads/mobilenet_v2

Expected, at 3 Mbps, 1 MiB and an output error of at most 0.02
on the photographs that calibrate, simulated:

    edge-only                    47 ms    breaks memory, output error
    auto-split                   47 ms    24 of 64 layers, 6.12 KiB sent
    cloud-only, JPEG             77 ms    quality 95
    cloud-only, PNG             274 ms
    DADS                        396 ms
    cloud-only, raw             396 ms
    one width                   527 ms    uniform 8-bit

The cut is after features_7/conv_2; the edge holds 959 KiB. Times of PNG and JPEG vary by a few
ms: to encode is measured.

Duration: trace, profile and solve take 55 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier("mobilenet_v2", "MobileNet-v2", 1 * MIB, weights="mobilenet_v2")
