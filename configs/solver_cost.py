"""What the exact solver costs as layers, bit candidates and cuts grow.

    python -m experiments.solver_cost --config=configs/solver_cost.py --workdir=build/solver_cost

Expected: a few seconds in every case, 1,000 layers with branches at 8 bit-widths among them, with
the gap to a proven bound in the table. build/solver_cost/solver_cost.png plots them.

Duration: 2 min on 2 cores.

Three families of network: chains with short cuts, blocks of four branches, and two long branches
side by side. They are traced and priced for real; their errors are drawn.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the measurement."""
    config = ml_collections.ConfigDict()
    config.title = "Cost of the exact solver"
    config.seed = 0
    config.edge = "eyeriss"
    config.cloud = "tpu"
    config.network = ml_collections.ConfigDict()
    config.network.name = "3 Mbps"
    config.network.uplink_bits_per_s = 3.0 * 1024**2
    config.network.round_trip_s = 0.02

    # The last one has the most cuts: they are varied on it.
    config.families = ("residual", "inception", "parallel")
    config.layers = (50, 100, 200, 500, 1000)
    # Numbers of candidates, taken evenly out of 1 to 8 bits.
    config.bits = (2, 4, 8)
    config.cuts = (16, 128, 1024)
    # What an axis keeps while another one is varied.
    config.fixed = ml_collections.ConfigDict()
    config.fixed.layers = 200
    config.fixed.bits = 8
    # Calls after the first one; the median of them is reported.
    config.repeats = 1
    return config
