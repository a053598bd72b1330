"""Our networks beside PyTorch, ONNX Runtime and OpenVINO, in float and in 8 bits, in one run.

    make peers
    python -m experiments.speed --config=configs/speed.py --workdir=build/speed

Expected: see the README. Aims, as ratios to PyTorch's float (channels last): our float at most
1.2 everywhere; our 8 bits at most 0.5 on ResNet-50 and at most 1.0 on MobileNet-v2.

Duration: 15 min on 2 cores, most of it exporting and quantizing for the peers. Leave the
machine alone meanwhile: PyTorch's threads wait for each other and lose most on a busy one.

ResNet-50 has random weights with the batch statistics of its inputs, MobileNet-v2 those of
torchvision: times do not depend on what a network has learned, the agreement of 8 bits does.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the comparison."""
    config = ml_collections.ConfigDict()
    config.title = "Speed beside PyTorch, ONNX Runtime and OpenVINO"
    config.seed = 0
    # Names of `autosplit.models`; weights are "random", a package's name, or a checkpoint's path.
    config.networks = ml_collections.ConfigDict()
    config.networks.resnet50 = {"weights": "random", "image_size": 224}
    config.networks.mobilenet_v2 = {"weights": "mobilenet_v2", "image_size": 224}
    config.batches = (1, 8)
    # Images that calibrate all the 8-bit networks, and on which all outputs are compared.
    config.images = 16
    # Of our 8-bit network; the peers take the defaults of their tools.
    config.clipping = "mse"
    # All runners in turn, as often; in each turn one call that is not timed, then some that are.
    config.rounds = 15
    config.calls = 3
    # Seconds between two runners, in which the threads of the last one come to rest.
    config.settle_s = 0.05
    # Largest difference of two float networks, over the largest output.
    config.float_tolerance = 1e-3
    return config
