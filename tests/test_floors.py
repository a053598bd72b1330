"""Imports point downward: BUILD says what each package may import, the code does no more.

`violations` reads the BUILD file (its syntax is Python's) and every import statement of the
packages, also those inside functions and under ``if TYPE_CHECKING``. It is tried on a small good
tree and on that tree with one thing wrong at a time, so that it is known to be able to fail.
"""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOTS = ("autosplit", "configs", "experiments")

# An optional or heavy library, and the only package that may import it.
HOMES = {
    "array_record": "data",
    "faster_coco_eval": "evaluation",
    "google.protobuf": "serving",
    "grain": "data",
    "grpc": "serving",
    "grpc_health": "serving",
    "grpc_reflection": "serving",
    "matplotlib": "reporting",
    "onnx": "converters",
    "prometheus_client": "serving",
    "pycocotools": "evaluation",
    "safetensors": "converters",
    "tensorflow_datasets": "data",
    "tflite": "converters",
    "torch": "converters",
    "torchvision": "converters",
    "zstandard": "serving",
}
SOLVERS_SEE = {"profiling", "workload"}  # the profile, NumPy arrays; the errors that they raise
JAX_LIBRARIES = ("flax", "jax", "jaxlib", "optax", "orbax")
JAX_INTERNALS = Path("autosplit/graph/_jax_compat.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One py_library or py_binary of BUILD."""

    name: str
    place: str
    files: frozenset[Path]
    deps: frozenset[str]


# ---- Reading BUILD


def read_targets(root: Path) -> dict[str, Target]:
    """Return the targets of the BUILD file by name."""
    calls = [statement.value for statement in ast.parse((root / "BUILD").read_text()).body]
    targets = [read_target(root, call) for call in calls]
    return {target.name: target for target in targets}


def read_target(root: Path, call: ast.Call) -> Target:
    """Return the target that one call in a BUILD file declares."""
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    (place,) = ast.literal_eval(arguments["tags"])
    return Target(
        name=ast.literal_eval(arguments["name"]),
        place=place,
        files=frozenset(read_sources(root, arguments["srcs"])),
        deps=frozenset(dep.removeprefix(":") for dep in ast.literal_eval(arguments["deps"])),
    )


def read_sources(root: Path, value: ast.expr) -> Iterator[Path]:
    """Yield the files, relative to the root, that a list or a glob([...]) names."""
    is_glob = isinstance(value, ast.Call)
    for pattern in ast.literal_eval(value.args[0] if is_glob else value):
        matches = list(root.glob(pattern)) if is_glob else [root / pattern]
        yield from (path.relative_to(root) for path in matches if path.is_file())


# ---- Reading imports


def imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield every imported module as a dotted name; ``from a import b`` gives ``a.b``."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            source = absolute_source(statement, package)
            yield from (f"{source}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.Call) and dotted(statement.func) in (
            "importlib.import_module",
            "import_module",
            "__import__",
        ):
            yield from (arg.value for arg in statement.args[:1] if isinstance(arg, ast.Constant))


def absolute_source(statement: ast.ImportFrom, package: str) -> str:
    """Return the module that a ``from`` statement imports from, relative ones resolved."""
    if not statement.level:
        return statement.module or ""
    parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
    return ".".join([*parents, *([statement.module] if statement.module else [])])


def dotted(expression: ast.expr) -> str:
    """Return ``a.b.c`` of an attribute chain, or an empty string."""
    if isinstance(expression, ast.Name):
        return expression.id
    if isinstance(expression, ast.Attribute) and (front := dotted(expression.value)):
        return f"{front}.{expression.attr}"
    return ""


def module_file(root: Path, name: str) -> Path | None:
    """Return the file that defines a dotted name: its module, or the module that holds it."""
    path = Path(*name.split("."))
    for module in (path, path.parent):
        for candidate in (module / "__init__.py", module.parent / f"{module.name}.py"):
            if (root / candidate).is_file():
                return candidate
    return None


def is_within(name: str, library: str) -> bool:
    """Return whether a dotted name is a library or a part of it."""
    return name == library or name.startswith(f"{library}.")


def is_jax_internal(name: str) -> bool:
    """Return whether a dotted name is a private or unstable part of JAX."""
    parts = name.split(".")
    private = any(part.startswith("_") and not part.startswith("__") for part in parts)
    return (parts[0] in ("jax", "jaxlib") and private) or is_within(name, "jax.extend")


# ---- The rules


def may_import(importer: str, imported: str) -> bool:
    """Return whether a target at one place may import a target at another."""
    floors = [f"floor-{number}" for number in range(5)]
    allowed = {floor: set(floors[:number]) for number, floor in enumerate(floors)}
    allowed["floor-4"] |= {"side"}
    allowed["side"] = {*floors, "side"}
    allowed["facade"] = {*floors}
    allowed["entry"] = {*floors, "side", "facade", "entry"}
    return imported in allowed[importer]


def violations(root: Path) -> list[str]:
    """Return one sentence for everything in a tree that breaks the rules."""
    targets = read_targets(root)
    owners = {path: target.name for target in targets.values() for path in target.files}
    found = [f"{name}: its srcs match no file" for name, t in targets.items() if not t.files]
    used: dict[str, set[str]] = {name: set() for name in targets}
    for path in sorted(p.relative_to(root) for top in ROOTS for p in root.glob(f"{top}/**/*.py")):
        if path not in owners:
            found.append(f"{path}: belongs to no target of BUILD")
            continue
        tree = ast.parse((root / path).read_text())
        names = set(imported_names(tree, ".".join(path.parent.parts)))
        found += external_violations(path, owners[path], tree, names)
        for name in sorted(n for n in names if n.split(".")[0] in ROOTS):
            source = module_file(root, name)
            if source in owners:
                used[owners[path]].add(owners[source])
            else:
                found.append(f"{path}: imports {name}, which is no module of a target")
    for name, target in targets.items():
        found += target_violations(target, used[name] - {name}, targets)
    return found + circles(targets)


def external_violations(path: Path, owner: str, tree: ast.Module, names: set[str]) -> list[str]:
    """Return what a file imports of other libraries and should not."""
    found = [
        f"{path}: imports {name}; only {home} may import {library}"
        for library, home in HOMES.items()
        for name in sorted(names)
        if is_within(name, library) and owner != home
    ]
    if owner == "solvers":
        heads = {name.split(".")[0] for name in names} & set(JAX_LIBRARIES)
        found += [f"{path}: imports {head}; solvers see NumPy only" for head in sorted(heads)]
    if path != JAX_INTERNALS:
        chains = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        internal = sorted(name for name in names | chains if is_jax_internal(name))
        found += [f"{path}: uses {name}; only {JAX_INTERNALS} may" for name in internal]
    return found


def target_violations(target: Target, used: set[str], targets: dict[str, Target]) -> list[str]:
    """Return where declared and real dependencies differ, or do not point downward."""
    unknown = target.deps - targets.keys()
    found = [f"{target.name}: dep {dep} is no target" for dep in sorted(unknown)]
    found += [f"{target.name}: imports {dep}, not in deps" for dep in sorted(used - target.deps)]
    if target.name == "solvers":
        beyond = sorted((used | target.deps) - SOLVERS_SEE)
        found += [f"solvers: imports {dep}; solvers see the profile only" for dep in beyond]
    unneeded = target.deps - used - unknown
    found += [f"{target.name}: dep {dep} is never imported" for dep in sorted(unneeded)]
    return found + [
        f"{target.name} ({target.place}): may not import {dep} ({targets[dep].place})"
        for dep in sorted((used | target.deps) - unknown)
        if not may_import(target.place, targets[dep].place)
    ]


def circles(targets: dict[str, Target]) -> list[str]:
    """Return one sentence if targets depend on each other in a circle."""
    try:
        graphlib.TopologicalSorter({t.name: t.deps for t in targets.values()}).prepare()
    except graphlib.CycleError as error:
        return [f"BUILD: {' -> '.join(error.args[1])} is a circle"]
    return []


# ---- The repository


def test_code_imports_what_build_declares_and_only_downward() -> None:
    found = violations(REPOSITORY)
    assert not found, "\n".join(found)


def test_floors_up_to_three_load_no_optional_library() -> None:
    low = {"floor-0", "floor-1", "floor-2", "floor-3", "facade"}
    files = [f for t in read_targets(REPOSITORY).values() if t.place in low for f in t.files]
    modules = sorted(".".join(f.with_suffix("").parts).removesuffix(".__init__") for f in files)
    optional = [name for name in HOMES if name != "zstandard"]  # JAX loads it where it is installed
    program = (
        "import importlib, json, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {optional} if name in sys.modules]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


# ---- The checker, on trees of its own

GOOD_DEPS = {
    "workload": [],
    "quant": ["workload"],
    "graph": [],
    "profiling": ["quant"],
    "solvers": ["profiling"],
    "models": [],
    "autosplit": ["profiling"],
    "experiments": ["autosplit", "models"],
}
PLACES = {
    "workload": "floor-0",
    "quant": "floor-1",
    "graph": "floor-1",
    "profiling": "floor-2",
    "solvers": "floor-3",
    "models": "side",
    "autosplit": "facade",
    "experiments": "entry",
}
SOURCES = {
    "workload": "['autosplit/workload.py']",
    "autosplit": "['autosplit/__init__.py']",
    "experiments": "glob(['experiments/**/*.py'])",
}


def build_text(**changed: list[str]) -> str:
    """Return the good tree's BUILD with other deps for some targets."""
    lines = []
    for name, deps in (GOOD_DEPS | changed).items():
        sources = SOURCES.get(name, f"glob(['autosplit/{name}/**/*.py'])")
        labels = [f":{dep}" for dep in deps]
        lines.append(
            f"py_library(name={name!r}, tags={[PLACES[name]]}, srcs={sources}, deps={labels})"
        )
    return "\n".join(lines)


GOOD_TREE = {
    "BUILD": build_text(),
    "autosplit/__init__.py": "from autosplit.profiling.table import Profile",
    "autosplit/workload.py": "import numpy as np",
    "autosplit/quant/__init__.py": "",
    "autosplit/quant/affine.py": "from autosplit import workload",
    "autosplit/quant/packing.py": "from .affine import scale",
    "autosplit/graph/_jax_compat.py": "from jax.extend import core\nfrom jax._src import ad_util",
    "autosplit/profiling/table.py": "def f():\n    from autosplit.quant.affine import scale",
    "autosplit/solvers/exact.py": "from autosplit.profiling.table import Profile",
    "autosplit/models/resnet.py": "import jax\nprint(jax.__version__)",
    "experiments/main.py": "import autosplit\nimport autosplit.models.resnet",
}
TYPE_CHECKING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Write files under a root and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_checker_accepts_a_good_tree(tmp_path: Path) -> None:
    assert violations(write_tree(tmp_path, GOOD_TREE)) == []


WORKLOAD_UNDECLARED = "graph: imports workload, not in deps"


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("autosplit/graph/a.py", "import autosplit.workload", WORKLOAD_UNDECLARED),
        ("autosplit/graph/a.py", "from .. import workload", WORKLOAD_UNDECLARED),
        ("autosplit/graph/a.py", "from ..workload import Workload", WORKLOAD_UNDECLARED),
        ("autosplit/graph/a.py", TYPE_CHECKING + "import autosplit.workload", WORKLOAD_UNDECLARED),
        ("autosplit/graph/a.py", "import_module('autosplit.workload')", WORKLOAD_UNDECLARED),
        ("autosplit/graph/a.py", "import autosplit.quant", "may not import quant (floor-1)"),
        ("autosplit/workload.py", "import autosplit.quant", "may not import quant (floor-1)"),
        ("autosplit/solvers/a.py", "import autosplit.quant", "solvers see the profile only"),
        ("autosplit/profiling/a.py", "import autosplit.models.resnet", "not import models (side)"),
        ("autosplit/models/a.py", "import autosplit", "may not import autosplit (facade)"),
        ("autosplit/models/a.py", "import experiments.main", "may not import experiments (entry)"),
        ("BUILD", build_text(graph=["workload"]), "graph: dep workload is never imported"),
        ("BUILD", build_text(graph=["nothing"]), "graph: dep nothing is no target"),
        ("BUILD", build_text(workload=["profiling"]), "is a circle"),
        ("autosplit/solvers/a.py", "import jax.numpy as jnp", "solvers see NumPy only"),
        ("autosplit/models/a.py", "from torch import nn", "only converters may import torch"),
        ("experiments/a.py", "import matplotlib.pyplot", "only reporting may import matplotlib"),
        ("autosplit/quant/a.py", "from jax._src import core", "uses jax._src.core; only"),
        ("autosplit/quant/a.py", "import jax.extend as jex", "uses jax.extend; only"),
        ("autosplit/quant/a.py", "import jax\njax._src.core.Var", "uses jax._src; only"),
        ("autosplit/quant/a.py", "import autosplit.nowhere.b", "which is no module of a target"),
        ("autosplit/utils.py", "", "utils.py: belongs to no target"),
    ],
)
def test_checker_finds_one_wrong_file(tmp_path: Path, path: str, text: str, message: str) -> None:
    found = violations(write_tree(tmp_path, GOOD_TREE | {path: text}))
    assert any(message in sentence for sentence in found), found


def test_checker_finds_a_target_without_files(tmp_path: Path) -> None:
    write_tree(tmp_path, GOOD_TREE)
    (tmp_path / "autosplit/solvers/exact.py").unlink()
    assert "solvers: its srcs match no file" in violations(tmp_path)
