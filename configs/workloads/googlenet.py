r"""GoogLeNet at 224 x 224.

    python -m experiments.workload --config=configs/workloads/googlenet.py \
        --workdir=build/workloads/googlenet

The weights are random (no package has trained ones): latencies do not depend on what a
network has learned, accuracy does and means nothing here.

Expected, at 3 Mbps, 8 MiB and a sum of local errors (quant_mse) of at
most 0.1, simulated:

    cloud-only, JPEG             78 ms    quality 95
    edge-only (chosen)          126 ms    81 of 81 layers, 0 B sent
    one width                   130 ms    uniform 6-bit
    cloud-only, PNG             258 ms
    DADS                        396 ms
    cloud-only, raw             396 ms

Everything runs on the edge, which holds 1.52 MiB. Times of PNG and JPEG vary by a few ms: to
encode is measured.

Duration: trace, profile and solve take 75 s of the processor, measured on 2 cores that others
used too; the other steps have not been measured on a quiet machine.
"""

import ml_collections

from configs.workloads._base import MIB, make_classifier


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the workload."""
    return make_classifier("googlenet", "GoogLeNet", 8 * MIB)
