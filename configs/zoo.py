r"""Networks with published weights: right answers on photographs, beside their own frameworks.

    python -m experiments.zoo --config=configs/zoo.py --workdir=build/zoo

On folders of your own:

    python -m experiments.zoo --config=configs/zoo.py --workdir=build/zoo \
        --config.classified.source=FOLDER --config.classified.limit=500 \
        --config.detected.source=FOLDER --config.detected.annotations=INSTANCES.json \
        --config.detected.limit=128

Expected, on 500 photographs of ImageNet's classes and 128 of COCO: ResNet-18 79.8 top-1,
MobileNet-v2 82.8, YOLOv3-tiny AP 21.4, each equal to its own framework's.

Duration: 5 min for these on 2 cores that other programs used as well; 1 min as it stands.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the comparison."""
    config = ml_collections.ConfigDict()
    config.title = "Networks with published weights"
    config.seed = 0
    # Names of models.
    config.classifiers = (
        "resnet18", "resnet50_v1", "mobilenet_v1", "mobilenet_v2", "efficientnet_lite0",
    )  # fmt: skip
    config.detectors = ("yolov3_tiny",)
    # Packages, or files of your own.
    names = (*config.classifiers, *config.detectors)
    config.weights = ml_collections.ConfigDict({name: name for name in names})
    config.batch = 8

    # Names of packages, or folders.
    config.classified = ml_collections.ConfigDict()
    config.classified.source = "imagenet_photographs"
    config.classified.limit = 20
    config.detected = ml_collections.ConfigDict()
    config.detected.source = "detector_photographs"
    # A file of COCO-format boxes, where ``source`` is the folder of its images.
    config.detected.annotations = ""
    config.detected.limit = 2
    config.detected.resize_pixels = 416
    config.detected.crop_pixels = 416

    # Of the evaluation as COCO's; pictures show what is found with at least ``shown_score``.
    config.detector = ml_collections.ConfigDict()
    config.detector.score_threshold = 0.001
    config.detector.iou_threshold = 0.6
    config.detector.max_detections = 100
    config.detector.pre_nms = 1000
    config.detector.multi_label = True
    config.pictures = 4
    config.shown_score = 0.3
    return config
