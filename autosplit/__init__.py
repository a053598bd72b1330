"""autosplit: splits any JAX function between an edge device and a cloud, with mixed bit-widths.

```python
graph   = autosplit.trace(apply_fn, params, images)
profile = autosplit.profile(graph, params, calibration, edge=EYERISS, cloud=TPU, network=network)
plans   = autosplit.solve(profile, Constraints(memory_bytes=4 * MIB, output_error=0.01))
split   = autosplit.split(graph, params, plans.best_split)
outputs = split.cloud(split.edge(images))
```
"""

from autosplit.execution.artefact import load
from autosplit.execution.halves import Split
from autosplit.execution.partition import split
from autosplit.graph import Cut, LayerGraph, trace
from autosplit.hardware import Network
from autosplit.profiling.measuring import profile
from autosplit.profiling.plan import SplitPlan
from autosplit.profiling.table import Profile
from autosplit.ptq import Recipe, quantize
from autosplit.solvers import Constraints, Objective, Plans, solve
from autosplit.tuning import measure, solve_measured

KIB = 1024
MIB = 1024**2

__all__ = [
    "KIB",
    "MIB",
    "Constraints",
    "Cut",
    "LayerGraph",
    "Network",
    "Objective",
    "Plans",
    "Profile",
    "Recipe",
    "Split",
    "SplitPlan",
    "load",
    "measure",
    "profile",
    "quantize",
    "solve",
    "solve_measured",
    "split",
    "trace",
]
