"""The edge half of a split: compute, send, receive, and time each stage."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import jax
import numpy as np
from numpy.typing import ArrayLike

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.execution.halves import Split
from autosplit.serving import codec, protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.link import ShapedLink, sleep_until
from autosplit.serving.stage_times import StageTimes

_REJECTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_CLOCK_DRIFT = 1.01  # two machines' clocks may run at rates that differ by a little

Outputs = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeClient:
    """An edge half with an open connection to the cloud half; made by `connect`.

    Attributes:
      split: the loaded split.
      address: of the server, for messages.
      stub: of the open channel.
      link: imitated for every request; None leaves the connection as it is.
      timeout_s: longest wait for one response, from the moment the request is sent.
    """

    split: Split
    address: str
    stub: Any
    link: ShapedLink | None
    timeout_s: float

    def infer(self, *inputs: ArrayLike) -> tuple[Outputs, StageTimes]:
        """Returns the outputs for one request, and where its time went.

        Args:
          *inputs: one array per ``manifest.inputs``, with its exact shape.

        Returns:
          The flat outputs, and the time of each stage.

        Raises:
          InputError: the inputs are not those of the manifest.
          ProtocolError: the server rejected the request, or its response is wrong.
          CloudUnavailableError: no response within ``timeout_s``.
        """
        check_inputs(self.split, inputs)
        started_s = time.perf_counter()
        codes, edge_s = _timed(self.split.edge_layers, *inputs)
        payload, pack_s = _timed(self.split.pack, codes)
        packed_s = time.perf_counter()
        request = pb2.InferRequest(
            protocol_version=protocol.PROTOCOL_VERSION,
            split_id=self.split.manifest.split_id,
            request_id=secrets.randbits(64),
            tensors=codec.encode_payload(self.split.manifest.crossing, payload),
        )
        if self.link is not None:
            sleep_until(packed_s + self.link.request_s(request.ByteSize()))
        sent_s = time.perf_counter()
        response = _call(self.stub.Infer, request, self.address, self.timeout_s)
        outputs = self._accept(request, response, time.perf_counter() - sent_s)
        server_s = response.unpack_s + response.cloud_s
        if self.link is not None:
            sleep_until(sent_s + server_s + self.link.response_s(response.ByteSize()))
        ended_s = time.perf_counter()
        round_trip_s = self.link.network.round_trip_s if self.link is not None else 0.0
        return outputs, StageTimes(
            edge_s=edge_s,
            pack_s=pack_s,
            uplink_s=sent_s - packed_s - round_trip_s / 2,
            unpack_s=response.unpack_s,
            cloud_s=response.cloud_s,
            downlink_s=ended_s - sent_s - server_s - round_trip_s / 2,
            round_trip_s=round_trip_s,
            total_s=ended_s - started_s,
        )

    def _accept(
        self, request: pb2.InferRequest, response: pb2.InferResponse, waited_s: float
    ) -> Outputs:
        """Returns the outputs of a response that passes every check."""
        protocol.check_version(response.protocol_version, "server")
        protocol.check_fields(response, "server")
        if response.request_id != request.request_id:
            raise ProtocolError(
                f"The server answered request {response.request_id}; expected "
                f"{request.request_id}. Restart the server at {self.address}."
            )
        stages_s = (response.unpack_s, response.cloud_s)
        plausible = all(math.isfinite(one) and one >= 0 for one in stages_s)
        if not plausible or sum(stages_s) > waited_s * _CLOCK_DRIFT:
            raise ProtocolError(
                f"The server reports stages of {stages_s} s for a call that took {waited_s} s; "
                f"expected times within the call. Check the clock of {self.address}."
            )
        return codec.decode_values(self.split.manifest.outputs, response.outputs)


@contextlib.contextmanager
def connect(
    split: Split,
    address: str,
    *,
    link: ShapedLink | None = None,
    connect_timeout_s: float = 5.0,
    timeout_s: float = 60.0,
) -> Iterator[EdgeClient]:
    """Opens a connection to the cloud half of the same split, and closes it again.

    The server is asked for its version, its split and its tensors first. Proxies of the
    environment are ignored, because the times would be theirs.

    Args:
      split: with at least one crossing tensor.
      address: ``host:port`` of the server.
      link: imitated for every request; None leaves the connection as it is.
      connect_timeout_s: longest wait for the server's first answer.
      timeout_s: longest wait for one response.

    Yields:
      The client.

    Raises:
      ProtocolError: the server speaks another version or serves another split.
      CloudUnavailableError: no server answers at ``address`` in time.
    """
    specs = (*split.manifest.crossing, *split.manifest.outputs)  # the description names both
    limit_bytes = codec.message_limit_bytes(specs)
    options = (("grpc.max_receive_message_length", limit_bytes), ("grpc.enable_http_proxy", 0))
    with grpc.insecure_channel(address, options=options) as channel:
        stub = pb2_grpc.SplitInferenceStub(channel)
        asked = pb2.DescribeRequest(protocol_version=protocol.PROTOCOL_VERSION)
        described = _call(stub.Describe, asked, address, connect_timeout_s)
        protocol.check_description(described, split.manifest)
        yield EdgeClient(split=split, address=address, stub=stub, link=link, timeout_s=timeout_s)


def infer_on_edge(split: Split, *inputs: ArrayLike) -> tuple[Outputs, StageTimes]:
    """Returns the outputs of a split of which nothing crosses, without a server.

    Args:
      split: without crossing tensors.
      *inputs: one array per ``manifest.inputs``, with its exact shape.

    Returns:
      The flat outputs, and the times: all but the edge and the total are 0.

    Raises:
      InputError: the inputs are not those of the manifest, or tensors cross the cut.
      ProtocolError: the split's outputs differ from its manifest.
    """
    if split.manifest.crossing:
        raise InputError(
            f"Split {split.manifest.split_id} sends "
            f"{[spec.name for spec in split.manifest.crossing]}: the edge cannot finish alone. "
            "Start a cloud server and connect to it."
        )
    check_inputs(split, inputs)
    started_s = time.perf_counter()
    outputs, edge_s = _timed(split.edge_layers, *inputs)
    outputs = codec.check_values(split.manifest.outputs, outputs)
    total_s = time.perf_counter() - started_s
    idle = dict.fromkeys(("pack_s", "uplink_s", "unpack_s", "cloud_s", "downlink_s"), 0.0)
    return outputs, StageTimes(edge_s=edge_s, round_trip_s=0.0, total_s=total_s, **idle)


def check_inputs(split: Split, inputs: tuple[ArrayLike, ...]) -> None:
    """Raises unless ``inputs`` have the count, shapes and types of the manifest.

    Args:
      split: whose inputs they are to be.
      inputs: flat.

    Raises:
      InputError: another count, shape or type, which would compile another program.
    """
    try:
        codec.check_values(split.manifest.inputs, inputs)
    except ProtocolError as error:
        raise InputError(f"The inputs do not fit the split. {error}") from error


def _timed(stage: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started_s = time.perf_counter()
    result = jax.block_until_ready(stage(*arguments))
    return result, time.perf_counter() - started_s


def _call(method: Callable[..., Any], request: Any, address: str, timeout_s: float) -> Any:
    """Returns the response of a remote procedure; turns its failure into our errors."""
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        status, words = error.code(), error.details()
        if status in _REJECTED:
            raise ProtocolError(
                f"The server at {address} rejected the request ({status.name}): {words}"
            ) from error
        raise CloudUnavailableError(
            f"The cloud server at {address} did not answer ({status.name}: {words}; the limit is "
            f"{timeout_s} s). Start it with `python -m experiments.serve_cloud --split DIR "
            "--address HOST:PORT`, or look at its log if it runs."
        ) from error
