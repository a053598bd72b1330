"""A cloud server under load, its overhead, and a split on a shaped link beside its prediction.

    python -m experiments.serve_load --config=configs/serve_load.py --workdir=build/serve_load

Expected: with batches of up to 8 and 64 clients 540 requests a second of MobileNet-v2's cloud half,
309 with batches of 1, so a gain of 1.75; of the small split 2,804 and 1,429. Serving adds 0.8 ms
(median) to the small split and 2.2 ms to MobileNet-v2; the aim is 2 ms. On the shaped link 57.9 ms,
14 % more than the plan predicts from layer times, 10 % more than the halves alone do; the aim is
10 %.

Duration: 4 min on 2 cores. Leave the machine alone meanwhile: server, clients and link share
its cores as it is.

Two splits are served: ``small``, whose halves take no time to speak of, so that the server
itself shows; and MobileNet-v2 as planned for the demonstration's link with the layer times of
this machine, measured in the same run (or before, with `experiments.measure_device`).
"""

import ml_collections

from configs import demo


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the measurement."""
    config = demo.get_config()
    config.title = "A cloud server under load, and a split on its link"
    # A device file of this machine and this network; empty to measure one.
    config.device = ""
    config.bits = (4, 6, 8)
    config.images.limit = 8
    config.images.calibration = 2

    config.load = ml_collections.ConfigDict()
    config.load.clients = (1, 8, 64)
    # Most requests that are computed together; 1 is the batching gain's base.
    config.load.batches = (1, 8)
    # Servers with and without batches take turns, this often; the rate is the median.
    config.load.rounds = 3
    config.load.warmup_s = 0.5
    config.load.seconds = 3.0

    # Requests one after the other, whose medians are compared.
    config.requests = 60
    return config
