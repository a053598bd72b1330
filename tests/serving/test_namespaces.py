"""A real link of Linux: two network namespaces, a pair of virtual cards, and `tc` on both."""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

import autosplit
from autosplit.hardware.network import Network
from autosplit.serving.link import steady_conditions
from autosplit.serving.shaper import shaping

pytestmark = pytest.mark.heavy

ROOT = pathlib.Path(__file__).parents[2]
BITS_PER_S = 3_000_000
BURST_BYTES = 2048  # what `tc` lets pass at once after a pause
FRAME_BYTES = 66  # headers of a packet: 14 of Ethernet, 20 of IPv4, 32 of TCP with time stamps
HOSTS = {"edge": "10.213.0.2", "cloud": "10.213.0.1"}
SILENT_S = 30.0
TIMED = 7

SERVER = """
import socket, sys
host, num_bytes, answer_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_server((host, 0)) as server:
    print(server.getsockname()[1], flush=True)
    end, _ = server.accept()
    with end:
        while True:
            left = num_bytes
            while left and (part := end.recv(left)):
                left -= len(part)
            if left:
                break
            end.sendall(bytes(answer_bytes))
"""
CLIENT = """
import socket, sys, time
address, num_bytes, answer_bytes, count = sys.argv[1], *map(int, sys.argv[2:])
host, port = address.split(":")
with socket.create_connection((host, int(port)), 60) as end:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(count):
        time.sleep(0.05)  # the buckets of tc fill again
        start_s = time.perf_counter()
        end.sendall(bytes(num_bytes))
        left = answer_bytes
        while left:
            left -= len(end.recv(left))
        print(time.perf_counter() - start_s)
"""


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def names():
    """Makes a namespace for each side, joined by a link of `BITS_PER_S` either way."""
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program!r} of iproute2")
    spaces = {side: f"autosplit-{side}-{os.getpid()}" for side in HOSTS}
    with contextlib.ExitStack() as stack:
        for space in spaces.values():
            made = ip("netns", "add", space)
            if made.returncode:
                pytest.skip(f"network namespaces are not permitted here: {made.stderr.strip()}")
            stack.callback(ip, "netns", "delete", space)
        made = ip("link", "add", "cloud0", "netns", spaces["cloud"], "type", "veth",
                  "peer", "name", "edge0", "netns", spaces["edge"])  # fmt: skip
        if made.returncode:
            pytest.skip(f"virtual network cards are not to be had here: {made.stderr.strip()}")
        for side, space in spaces.items():
            card = f"{side}0"
            assert not ip("-n", space, "addr", "add", f"{HOSTS[side]}/30", "dev", card).returncode
            for name in ("lo", card):
                assert not ip("-n", space, "link", "set", name, "up").returncode
            shaped = inside(space, "tc", "qdisc", "add", "dev", card, "root", "tbf", "rate",
                            str(BITS_PER_S), "burst", str(BURST_BYTES), "limit", "1mb")  # fmt: skip
            done = subprocess.run(shaped, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"tc cannot shape here: {done.stderr.strip()}")
        yield spaces


def inside(space, *command):
    return ["ip", "netns", "exec", space, *command]


@contextlib.contextmanager
def answering(prefix, host, num_bytes, answer_bytes):
    """Yields the address of a server that answers every message of a size by one of another."""
    command = [*prefix, sys.executable, "-c", SERVER, host, str(num_bytes), str(answer_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"{host}:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def exchanges_s(prefix, address, num_bytes, answer_bytes, count):
    """Returns the median time of an exchange; the first opens TCP's window and is left out."""
    sizes = [str(num_bytes), str(answer_bytes), str(count + 1)]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", CLIENT, address, *sizes],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return statistics.median([float(line) for line in done.stdout.split()][1:])


@pytest.mark.parametrize("num_bytes", [20_000, 150_000])
def test_the_shaper_is_as_slow_as_the_kernel(names, num_bytes):
    answer_bytes = 4000
    with answering(inside(names["cloud"]), HOSTS["cloud"], num_bytes, answer_bytes) as address:
        kernel_s = exchanges_s(inside(names["edge"]), address, num_bytes, answer_bytes, TIMED)
    network = Network(uplink_bits_per_s=BITS_PER_S)
    conditions = steady_conditions(network, packet_header_bytes=FRAME_BYTES)
    with (
        answering([], "127.0.0.1", num_bytes, answer_bytes) as address,
        shaping(address, conditions) as proxy,
    ):
        shaper_s = exchanges_s([], proxy.address, num_bytes, answer_bytes, TIMED)
    # tc's bucket is full after each pause, in both directions; the shaper has none.
    kernel_s += 2 * BURST_BYTES * 8 / BITS_PER_S
    print(f"{num_bytes} bytes: tc {kernel_s * 1e3:.1f} ms, shaper {shaper_s * 1e3:.1f} ms")
    assert shaper_s == pytest.approx(kernel_s, rel=0.1)


def dense(params, x):
    """Two layers, of which the first makes far more numbers than it takes."""
    return jnp.tanh(jnp.maximum(x @ params["grow"], 0) @ params["shrink"])


@pytest.fixture
def saved(tmp_path):
    """Returns the folder of a split between the layers, two requests and their outputs."""
    random = np.random.default_rng(0)
    params = {
        "grow": random.normal(size=(8, 4000)).astype(np.float32),
        "shrink": random.normal(size=(4000, 3)).astype(np.float32) / 60,
    }
    x = random.normal(size=(2, 1, 8)).astype(np.float32)
    graph = autosplit.trace(dense, params, x[0])
    cut = next(cut for cut in graph.cuts() if sum(cut.on_edge) == 1)
    autosplit.split(graph, params, cut).save(tmp_path / "split")
    np.savez(tmp_path / "in.npz", arg0=x)
    return tmp_path, [np.asarray(dense(params, one)) for one in x]


def test_a_split_is_served_across_the_link(names, saved):
    folder, expected = saved
    ready, result = folder / "ready", folder / "out.json"
    serve = [sys.executable, "-m", "experiments.serve_cloud", "--split", folder / "split",
             "--address", f"{HOSTS['cloud']}:0", "--allow_insecure",
             "--ready_file", ready]  # fmt: skip
    with subprocess.Popen(inside(names["cloud"], *map(str, serve)), cwd=ROOT) as server:
        try:
            deadline_s = time.monotonic() + SILENT_S
            while not ready.exists():
                assert server.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            run = [sys.executable, "-m", "experiments.run_edge", "--split", folder / "split",
                   "--inputs", folder / "in.npz", "--output", result, "--noshape_link",
                   "--allow_insecure",
                   "--address", ready.read_text().strip()]  # fmt: skip
            subprocess.run(inside(names["edge"], *map(str, run)), cwd=ROOT, check=True, timeout=120)
        finally:
            server.terminate()
    report = json.loads(result.read_text())
    with np.load(folder / report["outputs"]) as outputs:
        np.testing.assert_allclose(outputs["out0"], expected, rtol=1e-4, atol=1e-5)
    least_s = (4000 * 4 - BURST_BYTES) * 8 / BITS_PER_S
    for (times,) in report["times"]:
        assert times["total_s"] > least_s
