r"""ResNet-18: every method of quantization, at 8 and 4 bits, in one table.

    python -m experiments.quantize --config=configs/quantize/resnet18.py \
        --mode=table --workdir=build/quantize/resnet18

On 500 photographs in a folder, of which 64 calibrate:

    python -m experiments.quantize --config=configs/quantize/resnet18.py \
        --config.images.source=FOLDER --config.images.limit=500 --config.images.calibration=64 \
        --mode=table --workdir=build/quantize/resnet18

Expected: W8A8 within half a point of float with clips by channel; at W4A4 min-max for the whole
tensor answers nothing, ACIQ's corrections and the correction of biases bring most back.

Duration: 30 min on 2 cores with the 20 photographs, 90 min with 500; an interrupted table goes on.
"""

import ml_collections

from configs.quantize._base import make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    return make_config("resnet18", "ResNet-18", weights="resnet18")
