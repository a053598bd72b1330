r"""ResNet-34 (random weights): Auto-Split's experiments.

    python -m experiments.paper --config=configs/paper/resnet34.py \
        --workdir=build/paper/resnet34

The weights are random: errors say nothing about accuracy, latencies do not depend on weights. The
paper has no ResNet-34; the memory budget is that of ResNet-50.

Expected, at 3 Mbps, 4 MiB and a sum of local errors (quant_mse) of at most 0.1, simulated:

    cloud-only, JPEG q95       81 ms
    auto-split                152 ms    cut after layer2_0, 24.5 KiB sent
    edge-only                 193 ms    so does the original's heuristic
    uniform 6-bit             223 ms
    cloud-only, PNG           257 ms
    cloud-only, raw           399 ms    so do Neurosurgeon and DADS

Duration: 2 min on 2 cores.
"""

import ml_collections

from configs.paper._base import MIB, make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    title = "ResNet-34 (random weights)"
    return make_config("resnet34", title, weights="random", memory_bytes=4 * MIB)
