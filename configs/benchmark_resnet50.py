"""How long autosplit takes for ResNet-50 at 224x224, beside a plain NumPy loop.

    python -m experiments.benchmark --config=configs/benchmark_resnet50.py --workdir=build/benchmark

Expected: tracing under 5 s; solving the whole list of plans under 1 s; the errors of all
tensors and weights at 7 bit-widths, warm, at least 20 times faster than the loop, with a
median error within 2 % of the loop's. A whole warm profile, which also estimates output
gains, takes about a twentieth of the loop's time; on a busy machine it can miss that.
build/benchmark/benchmark.md has the tables.

Duration: 3.5 min on 2 cores, most of it the loop; 1 GiB of memory beside the network's.

Weights and inputs are random: He initialization, batch statistics of the inputs, inputs
with the 1/f spectrum of photographs. Times do not depend on what the network has learned.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the benchmark."""
    config = ml_collections.ConfigDict()
    config.title = "ResNet-50 at 224x224"
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.stage_sizes = (3, 4, 6, 3)
    config.model.features = 64
    config.model.num_classes = 1000
    config.image_size = 224
    # Calls of one image, the same for autosplit and for the loop.
    config.calls = 4

    config.bits = (2, 3, 4, 5, 6, 7, 8)
    config.edge = "eyeriss"
    config.cloud = "tpu"
    config.network = ml_collections.ConfigDict()
    config.network.name = "3 Mbps"
    config.network.uplink_bits_per_s = 3.0 * 1024**2
    config.network.round_trip_s = 0.02

    # A network of another size for the solver alone; its errors are drawn.
    config.large = ml_collections.ConfigDict()
    config.large.layers = 1000
    config.large.family = "inception"
    config.large.bits = (1, 2, 3, 4, 5, 6, 7, 8)

    # Calls after the first one; the median of them is reported.
    config.repeats = ml_collections.ConfigDict()
    config.repeats.trace = 3
    config.repeats.profile = 5
    config.repeats.solve = 5
    config.repeats.large = 1
    # Passes over all tensors in NumPy.
    config.repeats.loop = 3
    config.repeats.histogram = 3
    # Size of the memory copy that throughput is compared with.
    config.copy_bytes = 256 * 1024**2
    return config
