"""ReportData: all that the report page shows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from autosplit.errors import InputError, PlanMismatchError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.constraints import Constraints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photograph:
    """One input picture and what the network said about it.

    Attributes:
      name: of the picture, for its description.
      image: u8[height, width, 3], any size; the page holds a thumbnail.
      label: the true class; None where it is not known.
      float_prediction: class that the network finds before any quantization.
      split_prediction: class that the two halves find together.
      float_confidence, split_confidence: probability of that class, 0 to 1; None
        where it is not known.

    Class names are compared as text, so two classes must not share one.
    """

    name: str
    image: np.ndarray
    label: str | None
    float_prediction: str
    split_prediction: str
    float_confidence: float | None = None
    split_confidence: float | None = None

    def __post_init__(self) -> None:
        image = self.image
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(
                f"Photograph {self.name!r} has an image {image.dtype}{list(image.shape)}; "
                f"expected uint8[height, width, 3], pixels from 0 to 255."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How often one way to run the network was right, measured.

    Attributes:
      label: ``"float"`` for the network before quantization, else a plan's label.
      images: labelled images that were tried, at least 1.
      correct: images whose most probable class was the true one.
      correct_top5: images whose true class was among the five most probable; None
        where it was not counted.
      same_as_float: images with the same most probable class as in float; None likewise.
    """

    label: str
    images: int
    correct: int
    correct_top5: int | None = None
    same_as_float: int | None = None

    def __post_init__(self) -> None:
        for name in ("correct", "correct_top5", "same_as_float"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= self.images:
                raise InputError(f"Accuracy.{name} is {count}; expected 0 to images={self.images}.")
        if self.images < 1:
            raise InputError("Accuracy.images is 0; leave the accuracy out where none was tried.")

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Returns Wilson's interval for the share of correct answers.

        (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)

        >>> [round(x, 2) for x in Accuracy(label="float", images=20, correct=18).interval()]
        [0.7, 0.97]

        Args:
          z: normal quantile; 1.96 gives 95 %.

        Returns:
          Low and high end, 0 to 1.

        Reference:
          E. B. Wilson, "Probable inference, the law of succession, and statistical
          inference", JASA 22 (1927).
        """
        n, share = self.images, self.correct / self.images
        middle = share + z * z / (2 * n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that the report page shows.

    Attributes:
      title: of the page.
      network_name: the network in words, such as ``"MobileNet-v2"``.
      profile: what the plans were solved from.
      plans: Auto-Split's plans and all baselines, in any order; judged again if their
        error was measured after solving.
      chosen: the plan that was split and run; one of ``plans``.
      constraints: what the plans had to keep.
      record: from `run_record`.
      measured: seconds by stage (``edge_s``, ..., ``total_s``) of the run in two
        processes, as `StageTimes` names them; None where it was not run.
      measured_note: where and how they were measured, in words.
      accuracies: the float network's and any plan's, by their ``label``.
      photographs: pictures to show; may be empty.
      photographs_note: where the pictures are from, and their licence.
      graph_svg: from ``graph.to_svg``; empty for none.
      notes: further sentences for the reader.
    """

    title: str
    network_name: str
    profile: Profile
    plans: tuple[SplitPlan, ...]
    chosen: SplitPlan
    constraints: Constraints
    record: Mapping[str, Any]
    measured: Mapping[str, float] | None = None
    measured_note: str = ""
    accuracies: tuple[Accuracy, ...] = ()
    photographs: tuple[Photograph, ...] = ()
    photographs_note: str = ""
    graph_svg: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.chosen not in self.plans:
            raise InputError(
                f"The chosen plan {self.chosen.label!r} ({self.chosen.cut_name}) is none of the "
                f"{len(self.plans)} plans; put it among them, measured or not in both places."
            )
        for plan in self.plans:
            if plan.fingerprint != self.profile.fingerprint:
                raise PlanMismatchError(
                    f"Plan {plan.label!r} is for graph {plan.fingerprint[:12]}, the profile for "
                    f"{self.profile.fingerprint[:12]}; report plans that were solved from it."
                )

    def accuracy(self, label: str) -> Accuracy | None:
        """Returns the accuracy with a label, None where it was not measured."""
        return next((one for one in self.accuracies if one.label == label), None)
