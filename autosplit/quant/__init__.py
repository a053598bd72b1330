"""Quantization: affine grids, clipping, packing."""
