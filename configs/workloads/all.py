"""Every workload: nine classifiers, and three detectors of three sizes each.

    python -m experiments.workload --config=configs/workloads/all.py --workdir=build/workloads

Expected: build/workloads/workloads.md, a table and a plot of all of them: layers,
multiply-accumulates, parameters, cuts, the chosen split, its simulated latency beside cloud-only
and other baselines, accuracy, and how long planning took. Each workload has a folder of its own.

Duration: not yet measured as one run on a quiet machine.
"""

import ml_collections

from configs.workloads import (
    efficientnet_lite0,
    googlenet,
    mnasnet1_0,
    mobilenet_v1,
    mobilenet_v2,
    resnet18,
    resnet50,
    resnet50_v1,
    resnext50_32x4d,
    yolov3_416,
    yolov3_512,
    yolov3_608,
    yolov3_spp_416,
    yolov3_spp_512,
    yolov3_spp_608,
    yolov3_tiny_416,
    yolov3_tiny_512,
    yolov3_tiny_608,
)

WORKLOADS = (
    resnet18, resnet50, resnet50_v1, resnext50_32x4d, mobilenet_v1, mobilenet_v2, mnasnet1_0,
    googlenet, efficientnet_lite0, yolov3_tiny_416, yolov3_tiny_512, yolov3_tiny_608, yolov3_416,
    yolov3_512, yolov3_608, yolov3_spp_416, yolov3_spp_512, yolov3_spp_608,
)  # fmt: skip


def get_config() -> ml_collections.ConfigDict:
    """Returns the configurations of all workloads by name."""
    config = ml_collections.ConfigDict()
    config.workloads = ml_collections.ConfigDict()
    for module in WORKLOADS:
        config.workloads[module.__name__.rpartition(".")[2]] = module.get_config()
    return config
