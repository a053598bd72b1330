"""The demonstration's sidecar: what it serves, whom, and what it lets be set."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.parse

import pytest

from autosplit.errors import InputError
from experiments.face_demo_page import LARGEST_BODY_BYTES, serving_page
from experiments.face_demo_state import STAGES, Board, Found, FrameResult, Limits, Settings

JSON = {"Content-Type": "application/json"}


def make_board():
    limits = Limits(lowest_bits_per_s=1e6, highest_bits_per_s=1e7, jpeg_qualities=(50, 75))
    return Board(Settings(uplink_bits_per_s=3e6, jpeg_quality=75), limits)


def result(seconds, **changes):
    fields = {
        "found": [Found(name="person", score=0.5, box=(0.0, 0.1, 0.2, 0.3))],
        "stages_s": dict.fromkeys(STAGES, seconds), "sent_bytes": 7, "payload_bytes": 5,
    }  # fmt: skip
    return FrameResult(**{**fields, **changes})


@pytest.fixture
def board():
    return make_board()


@pytest.fixture
def page(board):
    with serving_page(board, {"title": "test"}) as address:
        yield urllib.parse.urlsplit(address).netloc


def ask(page, method, path, body=None, headers=None):
    with contextlib.closing(http.client.HTTPConnection(page, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def post(page, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = ask(page, "POST", "/settings", data, {**JSON, **headers})
    return status, json.loads(answer)


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [("/", "text/html", b"<canvas"), ("/?a=b", "text/html", b"page.js"),
     ("/page.css", "text/css", b"canvas"), ("/page.js", "text/javascript", b"EventSource"),
     ("/facts", "application/json", b"title")],
)  # fmt: skip
def test_it_serves_the_page_and_lets_it_load_nothing_else(page, path, kind, part):
    status, headers, body = ask(page, "GET", path)
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
    assert part in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_page_names_nothing_from_outside(page):
    for path in ("/", "/page.css", "/page.js"):
        body = ask(page, "GET", path)[2]
        assert b"//" not in body.replace(b"// ", b"")
        assert b" style=" not in body  # the policy would drop it


@pytest.mark.parametrize("path", ["/page.py", "/../configs/demo.py", "/%2e%2e/BUILD", "//etc"])
def test_other_files_are_not_served(page, path):
    assert ask(page, "GET", path)[0] == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"},
     {"Origin": "null"}],
)  # fmt: skip
def test_other_sites_are_kept_out(page, board, headers):
    assert ask(page, "GET", "/facts", headers=headers)[0] == 403
    assert post(page, {"paused": True}, **headers)[0] == 403
    assert not board.settings.paused


def test_the_page_itself_may_set(page, board):
    status, answer = post(page, {"uplink_bits_per_s": 5e6}, Origin=f"http://{page}")
    assert (status, answer["uplink_bits_per_s"]) == (200, 5e6)
    assert board.settings == Settings(uplink_bits_per_s=5e6, jpeg_quality=75)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"[" * 1000, b"{}", b"3", b"\xff", b'{"uplink_bits_per_s": NaN}',
     {"uplink_bits_per_s": 0.9e6}, {"uplink_bits_per_s": 1.1e7}, {"uplink_bits_per_s": "3e6"},
     {"uplink_bits_per_s": True}, {"uplink_bits_per_s": 10**400}, {"jpeg_quality": 60},
     {"jpeg_quality": 75.0}, {"paused": 1}, {"paused": True, "port": 1}, {"speed": 3}],
)  # fmt: skip
def test_a_wrong_setting_changes_nothing(page, board, body):
    before = board.settings
    status, answer = post(page, body)
    assert status == 400
    assert "expected" in answer["error"]
    assert board.settings == before


def test_a_body_must_be_short_json_of_known_length(page):
    path, long = "/settings", b" " * (LARGEST_BODY_BYTES + 1)
    assert ask(page, "POST", path, b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert ask(page, "POST", path, long, JSON)[0] == 413
    assert ask(page, "POST", path, b"", {**JSON, "Content-Length": "9" * 30})[0] == 413
    assert ask(page, "POST", path, b"", {**JSON, "Content-Length": "-1"})[0] == 411
    assert ask(page, "POST", "/facts", b"{}", JSON)[0] == 404


def test_results_are_streamed_as_they_come(page, board):
    with contextlib.closing(http.client.HTTPConnection(page, timeout=10)) as connection:
        connection.request("GET", "/events")
        stream = connection.getresponse()
        assert stream.getheader("Content-Type") == "text/event-stream"
        assert next_event(stream) == ("settings", {
            "uplink_bits_per_s": 3e6, "jpeg_quality": 75, "paused": False,
        })  # fmt: skip
        board.publish("split", 4, "data:,", result(0.001, plan=2))
        name, data = next_event(stream)
        assert (name, data["frame"], data["plan"]) == ("split", 4, 2)
        assert data["total_ms"] == pytest.approx(len(STAGES))
        assert data["found"][0]["name"] == "person"
        board.fail("cloud", "no answer")
        assert next_event(stream) == ("cloud", {"error": "no answer"})
        board.close()
        assert stream.read() == b""


def next_event(stream):
    name = stream.readline().decode().partition(": ")[2].strip()
    data = json.loads(stream.readline().decode().partition(": ")[2])
    assert stream.readline() == b"\n"
    return name, data


def test_a_page_that_is_closed_stops_nothing(page, board, capfd):
    host, port = page.split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"GET /events HTTP/1.1\r\nHost: {page}\r\n\r\n".encode())
            connection.recv(10)
        board.publish("split", 1, "data:,", result(0.001))
    assert ask(page, "GET", "/facts")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_taken_port_is_refused(page, board):
    with pytest.raises(InputError, match="expected a free one"), serving_page(
        board, {}, int(page.split(":")[1])
    ):
        pass


def test_medians_are_of_frames_under_the_same_settings(board):
    for seconds in (0.5, 0.5, 0.5):
        board.publish("split", 1, "data:,", result(seconds))
    board.change(b'{"jpeg_quality": 50}')
    board.publish("split", 2, "data:,", result(0.1))
    _, newer = board.after(0, 0.0)
    assert newer["split"]["stages_ms"]["edge"] == pytest.approx(100)
    assert newer["settings"]["jpeg_quality"] == 50


def test_a_viewer_gets_the_newest_alone(board):
    count, _ = board.after(0, 0.0)
    for number in range(5):
        board.publish("split", number, "data:,", result(0.1))
    later, newer = board.after(count, 0.0)
    assert list(newer) == ["split"]
    assert newer["split"]["frame"] == 4
    assert board.after(later, 0.0) == (later, {})


def test_waiting_ends_with_a_change_and_with_the_show(board):
    count, _ = board.after(0, 0.0)
    threading.Timer(0.05, board.change, [b'{"paused": true}']).start()
    count, newer = board.after(count, 10.0)
    assert newer["settings"]["paused"]
    threading.Timer(0.05, board.close).start()
    board.wait_while_paused(10.0)
    assert board.closed
    assert board.after(count, 10.0) == (count, {})
