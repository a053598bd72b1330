r"""ResNet-18: Auto-Split's experiments.

    python -m experiments.paper --config=configs/paper/resnet18.py \
        --workdir=build/paper/resnet18

Expected, at 3 Mbps, 1 MiB and an output error of at most 0.02; latencies are simulated and
errors measured on the 8 photographs that calibrate:

    cloud-only, JPEG q95       78 ms    error 0.015; coarser JPEGs break the limit of the error
    auto-split                203 ms    cut after layer2_0, 49 KiB sent, error 0.005 to 0.009
    cloud-only, PNG           255 ms
    uniform 6-bit             267 ms    error 0.013
    original's heuristic      331 ms    error 0.024: it breaks the limit
    cloud-only, raw           397 ms    so do Neurosurgeon and DADS

Cloud-only with JPEG beats the split at every bandwidth of the sweep.

Duration: 1 min on 2 cores, after a download of 47 MB.
"""

import ml_collections

from configs.paper._base import MIB, make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    return make_config("resnet18", "ResNet-18", weights="resnet18", memory_bytes=1 * MIB)
