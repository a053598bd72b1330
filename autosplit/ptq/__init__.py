"""Post-training quantization: a recipe in, weights and an assignment out."""

from autosplit.ptq.pipeline import quantize
from autosplit.ptq.recipe import Recipe

__all__ = ["Recipe", "quantize"]
