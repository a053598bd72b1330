"""What is done to a network before it runs in few bits, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from autosplit.errors import InputError
from autosplit.graph import LayerGraph
from autosplit.profiling.assignment import check_plan
from autosplit.profiling.plan import SplitPlan
from autosplit.quant.clipping import clip_rule
from autosplit.workload import FLOAT_BITS

Bits = int | tuple[int, ...]

CHOICES = {
    "granularity": ("channel", "tensor"),
    "correct": ("none", "weights", "bias"),
    "rounding": ("nearest", "adaround", "brecq"),
    "joint": ("none", "lapq"),
    "lapq_init": ("lp", "none", "average", "laplace", "gauss", "l1", "l2", "l3"),
}
"""The valid values of the fields that name a method."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Bits, clips and the methods of post-training quantization, in the order of their use.

    Attributes:
      w_bits: of all weights, or one entry per layer (those without weight are ignored);
        1 to 8, or `FLOAT_BITS` for none.
      a_bits: of all tensors, or one entry per tensor; likewise.
      first_last_bits: of the weights of the first and the last layer that have one, of what
        these two read and of the outputs, where that is more than the bits they would have;
        None for no exception.
      fused_sums: a tensor that only an addition reads stays in float, as where a kernel adds
        before it requantizes (so do the published tables).
      on_edge: a flag per layer; None for all. Graph inputs that the cloud reads are quantized.
      weight_clipping, activation_clipping: names of `autosplit.quant.clipping.METHODS`.
      granularity: a weight has a clip for each ``"channel"`` of its output, or one for the
        whole ``"tensor"``.
      symmetric_weights: ``[-clip, clip]`` for weights; otherwise both ends are free.
      symmetric_activations: the grid of a tensor with negative values is centred on zero.
      equalize: equalize channel ranges across layers (`autosplit.ptq.equalization`).
      channel_bits: allocate the bits of each weight to its channels, at the same sum of
        levels (`autosplit.quant.channel_bits`); needs a clip for each channel.
      joint: ``"lapq"`` searches all clips together on the calibration loss, which sees
        weights corrected where ``correct`` is ``"weights"``.
      lapq_init: where that search starts: the ``"lp"`` grid with a parabola as published, or
        ``"none"`` (the whole range), ``"average"``, ``"laplace"``, ``"gauss"``, ``"l1"``,
        ``"l2"`` or ``"l3"``.
      lapq_images: calibration calls of its loss, evenly taken; 0 for all.
      lapq_evaluations: most evaluations of the loss in the joint search.
      lapq_iterations: most iterations of Powell's method.
      rounding: ``"nearest"``, or learned: ``"adaround"`` by layer, ``"brecq"`` by block.
      rounding_steps, rounding_batch: of its optimizer: steps for each layer or block,
        calibration calls in a step.
      correct: ``"weights"`` gives each quantized channel the mean and deviation that it has in
        float; ``"bias"`` gives each channel's output the mean that it has in float.

    >>> Recipe(w_bits=4, a_bits=8, weight_clipping="mse").w_bits
    4

    Raises:
      InputError: a field is out of range or unknown, or two contradict each other.
    """

    w_bits: Bits = 8
    a_bits: Bits = 8
    first_last_bits: int | None = 8
    fused_sums: bool = False
    on_edge: tuple[bool, ...] | None = None
    weight_clipping: str = "mse"
    activation_clipping: str = "mse"
    granularity: str = "channel"
    symmetric_weights: bool = True
    symmetric_activations: bool = False
    equalize: bool = False
    channel_bits: bool = False
    joint: str = "none"
    lapq_init: str = "lp"
    lapq_images: int = 32
    lapq_evaluations: int = 300
    lapq_iterations: int = 2
    rounding: str = "nearest"
    rounding_steps: int = 1000
    rounding_batch: int = 16
    correct: str = "none"

    def __post_init__(self) -> None:
        for name in ("w_bits", "a_bits"):
            object.__setattr__(self, name, _checked_bits(name, getattr(self, name)))
        if self.first_last_bits is not None:
            _checked_bits("first_last_bits", self.first_last_bits)
        for name, valid in CHOICES.items():
            _check_choice(name, getattr(self, name), valid)
        for name in ("weight_clipping", "activation_clipping"):
            clip_rule(getattr(self, name))
        for name in ("lapq_evaluations", "lapq_iterations", "rounding_steps", "rounding_batch"):
            _check_count(name, getattr(self, name), least=1)
        _check_count("lapq_images", self.lapq_images, least=0)
        _check_methods(self)

    @classmethod
    def of_plan(cls, graph: LayerGraph, plan: SplitPlan, **methods: Any) -> Recipe:
        """Makes a recipe with the bits of a plan and its edge.

        Args:
          graph: that the plan was made for.
          plan: its bits hold everywhere, in the first and the last layer too.
          **methods: the other fields.

        Raises:
          PlanMismatchError: the plan was made for another graph.
          InputError: a field is given that the plan decides.
        """
        check_plan(graph, plan)
        decided: dict[str, Any] = {
            "w_bits": plan.w_bits, "a_bits": plan.a_bits, "on_edge": tuple(plan.on_edge),
            "first_last_bits": None, "fused_sums": False,
        }  # fmt: skip
        clash = sorted(set(decided) & set(methods))
        if clash:
            raise InputError(
                f"{', '.join(clash)} cannot be given beside a plan, which decides them. Leave "
                "them out, or make a Recipe without the plan."
            )
        return cls(**decided, **methods)


def _checked_bits(name: str, bits: Any) -> Bits:
    entries = np.asarray(bits)
    whole = entries.ndim <= 1 and np.issubdtype(entries.dtype, np.integer)
    if not whole or not ((entries >= 1) & ((entries <= 8) | (entries == FLOAT_BITS))).all():
        raise InputError(
            f"{name} is {_short(bits)}; expected 1 to 8, or {FLOAT_BITS} for no quantization, as "
            "one whole number or one for each layer (w_bits) or tensor (a_bits)."
        )
    return int(entries) if entries.ndim == 0 else tuple(int(b) for b in entries)


def _check_choice(name: str, value: Any, valid: Sequence[str]) -> None:
    if value not in valid:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(map(repr, valid))}.")


def _check_count(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of {least} or more.")


def _check_methods(recipe: Recipe) -> None:
    """Raises `InputError` where two methods exclude each other."""
    learned = recipe.rounding != "nearest"
    clashes = (
        (recipe.channel_bits and recipe.granularity != "channel",
         "channel_bits needs granularity 'channel': one clip for all channels has one step."),
        (recipe.channel_bits and not recipe.symmetric_weights,
         "channel_bits is for symmetric weights; set symmetric_weights=True."),
        (recipe.correct == "weights" and learned,
         f"correct 'weights' would undo the learned rounding {recipe.rounding!r}; use 'bias'."),
    )  # fmt: skip
    for found, message in clashes:
        if found:
            raise InputError(message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
