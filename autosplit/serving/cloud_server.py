"""The cloud halves of splits behind gRPC: start, serve, drain, stop.

The server is an event loop on a thread of its own. What it consists of: `registry` holds the
splits, `inference_service` takes the requests, `answers` knows the repeated ones, `batching`
computes them, `metrics` and `logs` tell of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import jax
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from autosplit.errors import InputError
from autosplit.serving import codec
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.answers import Answers
from autosplit.serving.batching import Scheduler
from autosplit.serving.inference_service import InferenceService
from autosplit.serving.logs import log
from autosplit.serving.metrics import Metrics, served_metrics
from autosplit.serving.quotas import server_interceptors
from autosplit.serving.registry import SplitRegistry, Splits, open_splits
from autosplit.serving.security import check_exposure, server_credentials
from autosplit.serving.server_options import ServerOptions

SERVICE = pb2.DESCRIPTOR.services_by_name["SplitInference"].full_name
"""Name under which the health service answers, beside the empty one."""

_CLOSE_S = 0.1  # for what was answered in the last moment of the drain
_KEEPALIVE_MS = 60_000  # a client that was cut off is noticed after that, and after its timeout
_PINGS_MS = 5_000  # clients may ask as often whether the server is there


@contextlib.contextmanager
def serving(
    splits: Splits, address: str = "127.0.0.1:0", options: ServerOptions | None = None
) -> Iterator[str]:
    """Serves the cloud halves of splits while the block runs.

    The stages are compiled before the port is opened, so whoever can connect is served
    at full speed. When the block ends, the server drains: what it accepted is computed and
    answered within ``options.drain_s``, and nothing more is accepted.

    Args:
      splits: one split, several, the directory of a saved one, or a directory of such
        directories, which is then watched: splits come and go without a restart.
      address: ``host:port``; port 0 takes a free one.
      options: see `ServerOptions`.

    Yields:
      The bound ``host:port``.

    Raises:
      InputError: nothing crosses a cut, the address cannot be bound, or it can be reached
        from outside without security.
      ArtefactError: a saved split cannot be read.
      ProtocolError: a split's outputs differ from its manifest.
    """
    options = options or ServerOptions()
    _check_address(address)
    check_exposure(address, options.security, options.allow_insecure)
    given, directory = open_splits(splits)
    devices = _devices(options.devices)
    needed = [codec.message_limit_bytes(split.manifest.crossing) for split in given]
    limit_bytes = max(needed, default=options.message_bytes)
    registry = SplitRegistry(devices, options.batch_sizes, limit_bytes)
    for split in given:
        registry.add(split)
    if directory is not None:
        registry.look(directory)
    with _running(_Setup(
        registry=registry, directory=directory, devices=devices, limit_bytes=limit_bytes,
        address=address, options=options,
    )) as bound:  # fmt: skip
        yield bound


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Setup:
    """What the event loop needs."""

    registry: SplitRegistry
    directory: pathlib.Path | None
    devices: Sequence[jax.Device]
    limit_bytes: int
    address: str
    options: ServerOptions


def _devices(count: int | None) -> Sequence[jax.Device]:
    found = jax.local_devices()
    if count is not None and count > len(found):
        raise InputError(
            f"This process has {len(found)} devices; expected {count}. Ask for fewer, or give JAX "
            "more (on a CPU: XLA_FLAGS=--xla_force_host_platform_device_count=N)."
        )
    return found[:count]


@contextlib.contextmanager
def _running(setup: _Setup) -> Iterator[str]:
    """Yields the bound address of a server on a thread of its own."""
    bound: futures.Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = futures.Future()

    def run() -> None:
        try:
            asyncio.run(_serve(setup, bound))
        except BaseException as error:
            if bound.done():  # nobody waits for the thread's result: the log has to say it
                log(logging.CRITICAL, "server failed", traceback=True)
            else:
                bound.set_exception(error)

    thread = threading.Thread(target=run, name="cloud-server", daemon=True)
    thread.start()
    address, loop, stop = bound.result()
    try:
        yield address
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended by an error, which is logged
            loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _serve(setup: _Setup, bound: futures.Future[Any]) -> None:
    """Serves until the event that it puts into ``bound`` is set, then drains."""
    options, stop = setup.options, asyncio.Event()
    scheduler = Scheduler(
        setup.devices, options.queue, options.queue_bytes, options.max_wait_s
    )
    metrics = Metrics(
        queued=lambda: scheduler.waiting, splits=lambda: len(setup.registry.served)
    )
    service = InferenceService(
        setup.registry, scheduler, Answers(options.kept_bytes, options.kept_s), metrics,
        options.stream_requests,
    )  # fmt: skip
    server, watched = _make_server(setup, service)
    with served_metrics(metrics, options.metrics_address) as metrics_address:
        address = _bind(server, setup.address, options)
        scheduler.start()
        await server.start()
        async with _watching(setup, watched):
            log(logging.INFO, "listening", address=address, metrics=metrics_address,
                devices=[str(device) for device in setup.devices])  # fmt: skip
            bound.set_result((address, asyncio.get_running_loop(), stop))
            await stop.wait()
        await _drain(server, watched, service, options.drain_s)
        await scheduler.stop()


def _make_server(
    setup: _Setup, service: InferenceService
) -> tuple[grpc.aio.Server, Health]:
    options = setup.options
    server = grpc.aio.server(
        interceptors=server_interceptors(options.security, options.quotas),
        options=(
            ("grpc.max_receive_message_length", setup.limit_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the port would get half of the calls
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", _PINGS_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        ),
    )
    pb2_grpc.add_SplitInferenceServicer_to_server(service, server)
    watched = Health()
    health_pb2_grpc.add_HealthServicer_to_server(watched, server)
    if options.reflection:
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        names = (SERVICE, health_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return server, watched


class Health(health.aio.HealthServicer):
    """The health service; its calls that watch can be ended, else they would hold up the end."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def Watch(  # noqa: N802 (the name is the protocol's)
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Writes the state of a service at once and whenever it changes, until `closed`."""
        tasks = [asyncio.create_task(super().Watch(request, context)),
                 asyncio.create_task(self.closed.wait())]  # fmt: skip
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


@contextlib.asynccontextmanager
async def _watching(setup: _Setup, watched: Health) -> AsyncIterator[None]:
    """Keeps the splits and the health as the directory has them, while the block runs."""

    async def report() -> None:
        states = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await watched.set(name, states.SERVING if setup.registry.served else states.NOT_SERVING)

    await report()
    if setup.directory is None:
        yield
        return
    watching = asyncio.create_task(
        setup.registry.watch(setup.directory, setup.options.watch_s, report)
    )
    try:
        yield
    finally:
        watching.cancel()


async def _drain(
    server: grpc.aio.Server, watched: Health, service: InferenceService, drain_s: float
) -> None:
    """Answers what was accepted, refuses the rest, and closes the port."""
    log(logging.INFO, "draining")
    until_s = time.monotonic() + drain_s
    await watched.enter_graceful_shutdown()
    try:
        async with asyncio.timeout(drain_s):
            await service.drain()
    except TimeoutError:
        log(logging.ERROR, "stopped before all was answered", drain_s=drain_s)
    watched.closed.set()
    await server.stop(max(_CLOSE_S, until_s - time.monotonic()))  # until clients read what they got
    log(logging.INFO, "stopped")


def _bind(server: grpc.aio.Server, address: str, options: ServerOptions) -> str:
    credentials = None if options.security is None else server_credentials(options.security)
    port = 0
    with contextlib.suppress(RuntimeError):
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    if port == 0:
        raise _no_address(address)
    return f"{address.rpartition(':')[0]}:{port}"


def _check_address(address: str) -> None:
    host, _, digits = address.rpartition(":")
    if not (host and digits.isdecimal() and int(digits) < 2**16):  # gRPC would wrap a larger one
        raise _no_address(address)


def _no_address(address: str) -> InputError:
    return InputError(
        f"Cannot listen on {address!r}. Give host:port with a host of this machine and a "
        "free port, such as 127.0.0.1:0."
    )
