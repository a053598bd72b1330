"""The program that puts a link in front of a server."""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import types

import pytest

from autosplit.errors import InputError
from autosplit.serving.shaper import split_address
from experiments import shape_link

ROOT = pathlib.Path(__file__).parents[2]
LONG_S = 30.0


def test_it_carries_bytes_until_it_is_stopped(tmp_path):
    ready = tmp_path / "ready"
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,bits_per_s\n0,1e8\n60,2e8\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LONG_S)
        command = [
            sys.executable, "-m", "experiments.shape_link", "--uplink_trace", str(trace),
            "--target", f"127.0.0.1:{server.getsockname()[1]}", "--outage", "0:0.2",
            "--ready_file", str(ready), "--downlink_bits_per_s", "1e7", "--jitter_s", "0.001",
        ]  # fmt: skip
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as link:
            deadline_s = time.monotonic() + LONG_S
            while not ready.exists():
                assert link.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            with socket.create_connection(split_address(ready.read_text().strip()), LONG_S) as near:
                near.sendall(b"to the cloud")
                far, _ = server.accept()
                with far:
                    assert far.recv(100) == b"to the cloud"
                    far.sendall(b"back")
                assert near.recv(100) == b"back"
            link.send_signal(signal.SIGTERM)
            said, _ = link.communicate(timeout=LONG_S)
        assert link.returncode == 0
    assert "0 s: cut\n0.2 s: restore\n" in said
    assert "Carried 12 bytes up and 4 down on 1 connections; 0 packets were lost." in said
    assert not ready.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "here"}, "'here' is not host:port"),
        ({"uplink_trace": "/none"}, "/none cannot be read"),
        ({"loss": 1.5}, "loss is 1.5"),
        ({"outage": ["5"]}, "--outage is '5'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(monkeypatch, changes, words):
    values = {
        "target": "h:1", "address": "127.0.0.1:0", "uplink_bits_per_s": 1e6, "uplink_trace": None,
        "downlink_bits_per_s": None, "downlink_trace": None, "round_trip_s": 0.0, "jitter_s": 0.0,
        "loss": 0.0, "retransmit_s": 0.2, "outage": [], "ready_file": None, "seed": 0,
    }  # fmt: skip
    monkeypatch.setattr(shape_link.flags, "FLAGS", types.SimpleNamespace(**values | changes))
    monkeypatch.setattr(shape_link.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit, match=f"^shape_link: .*{re.escape(words)}") as caught:
        shape_link.main(["shape_link"])
    assert "\n" not in caught.value.code


@pytest.mark.parametrize(
    "texts", [["3:2"], ["1:2", "1.5:3"], ["-1:2"], ["a:b"], ["1:2:3"], ["1:inf"]]
)
def test_outages_that_cannot_be_are_refused(texts):
    with pytest.raises(InputError, match="expected FIRST:LAST"):
        shape_link.parse_outages(texts)
