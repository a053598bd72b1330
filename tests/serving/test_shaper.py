"""The shaping proxy delays bytes as its conditions say, and never changes them."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from autosplit.errors import InputError
from autosplit.hardware.bandwidth_trace import BandwidthTrace
from autosplit.hardware.network import Network
from autosplit.serving.link import LinkConditions, constant_trace, steady_conditions
from autosplit.serving.shaper import shaping, split_address

FAST = steady_conditions(Network(uplink_bits_per_s=1e10))
LONG_S = 30.0  # until a test that hangs is failed by a socket's timeout


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LONG_S)
        yield server


@pytest.fixture
def target(listener):
    return f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def connected(listener, proxy):
    """Yields both ends of a connection through the proxy."""
    with socket.create_connection(split_address(proxy.address), LONG_S) as near:
        far, _ = listener.accept()
        with far:
            far.settimeout(LONG_S)
            yield near, far


def receive(end, num_bytes):
    parts = []
    while num_bytes > 0 and (part := end.recv(min(num_bytes, 1 << 16))):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def send(end, data):
    """Sends in a thread, as more than the buffers hold would block."""
    thread = threading.Thread(target=end.sendall, args=(data,), daemon=True)
    thread.start()
    return thread


def is_silent(end, for_s=0.2):
    """Says whether nothing arrives; the end has no other use meanwhile."""
    end.settimeout(for_s)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(LONG_S)
    return False


def random_bytes(count, seed=0):
    return np.random.default_rng(seed).bytes(count)


# ---- What a link does


@pytest.mark.parametrize(
    "others", [{}, {"jitter_s": 0.002}, {"loss": 0.05, "retransmit_s": 0.001, "jitter_s": 0.001}]
)
def test_bytes_arrive_as_they_were_sent(listener, target, others):
    conditions = steady_conditions(Network(uplink_bits_per_s=4e8, round_trip_s=0.002), **others)
    up, down = random_bytes(400_000, 1), random_bytes(300_001, 2)
    with shaping(target, conditions) as proxy, connected(listener, proxy) as (near, far):
        threads = [send(near, up), send(far, down)]
        assert receive(far, len(up)) == up
        assert receive(near, len(down)) == down
        for thread in threads:
            thread.join()
        traffic = proxy.traffic()
    assert traffic.connections == 1
    assert (traffic.lost_packets > 0) == ("loss" in others)


def test_delivered_bytes_are_counted_by_direction(listener, target):
    with shaping(target, FAST) as proxy:
        for _ in range(2):
            with connected(listener, proxy) as (near, far):
                near.sendall(bytes(3000))
                receive(far, 3000)
                far.sendall(bytes(50))
                receive(near, 50)
        traffic = proxy.traffic()
    assert traffic.connections == 2
    assert (traffic.uplink_bytes, traffic.downlink_bytes) == (6000, 100)


def test_nothing_arrives_before_the_link_can_carry_it(listener, target):
    network = Network(uplink_bits_per_s=2e6, downlink_bits_per_s=1e6, round_trip_s=0.05)
    with (
        shaping(target, steady_conditions(network)) as proxy,
        connected(listener, proxy) as (near, far),
    ):
        for sender, receiver, takes_s in (
            (near, far, network.uplink_s(20_000)),
            (far, near, network.downlink_s(20_000)),
        ):
            start_s = time.monotonic()
            sender.sendall(bytes(20_000))
            receive(receiver, 20_000)
            assert time.monotonic() - start_s >= takes_s + network.round_trip_s / 2


def test_headers_of_packets_take_their_time(listener, target):
    conditions = steady_conditions(Network(uplink_bits_per_s=1e7), packet_header_bytes=1448)
    with shaping(target, conditions) as proxy, connected(listener, proxy) as (near, far):
        start_s = time.monotonic()
        near.sendall(bytes(50_000))
        receive(far, 50_000)
        assert time.monotonic() - start_s >= 2 * 50_000 * 8 / 1e7


def test_connections_share_the_rate(listener, target):
    conditions = steady_conditions(Network(uplink_bits_per_s=4e6))
    with shaping(target, conditions) as proxy, contextlib.ExitStack() as stack:
        ends = [stack.enter_context(connected(listener, proxy)) for _ in range(3)]
        start_s = time.monotonic()
        for near, _ in ends:
            near.sendall(bytes(30_000))
        for _, far in ends:
            receive(far, 30_000)
        assert time.monotonic() - start_s >= 3 * 30_000 * 8 / 4e6


def test_bytes_wait_for_the_end_of_an_outage(listener, target):
    trace = BandwidthTrace(times_s=[0, 0.3, 100], bits_per_s=[0, 1e8, 1e8])
    conditions = LinkConditions(uplink=trace, downlink=constant_trace(1e8))
    start_s = time.monotonic()
    with shaping(target, conditions) as proxy, connected(listener, proxy) as (near, far):
        near.sendall(bytes(10))
        assert len(receive(far, 10)) == 10
        assert time.monotonic() - start_s >= 0.3


def test_a_lost_packet_arrives_later(listener, target):
    conditions = steady_conditions(Network(uplink_bits_per_s=1e9), loss=0.9, retransmit_s=0.05)
    with shaping(target, conditions, seed=3) as proxy, connected(listener, proxy) as (near, far):
        start_s = time.monotonic()
        near.sendall(bytes(1000))  # one packet
        receive(far, 1000)
        lost = proxy.traffic().lost_packets
        assert lost > 0
        assert time.monotonic() - start_s >= lost * 0.05


def test_the_end_of_a_stream_is_passed_on_after_its_bytes(listener, target):
    with shaping(target, FAST) as proxy, connected(listener, proxy) as (near, far):
        near.sendall(b"last words")
        near.shutdown(socket.SHUT_WR)
        assert receive(far, 100) == b"last words"  # returns early, at the end
        far.sendall(b"answer")  # the other direction is still open
        far.shutdown(socket.SHUT_WR)
        assert receive(near, 100) == b"answer"


def test_a_receiver_that_does_not_read_stops_the_sender(listener, target):
    with shaping(target, FAST) as proxy, connected(listener, proxy) as (near, _far):
        near.settimeout(0.5)
        sent, most = 0, 256 << 20
        with contextlib.suppress(TimeoutError):
            while sent < most:
                sent += near.send(bytes(1 << 20))
        assert proxy.traffic().uplink_bytes <= sent < most


# ---- What changes a link


def test_new_conditions_apply_to_what_is_under_way(listener, target):
    slow = steady_conditions(Network(uplink_bits_per_s=1.0))
    with shaping(target, slow) as proxy, connected(listener, proxy) as (near, far):
        near.sendall(random_bytes(5000))
        assert is_silent(far)
        proxy.reshape(FAST)
        assert receive(far, 5000) == random_bytes(5000)


def test_a_cut_link_is_silent_and_loses_nothing(listener, target):
    with shaping(target, FAST) as proxy, connected(listener, proxy) as (near, far):
        near.sendall(b"before")
        assert receive(far, 6) == b"before"
        proxy.cut()
        near.sendall(b"during")
        far.sendall(b"answer")
        assert is_silent(far)
        assert is_silent(near)
        proxy.restore()
        assert receive(far, 6) == b"during"
        assert receive(near, 6) == b"answer"


def test_a_cut_in_the_middle_of_a_message_breaks_it(listener, target):
    slow = steady_conditions(Network(uplink_bits_per_s=1e6))
    with shaping(target, slow) as proxy:
        with connected(listener, proxy) as (near, far):
            near.sendall(bytes(1_000_000))
            assert receive(far, 1)
            proxy.cut(reset=True)
            with contextlib.suppress(ConnectionError):
                assert len(receive(far, 1_000_000)) < 999_999
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(split_address(proxy.address), LONG_S) as refused,
        ):
            assert refused.recv(1) == b""
        proxy.restore()
        proxy.reshape(FAST)
        with connected(listener, proxy) as (near, far):
            near.sendall(b"again")
            assert receive(far, 5) == b"again"


def test_a_target_that_is_not_there_ends_the_connection(listener, target):
    listener.close()
    with (
        shaping(target, FAST) as proxy,
        contextlib.suppress(ConnectionError),
        socket.create_connection(split_address(proxy.address), LONG_S) as near,
    ):
        assert near.recv(1) == b""


def test_nothing_is_left_running(listener, target):
    with shaping(target, FAST) as proxy, connected(listener, proxy) as (near, _far):
        host, port = split_address(proxy.address)
    assert not any(thread.name == "shaper" for thread in threading.enumerate())
    with contextlib.suppress(ConnectionError):
        assert near.fileno() == -1 or near.recv(1) == b""
    with socket.create_server((host, port)):  # the port is free again
        pass


# ---- What is refused


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:x", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="not host:port"):
        split_address(address)
    with pytest.raises(InputError, match="not host:port"), shaping(address, FAST):
        pass


def test_an_address_in_use_is_refused(target):
    with pytest.raises(InputError, match="free port"), shaping("127.0.0.1:1", FAST, target):
        pass
