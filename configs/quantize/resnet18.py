r"""ResNet-18: every method of quantization, at 8 and 4 bits, in one table.

    python -m experiments.quantize --config=configs/quantize/resnet18.py \
        --mode=table --workdir=build/quantize/resnet18

On 500 photographs in a folder, of which 64 calibrate:

    python -m experiments.quantize --config=configs/quantize/resnet18.py \
        --config.images.source=FOLDER --config.images.limit=500 --config.images.calibration=64 \
        --mode=table --workdir=build/quantize/resnet18

Expected, top-1 on 436 photographs of ImageNet (float 78.9): W8A8 79.1 by squared error; W4A4 0.5
with min-max for the whole tensor, 55.3 with ACIQ, 69.7 with corrected biases, 75.0 with AdaRound.

Duration: 20 min on 2 cores with 500 photographs but for LAPQ and BRECQ, which take some 5 min for
each column; an interrupted table goes on.
"""

import ml_collections

from configs.quantize._base import make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    return make_config("resnet18", "ResNet-18", weights="resnet18")
