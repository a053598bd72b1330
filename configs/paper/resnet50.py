r"""ResNet-50 (random weights): Auto-Split's experiments.

    python -m experiments.paper --config=configs/paper/resnet50.py \
        --workdir=build/paper/resnet50

The weights are random: errors say nothing about accuracy, latencies do not depend on weights.

Expected, at 3 Mbps, 4 MiB and a sum of local errors (quant_mse) of at most 0.1, simulated:

    cloud-only, JPEG q95       84 ms
    auto-split                177 ms    cut after the stem's pool at 2 bits, 49 KiB sent
    cloud-only, PNG           260 ms
    uniform 4-bit             304 ms
    cloud-only, raw           402 ms    so do Neurosurgeon, DADS and the original's heuristic
    edge-only                 407 ms

The chart of the original, which says 0.5 where this says 3.2, is experiments/paper_chart.py.

Duration: 2.5 min on 2 cores.
"""

import ml_collections

from configs.paper._base import MIB, make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    title = "ResNet-50 (random weights)"
    return make_config("resnet50", title, weights="random", memory_bytes=4 * MIB)
