r"""MobileNet-v2: every method of quantization, at 8 and 4 bits, in one table.

    python -m experiments.quantize --config=configs/quantize/mobilenet_v2.py \
        --mode=table --workdir=build/quantize/mobilenet_v2

On 500 photographs in a folder, of which 64 calibrate:

    python -m experiments.quantize --config=configs/quantize/mobilenet_v2.py \
        --config.images.source=FOLDER --config.images.limit=500 --config.images.calibration=64 \
        --mode=table --workdir=build/quantize/mobilenet_v2

Expected, top-1 on 436 photographs of ImageNet (float 81.7): W8A8 80.7 by squared error; W4A8 14.4
with ACIQ, 67.2 with corrected biases, 64.0 with LAPQ, 78.2 with AdaRound, 76.1 with BRECQ.

Duration: 60 min on 2 cores that other programs used as well, with 500 photographs; an interrupted
table goes on.
"""

import ml_collections

from configs.quantize._base import make_config


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the experiment."""
    return make_config("mobilenet_v2", "MobileNet-v2", weights="mobilenet_v2")
