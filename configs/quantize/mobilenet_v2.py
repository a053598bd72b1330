r"""MobileNet-v2: every method of quantization, at 8 and 4 bits, in one table.

    python -m experiments.quantize --config=configs/quantize/mobilenet_v2.py \
        --mode=table --workdir=build/quantize/mobilenet_v2

On 500 photographs in a folder, of which 64 calibrate:

    python -m experiments.quantize --config=configs/quantize/mobilenet_v2.py \
        --config.images.source=FOLDER --config.images.limit=500 --config.images.calibration=64 \
        --mode=table --workdir=build/quantize/mobilenet_v2

Expected: W8A8 within half a point of float with clips by channel; at W4A8 and W4A4 the methods
that do not learn the rounding lose most of the accuracy, as published (min-max 28 %, AdaRound
72 % at W4A8 on the whole validation set).

Duration: 20 min on 2 cores with the 20 photographs, 60 min with 500; an interrupted table goes on.
"""

import ml_collections

from configs.quantize._base import make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    return make_config("mobilenet_v2", "MobileNet-v2", weights="mobilenet_v2")
