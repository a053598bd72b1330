r"""MobileNet-v2: Auto-Split's experiments.

    python -m experiments.paper --config=configs/paper/mobilenet_v2.py \
        --workdir=build/paper/mobilenet_v2

Expected, at 3 Mbps, 1 MiB and an output error of at most 0.02; latencies are simulated and
errors measured on the 8 photographs that calibrate:

    auto-split                 47 ms    cut after features_7, 6.1 KiB sent, error 0.017 to 0.019
    original's heuristic       63 ms    at the same cut, error 0.018
    cloud-only, JPEG q95       77 ms    error 0.015; coarser JPEGs break the limit of the error
    cloud-only, PNG           253 ms    10 of them to encode it here; a JPEG takes 0.2
    cloud-only, raw           396 ms    so do Neurosurgeon and DADS
    uniform 8-bit             527 ms

From 10 Mbps on cloud-only with JPEG is the fastest (25 ms against 29 ms).

Duration: 1 min on 2 cores, after a download of 15 MB.
"""

import ml_collections

from configs.paper._base import MIB, make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    return make_config("mobilenet_v2", "MobileNet-v2", weights="mobilenet_v2", memory_bytes=1 * MIB)
