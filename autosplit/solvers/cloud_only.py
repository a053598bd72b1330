"""Cloud-only: nothing runs on the edge, the inputs are sent raw or encoded."""

from __future__ import annotations

import numpy as np

from autosplit.errors import InputError
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.solvers.charging import price, runs_some
from autosplit.workload import FLOAT_BITS


def price_in_cloud(profile: Profile, encoding: str, label: str | None = None) -> SplitPlan:
    """Prices cloud-only under an input encoding.

    With ``"raw"`` (8 bits an element) and a cloud of 16 bits this is CLOUD16 of Auto-Split.

    Args:
      profile: of the graph.
      encoding: name of an `InputEncoding`.
      label: of the plan, by default ``"cloud-only (<encoding>)"``.

    Raises:
      InputError: the profile has no such encoding or no cloud-only cut.
    """
    empty = np.flatnonzero(~runs_some(profile))
    if not empty.size:
        raise InputError("The profile lists no cloud-only cut; expected one without a layer on "
                         "the edge. Profile the graph again.")
    return price(profile, cut=int(empty[0]), w_bits=np.full(len(profile.macs), FLOAT_BITS),
                 a_bits=np.full(len(profile.producer), FLOAT_BITS), encoding=encoding,
                 label=f"cloud-only ({encoding})" if label is None else label)
