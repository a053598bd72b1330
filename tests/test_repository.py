"""The repository keeps what its documents and its files promise each other."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.stem for path in REPOSITORY.glob("configs/[!_]*.py"))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
MAX_LINES = 400

# A lock or a document that names a host works on one network only.
REGISTRY_HOST = re.compile(r"\b(pypi|pythonhosted|npmjs|conda|debian)\.(org|com|io|net)\b")
SETUP_URL = re.compile(r"--(extra-)?index-url|--find-links|https?://[^\s/]+/simple\b")


def repository_files() -> Iterator[Path]:
    """Yield the files of the repository, without what the Makefile and tools make."""
    made = re.compile(r"\.(?!ci$).*|build|dist|__pycache__|.*\.egg-info|shared")
    for folder, folders, names in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if not made.fullmatch(name)]
        yield from (Path(folder) / name for name in names)


def text_files() -> Iterator[tuple[Path, str]]:
    """Yield the path and text of every file that is text."""
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(REPOSITORY), content.decode("utf-8")


def project() -> dict:
    """Return the project table of pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def make_targets() -> set[str]:
    """Return the targets that `make help` lists."""
    return set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.M))


# ---- Configurations


def test_there_is_a_config_for_the_demo() -> None:
    assert "demo" in CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_config_says_how_it_is_run_what_comes_out_and_how_long_it_takes(name: str) -> None:
    text = importlib.import_module(f"configs.{name}").__doc__ or ""
    command = re.search(r"python -m (experiments\.\w+).*?--config=(\S+)", text, re.S)
    assert command, f"configs/{name}.py: docstring has no `python -m experiments... --config=...`"
    assert (REPOSITORY / command[1].replace(".", "/")).with_suffix(".py").is_file(), command[1]
    assert command[2] == f"configs/{name}.py"
    assert re.search(r"\bexpect(ed|s)?\b", text, re.I), "docstring has no expected result"
    assert re.search(r"\b\d[\d.]*\s*(s|seconds?|min|minutes?|h|hours?)\b", text), (
        "docstring has no duration, such as `Duration: 40 s on 2 cores`"
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_config_gives_a_config_dict(name: str) -> None:
    config = importlib.import_module(f"configs.{name}").get_config()
    assert isinstance(config, ml_collections.ConfigDict)
    assert len(config)


# ---- Files


def test_no_file_names_a_registry_host() -> None:
    lines = [
        f"{path}:{number}: {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if REGISTRY_HOST.search(line)
    ]
    assert not lines, "\n".join(lines)


def test_no_python_file_is_long() -> None:
    long = {
        str(path): lines
        for path, text in text_files()
        if path.suffix == ".py" and not GENERATED.search(path.name)
        if (lines := len(text.splitlines())) > MAX_LINES
    }
    assert not long


def test_every_package_ships_its_data() -> None:
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = table["package-data"]["*"]
    forgotten = [
        str(path)
        for path, _ in text_files()
        if path.parts[0] == "autosplit" and path.suffix not in (".py", ".pyi")
        if not any(path.match(pattern) for pattern in patterns)
    ]
    assert not forgotten


# ---- Versions


def declared() -> list[Requirement]:
    """Return the dependencies of the package and of all its extras."""
    table = project()
    extras = table["optional-dependencies"].values()
    texts = [text for texts in (table["dependencies"], *extras) for text in texts]
    return [wanted for wanted in map(Requirement, texts) if wanted.name != table["name"]]


def test_every_library_that_is_imported_is_declared() -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    own = {"autosplit", "configs", "experiments", "tests"}
    providers = importlib.metadata.packages_distributions()
    missing = [
        f"{path}: {library}"
        for path, text in text_files()
        if path.suffix == ".py"
        for library in sorted(imported_libraries(text) - sys.stdlib_module_names - own)
        if not names & {canonicalize_name(name) for name in providers.get(library, ())}
    ]
    assert not missing, "\n".join(missing)


def imported_libraries(text: str) -> set[str]:
    """Return the first part of every absolute import in a Python source."""
    found: set[str] = set()
    for statement in ast.walk(ast.parse(text)):
        if isinstance(statement, ast.Import):
            found |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            found.add((statement.module or "").split(".")[0])
    return found


def test_lock_pins_every_dependency_of_every_extra() -> None:
    pins = locked_versions()
    # The peers pin themselves: what is measured is beside exactly these versions.
    peers = {text for text in project()["optional-dependencies"]["peers"] if "==" in text}
    for requirement in declared():
        if str(requirement) in peers:
            continue
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_lock_is_exact_and_names_no_place() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    assert [line for line in entries if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert not SETUP_URL.search("\n".join(lines))


def locked_versions() -> dict[str, str]:
    """Return the version of every package in requirements.txt."""
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_changelog_has_the_version_of_the_project() -> None:
    assert f"## [{project()['version']}]" in (REPOSITORY / "CHANGELOG.md").read_text()


# ---- Documents


def test_readme_gives_the_two_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    assert re.search(r"^make demo\b", readme, re.M)
    assert re.search(r"^make test\b", readme, re.M)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_names_targets_and_files_that_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= make_targets()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_readme_names_every_package() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    packages = [path.parent.name for path in REPOSITORY.glob("autosplit/*/__init__.py")]
    assert [name for name in packages if f"`{name}`" not in readme] == []
