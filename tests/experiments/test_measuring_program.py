"""Programs that measure say in one sentence what is wrong with their arguments."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(("arguments", "says"), [
    (["--config.nothing=3"], "zoo: the configuration has no field 'nothing'."),
    (["--config=configs/zoo.py", "--config.batch=x"], "batch"),
    (["--config.classifiers=()", "--config.detectors=()"], "zoo: config.classifiers and "),
    (["--config=/no/such.py"], "zoo: --config cannot be read"),
])  # fmt: skip
def test_wrong_arguments(tmp_path, arguments, says):
    command = [sys.executable, "-m", "experiments.zoo", f"--workdir={tmp_path / 'out'}"]
    finished = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True,
                              check=False)  # fmt: skip
    assert finished.returncode
    assert says in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out").exists()
