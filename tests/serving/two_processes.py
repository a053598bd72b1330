"""Runs an experiment on the split of conftest.py, in place of one that is read from disk.

python tests/serving/two_processes.py MODULE FLAGS...: `--split edge` gives the split without a
cloud half, any other name the one with two.
"""

import dataclasses
import pathlib
import runpy
import sys
import types

HERE = pathlib.Path(__file__).parent


def load(directory):
    import conftest

    split = conftest.FakeSplit(conftest.MANIFEST)
    if directory == "edge":
        edge_layers, cloud_outputs = split.edge_layers, split.cloud_outputs
        split.manifest = dataclasses.replace(split.manifest, crossing=())
        split.edge_layers = lambda x: cloud_outputs(edge_layers(x))
    return split


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE)]
    artefact = types.ModuleType("autosplit.execution.artefact")
    artefact.load = load
    sys.modules["autosplit.execution.artefact"] = artefact
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
