"""How fast bits are searched, beside the tools of ONNX Runtime and OpenVINO.

    python -m experiments.search_speed --config=configs/search_speed.py --workdir=build/search_speed

Two questions, on one network and one machine:

statistics: clips of all tensors at 7 bit-widths by 5 methods. The peers know 8 bits alone, so
they are charged one calibration for each method they have, and nothing for the other bit-widths.

assignments: the outputs of 100 mixed assignments on 64 images. Ours compiles once. The peers
quantize the model anew for each (some layers in 8 bits, the others float: 4 bits they do not
know); a few are measured and the time of 100 is extrapolated.

Expected: ours 2.1 s warm for the statistics (one calibration of a peer: 0.3 to 2.7 s); 49 s for
the assignments, 1.5 to 5.7 times faster than the peers. The aim was 20 times.

Duration: 4 min on 2 cores.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the comparison."""
    config = ml_collections.ConfigDict()
    config.title = "Search speed beside ONNX Runtime and NNCF"
    config.seed = 0
    config.network = "mobilenet_v2"
    config.settings = ml_collections.ConfigDict()
    config.settings.weights = "mobilenet_v2"
    config.settings.image_size = 224

    # Images that calibrate, the same for all.
    config.calibration = 16
    config.bits = (2, 3, 4, 5, 6, 7, 8)
    config.methods = ("minmax", "percentile", "mse", "kl", "aciq")
    # Of ONNX Runtime, one after the other.
    config.peer_methods = ("MinMax", "Entropy", "Percentile")

    # Bit-widths that ours draws from for each layer and tensor.
    config.mixed = (4, 8)
    config.assignments = 100
    config.images = 64
    # Of these so many are measured for each way of the peers.
    config.peer_assignments = 5
    # What the peers calibrate on when they quantize anew: the fewest that make sense.
    config.peer_calibration = 4
    return config
