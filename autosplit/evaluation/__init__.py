"""Accuracy and error of a network's outputs, in NumPy."""

from autosplit.evaluation.classification import agreement, output_error, top_k_accuracy

__all__ = ["agreement", "output_error", "top_k_accuracy"]
