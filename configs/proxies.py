"""How well cheap proxies of the error rank mixed bit-widths on real weights.

    python -m experiments.proxies --config=configs/proxies.py --workdir=build/proxies

On more photographs, for which the figures below are:

    python -m experiments.proxies --config=configs/proxies.py --workdir=build/proxies \
        --config.images.source=FOLDER --config.images.limit=80 --config.images.calibration=16

Expected, of the run on 80 photographs of ImageNet of which 16 calibrate and 4 of these measure
every weight and tensor alone: Spearman's rank correlation with the measured output error and
with the share of answers that differ from float, of 24 drawn assignments of 6 bits on average,
where the mean of the bits says nothing:

                                MobileNet-v2     ResNet-18
    sum of quant_mse            0.40   0.54     -0.10   0.42
    sum of quant_mse / power    0.16   0.24      0.75   0.43
    Gauss-Newton                0.76   0.86      0.76   0.72
    Fisher                      0.63   0.78      0.77   0.73
    each alone, output error    0.95   0.88      0.88   0.67
    each alone, divergence      0.87   0.91      0.80   0.85

Of 40 whose mean is drawn too even the mean ranks well (0.82 to 0.95). For the plans that the
solver chose Gauss-Newton predicts 0.3 to 1.7 times the measured output error, Fisher 0.2 to 2.9
times the divergence, and the sums of what each makes alone 0.5 to 1.1 and 0.6 to 1.9 times.

Duration: 25 min on 2 cores that other programs used as well.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the comparison of proxies."""
    config = ml_collections.ConfigDict()
    config.title = "What ranks mixed bit-widths"
    config.seed = 0

    # By the name of a model the name of a package in autosplit.data.PACKAGES, the path of a
    # PyTorch checkpoint, or a directory that experiments.convert wrote.
    config.models = ml_collections.ConfigDict()
    config.models.mobilenet_v2 = "mobilenet_v2"
    config.models.resnet18 = "resnet18"

    config.images = ml_collections.ConfigDict()
    # The name of a package, or a folder of images.
    config.images.source = "imagenet_photographs"
    config.images.limit = 20
    config.images.resize_pixels = 256
    config.images.crop_pixels = 224
    # Evenly spaced ones calibrate, all others evaluate.
    config.images.calibration = 4
    # Of those that calibrate so many measure every weight and tensor alone.
    config.images.table = 4

    config.bits = (2, 3, 4, 5, 6, 7, 8)
    config.clipping = "mse"
    # Drawn assignments: of any mean bits, and all of the same.
    config.draws = 40
    config.equal_draws = 24
    config.equal_bits = 6.0
    config.spread_bits = 1.5

    # Plans that the solver chooses for this edge, cloud and link, by gains and their limit.
    config.edge = "eyeriss"
    config.cloud = "tpu"
    config.network = ml_collections.ConfigDict()
    config.network.name = "3 Mbps"
    config.network.uplink_bits_per_s = 3.0 * 1024**2
    config.limits = ml_collections.ConfigDict()
    # Relative output error, and nats of divergence.
    config.limits.output = (0.003, 0.01, 0.03)
    config.limits.fisher = (0.003, 0.01, 0.03)
    return config
