"""Auto-Split's experiments on every classifier that there is so far, and its ResNet-50 chart.

    python -m experiments.paper --config=configs/paper/all.py --workdir=build/paper

Expected: build/paper/summary.md with a table and a plot of all workloads, which links to the
page of each, and chart.md, which reproduces the bars of the original's ResNet-50 chart within
0.003 and says what makes ours differ. Auto-split is the fastest plan for MobileNet-v2 (0.12 of
cloud-only with the raw input, simulated); for the ResNets (0.51, 0.38, 0.44) cloud-only with
JPEG at quality 95 is faster (0.20).

Duration: 7 min on 2 cores, after a download of 65 MB; a second run takes 10 s.
"""

import ml_collections

from configs.paper import mobilenet_v2, resnet18, resnet34, resnet50

WORKLOADS = (mobilenet_v2, resnet18, resnet34, resnet50)


def get_config() -> ml_collections.ConfigDict:
    """Returns the configurations of all workloads by name."""
    config = ml_collections.ConfigDict()
    config.workloads = ml_collections.ConfigDict()
    for module in WORKLOADS:
        config.workloads[module.__name__.rpartition(".")[2]] = module.get_config()
    return config
