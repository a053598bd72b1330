"""The rows of the table of methods, as options of `autosplit.Recipe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from autosplit import Recipe
from autosplit.errors import InputError

FLOAT = "float"
"""Name of the row that is not quantized."""

NAIVE = "min-max, per tensor"

METHODS: Mapping[str, Mapping[str, Any]] = {
    NAIVE: {
        "weight_clipping": "minmax", "activation_clipping": "minmax", "granularity": "tensor",
    },
    "min-max": {"weight_clipping": "minmax", "activation_clipping": "minmax"},
    "percentile": {"weight_clipping": "minmax", "activation_clipping": "percentile"},
    "kl": {"weight_clipping": "minmax", "activation_clipping": "kl"},
    "mse": {"weight_clipping": "mse", "activation_clipping": "mse"},
    "aciq": {"weight_clipping": "minmax", "activation_clipping": "aciq"},
    "aciq, bits by channel, weights corrected": {
        "weight_clipping": "minmax", "activation_clipping": "aciq", "channel_bits": True,
        "correct": "weights",
    },
    "per tensor, equalized, bias corrected": {
        "weight_clipping": "minmax", "activation_clipping": "mse", "granularity": "tensor",
        "equalize": True, "correct": "bias",
    },
    "bias corrected": {
        "weight_clipping": "minmax", "activation_clipping": "mse", "correct": "bias",
    },
    "lapq": {"joint": "lapq", "correct": "weights"},
    "adaround": {"rounding": "adaround"},
    "brecq": {"rounding": "brecq"},
}  # fmt: skip
"""What each method sets beside the bits; weights have a clip by channel unless it says so.

Percentile, KL and ACIQ choose the clips of activations, as where they were published, and the
corrections repair weights that were not clipped; the weights keep their whole range there.
LAPQ was published with the correction of weights, which its loss sees.
"""

LEARNED = frozenset({"lapq", "adaround", "brecq"})
"""Methods that search for minutes; at 8 bits of weights they have next to nothing to win."""

ORDER = (NAIVE, "aciq", "lapq", "adaround"), (NAIVE, "aciq", "lapq", "brecq")
"""Each better than the one before, as published at 4 bits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One cell group of the table.

    Attributes:
      method: key of `METHODS`, or `FLOAT`.
      w_bits, a_bits: of the column; 0 for `FLOAT`.
    """

    method: str
    w_bits: int
    a_bits: int

    @property
    def column(self) -> str:
        """``"W4A8"``; empty for float."""
        return f"W{self.w_bits}A{self.a_bits}" if self.w_bits else ""

    @property
    def file_name(self) -> str:
        """Name of the file of its result, without spaces and commas."""
        words = self.method.replace(",", "").replace(" ", "_")
        return f"{self.column}-{words}.json" if self.column else f"{words}.json"


def table_cases(methods: Sequence[str], columns: Sequence[Sequence[int]]) -> list[Case]:
    """Lists the cases, float first; those of `LEARNED` below 8 bits of weights alone.

    Args:
      methods: keys of `METHODS`.
      columns: pairs of bits of weights and activations.

    Raises:
      InputError: a method is not known, or there is no method or column.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(
            f"config.table.methods names {unknown or 'nothing'}; expected some of "
            f"{', '.join(map(repr, METHODS))}."
        )
    if not columns or any(len(pair) != 2 for pair in columns):
        raise InputError(
            f"config.table.columns is {columns}; expected pairs of bits such as (4, 8)."
        )
    float_case = Case(method=FLOAT, w_bits=0, a_bits=0)
    return [float_case] + [
        Case(method=name, w_bits=int(w), a_bits=int(a))
        for w, a in columns
        for name in methods
        if w < 8 or name not in LEARNED
    ]


def recipe_of(case: Case, settings: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a case.

    Args:
      case: not the one of float.
      settings: fields of `Recipe` that all methods share.
    """
    try:
        return Recipe(
            **{**settings, **METHODS[case.method], "w_bits": case.w_bits, "a_bits": case.a_bits}
        )
    except TypeError as error:
        raise InputError(
            f"config.recipe has a field that no recipe has ({error}); expected those of "
            "autosplit.Recipe."
        ) from error
