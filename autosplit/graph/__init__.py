"""Traces a pure JAX function into layers and tensors, and lists where it can be cut."""

from autosplit.graph.cuts import Cut, enumerate_cuts
from autosplit.graph.layers import Layer, LayerGraph, Tensor, WeightSpec
from autosplit.graph.tracing import trace

__all__ = ["Cut", "Layer", "LayerGraph", "Tensor", "WeightSpec", "enumerate_cuts", "trace"]
