"""Accuracy and error of a network's outputs, in NumPy; average precision of boxes."""

from autosplit.evaluation.classification import agreement, output_error, top_k_accuracy
from autosplit.evaluation.coco import DetectionScores, ImageDetections, evaluate_detections

__all__ = [
    "DetectionScores",
    "ImageDetections",
    "agreement",
    "evaluate_detections",
    "output_error",
    "top_k_accuracy",
]
