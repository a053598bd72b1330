import asyncio
import contextlib
import time
import types

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.serving import quotas, tokens
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.quotas import Ledger, Quotas
from autosplit.serving.security import ServerSecurity

REQUESTS = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3000)), max_size=40)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@given(REQUESTS, st.floats(0.5, 20), st.floats(100, 2000), st.floats(0.1, 3))
def test_no_client_gets_more_than_its_rates_and_one_burst(
    asked, requests_per_s, bytes_per_s, burst_s
):
    clock = Clock()
    limits = Quotas(requests_per_s=requests_per_s, bytes_per_s=bytes_per_s, burst_s=burst_s)
    ledger, passed = Ledger(limits, clock), []
    for pause_s, num_bytes in asked:
        clock.now_s += pause_s
        if ledger.take("a", num_bytes) == 0.0:
            passed.append(num_bytes)
    seconds = clock.now_s + burst_s
    # The last request may leave a debt of its own size; whatever was before it has been paid.
    assert len(passed) <= requests_per_s * seconds + 1 + 1e-6
    assert sum(passed[:-1]) <= bytes_per_s * seconds + max(passed, default=0) + 1e-6


@given(REQUESTS, st.floats(0.5, 20), st.floats(100, 2000))
def test_after_the_wait_that_it_was_told_a_client_passes(asked, requests_per_s, bytes_per_s):
    clock = Clock()
    ledger = Ledger(Quotas(requests_per_s=requests_per_s, bytes_per_s=bytes_per_s), clock)
    for pause_s, num_bytes in asked:
        clock.now_s += pause_s
        wait_s = ledger.take("a", num_bytes)
        if wait_s > 0:
            clock.now_s += wait_s * (1 - 1e-3) - 1e-6
            early_s = ledger.take("a", num_bytes)
            clock.now_s += max(early_s, 0) + 1e-6
            assert early_s == 0.0 or ledger.take("a", num_bytes) == 0.0


def test_each_client_has_a_quota_of_its_own():
    ledger = Ledger(Quotas(requests_per_s=1, burst_s=3), Clock())
    assert [ledger.take("a", 1) > 0 for _ in range(4)] == [False, False, False, True]
    assert ledger.take("b", 1) == 0.0


def test_a_request_larger_than_the_bucket_passes_and_is_paid_for():
    clock = Clock()
    ledger = Ledger(Quotas(bytes_per_s=100, burst_s=1), clock)
    assert ledger.take("a", 1000) == 0.0
    assert ledger.take("a", 1) == pytest.approx(9.01)


def test_the_ledger_forgets_the_clients_seen_longest_ago(monkeypatch):
    monkeypatch.setattr(quotas, "_CLIENTS", 100)
    ledger = Ledger(Quotas(requests_per_s=1), Clock())
    for index in range(1000):
        assert ledger.take(str(index), 1) == 0.0
    assert ledger.take("999", 1) > 0
    assert ledger.take("0", 1) == 0.0


@pytest.mark.parametrize("field", ["requests_per_s", "bytes_per_s", "burst_s"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_a_quota_is_a_number_above_0(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}"):
        Quotas(**{field: value})


# ---- Behind gRPC


async def echo(request, context):
    return pb2.InferResponse(request_id=request.request_id)


async def echo_each(requests, context):
    async for request in requests:
        yield pb2.InferResponse(request_id=request.request_id)


async def echo_as_read(requests, context):
    while (request := await context.read()) is not grpc.aio.EOF:
        yield pb2.InferResponse(request_id=request.request_id)


async def write_each(requests, context):
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(pb2.InferResponse(request_id=request.request_id))


@contextlib.asynccontextmanager
async def connected(limits, stream=echo_each, security=None):
    server = grpc.aio.server(interceptors=quotas.server_interceptors(security, limits))
    servicer = types.SimpleNamespace(Describe=None, Infer=echo, InferStream=stream)
    pb2_grpc.add_SplitInferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield pb2_grpc.SplitInferenceStub(channel)
        finally:
            await server.stop(None)


async def refused(stub, message, **options):
    """Returns what a client is told; None where it is answered."""
    try:
        await stub.Infer(message, timeout=10, **options)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def test_a_call_over_quota_is_told_when_to_come_back():
    async def flood():
        async with connected(Quotas(requests_per_s=0.1, burst_s=20)) as stub:
            return [await refused(stub, pb2.InferRequest()) for _ in range(3)]

    first, second, third = asyncio.run(flood())
    assert first is None
    assert second is None
    assert third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "over its quota" in third.details()
    assert 9 < float(dict(third.trailing_metadata())["retry-after-s"]) <= 10


def test_bytes_are_counted_as_they_were_sent():
    large = pb2.InferRequest(tensors=[pb2.Tensor(data=bytes(60_000))])

    async def flood():
        async with connected(Quotas(bytes_per_s=100, burst_s=700)) as stub:
            answers = [await refused(stub, message) for message in (large, large, large)]
            return [*answers, await refused(stub, pb2.InferRequest())]

    first, second, third, small = asyncio.run(flood())
    assert first is None
    assert small is None
    for error in (second, third):
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 490 < float(dict(error.trailing_metadata())["retry-after-s"]) < 505


@pytest.mark.parametrize("stream", [echo_each, echo_as_read, write_each])
def test_a_stream_over_quota_is_slowed_down_and_loses_nothing(stream):
    async def flood():
        async with connected(Quotas(requests_per_s=50, burst_s=0.1), stream) as stub:
            started_s = time.monotonic()
            requests = [pb2.InferRequest(request_id=index) for index in range(15)]
            call = stub.InferStream(iter(requests), timeout=30)
            answered = [response.request_id async for response in call]
            return answered, time.monotonic() - started_s

    answered, took_s = asyncio.run(flood())
    assert answered == list(range(15))
    assert took_s >= 10 / 50 - 0.001


def test_a_quota_is_of_the_token_wherever_it_calls_from(tmp_path):
    path = tmp_path / "tokens"
    made = [tokens.new_token(name) for name in ("first", "second")]
    path.write_text("".join(line for _, line in made))
    headers = [(("authorization", f"Bearer {token}"),) for token, _ in made]

    async def flood():
        limits = Quotas(requests_per_s=0.01, burst_s=100)
        async with connected(limits, security=ServerSecurity(tokens=path)) as stub:
            order = [headers[0], headers[0], headers[1], ()]
            return [await refused(stub, pb2.InferRequest(), metadata=one) for one in order]

    first, again, second, nobody = asyncio.run(flood())
    assert first is None
    assert second is None
    assert again.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "token:first" in again.details()
    assert nobody.code() is grpc.StatusCode.UNAUTHENTICATED


def test_no_quotas_are_no_interceptor():
    assert quotas.server_interceptors(None, None) == ()
