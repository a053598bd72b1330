"""The edge half of a split: compute, send, receive, and time each stage."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import grpc
from numpy.typing import ArrayLike

from autosplit.errors import InputError, ProtocolError
from autosplit.execution.halves import Split
from autosplit.serving import codec, protocol, retries
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.channels import call_metadata, open_channel
from autosplit.serving.fallback import Outputs, check_inputs, infer_on_edge, timed
from autosplit.serving.link import ShapedLink, sleep_until
from autosplit.serving.pipeline import Pipeline
from autosplit.serving.retries import USUAL_RETRY, RetryPolicy
from autosplit.serving.security import ClientSecurity, check_exposure
from autosplit.serving.stage_times import StageTimes, check_server_times
from autosplit.serving.streaming import USUAL_OPTIONS, Answer, StreamOptions

__all__ = [
    "Answer",
    "EdgeClient",
    "Outputs",
    "RetryPolicy",
    "StreamOptions",
    "check_inputs",
    "connect",
    "infer_on_edge",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeClient:
    """An edge half with an open connection to the cloud half; made by `connect`.

    Attributes:
      split: the loaded split.
      address: of the server, for messages.
      stub: of the open channel.
      link: imitated for every request; None leaves the connection as it is.
      timeout_s: longest wait for one response, from the moment the request is sent.
      alternatives: further splits of the same function, for `stream`.
      retry: how often to repeat a request, and when.
      security: how to reach the server; None is plain text without a token.
      client_id: 16 random bytes.
      request_ids: numbers of the requests of this client, each given once.
    """

    split: Split
    address: str
    stub: Any
    link: ShapedLink | None
    timeout_s: float
    alternatives: tuple[Split, ...] = ()
    retry: RetryPolicy = USUAL_RETRY
    security: ClientSecurity | None = None
    client_id: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(16))
    request_ids: Iterator[int] = dataclasses.field(
        default_factory=lambda: itertools.count(secrets.randbits(62))
    )

    def infer(self, *inputs: ArrayLike) -> tuple[Outputs, StageTimes]:
        """Returns the outputs for one request, and where its time went.

        A broken connection or a busy server is tried again by ``retry``, with the
        same message; what earlier attempts took is in ``total_s`` and the link's times.

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
        manifest = self.split.manifest
        started_s = time.perf_counter()
        codes, edge_s = timed(self.split.edge_layers, *inputs)
        payload, pack_s = timed(self.split.pack, codes)
        packed_s = time.perf_counter()
        request = codec.encode_request(manifest, payload, self.client_id, next(self.request_ids))
        if self.link is not None:
            sleep_until(packed_s + self.link.request_s(request.ByteSize()))
        sent_s = time.perf_counter()
        response = self._call(self.stub.Infer, request, self.timeout_s)
        outputs = self._accept(request, response, time.perf_counter() - sent_s)
        server_s = response.queue_s + response.unpack_s + response.cloud_s
        if self.link is not None:
            sleep_until(sent_s + server_s + self.link.response_s(response.ByteSize()))
        ended_s = time.perf_counter()
        round_trip_s = self.link.network.round_trip_s if self.link is not None else 0.0
        return outputs, StageTimes(
            edge_s=edge_s,
            pack_s=pack_s,
            uplink_s=sent_s - packed_s - round_trip_s / 2,
            queue_s=response.queue_s,
            unpack_s=response.unpack_s,
            cloud_s=response.cloud_s,
            downlink_s=ended_s - sent_s - server_s - round_trip_s / 2,
            round_trip_s=round_trip_s,
            total_s=ended_s - started_s,
        )

    def stream(
        self, frames: Iterable[Any], options: StreamOptions = USUAL_OPTIONS
    ) -> Generator[Answer, None, None]:
        """Yields one answer for each frame, in order, while later frames are on their way.

        While frame i travels, frame i+1 is computed and encoded, and frame i+2 waits to be
        taken. A connection that breaks is opened again, and the requests without an
        answer are sent again; the server answers each once. With ``alternatives`` the plan
        follows the measured bandwidth, and an edge-only one answers while the link is down.

        Args:
          frames: inputs, one array each, or a tuple of arrays where the split has several
            inputs. Taken one by one, as answers are consumed; may be endless.
          options: how far ahead to work, when to switch and when to fall back.

        Yields:
          An `Answer` per frame: its outputs, or the error that ended it.

        Raises:
          InputError: a frame is not what the manifest's inputs say.
          ProtocolError: the server breaks the protocol.
        """
        pipeline = Pipeline(
            splits=(self.split, *self.alternatives),
            open_channel=self.open_channel,
            metadata=call_metadata(self.security),
            link=self.link,
            address=self.address,
            timeout_s=self.timeout_s,
            retry=self.retry,
            client_id=self.client_id,
            request_ids=self.request_ids,
            options=options,
        )
        return pipeline.answers(frames)

    def open_channel(self) -> grpc.Channel:
        """Opens one more connection to the same server."""
        splits = (self.split, *self.alternatives)
        return open_channel(self.address, splits, self.security, self.retry)

    def check_server(self, timeout_s: float) -> None:
        """Raises unless the server speaks this version and serves every split of the client.

        Args:
          timeout_s: longest wait for each answer.

        Raises:
          ProtocolError: another version, or a split is missing or has other tensors.
          CloudUnavailableError: no answer in time.
        """
        for split in (self.split, *self.alternatives):
            if not split.manifest.crossing:
                continue
            asked = pb2.DescribeRequest(
                protocol_version=protocol.PROTOCOL_VERSION, split_id=split.manifest.split_id
            )
            described = self._call(self.stub.Describe, asked, timeout_s)
            protocol.check_description(described, split.manifest)

    def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        return retries.call(
            method,
            request,
            address=self.address,
            timeout_s=timeout_s,
            policy=self.retry,
            metadata=call_metadata(self.security),
        )

    def _accept(
        self, request: pb2.InferRequest, response: pb2.InferResponse, waited_s: float
    ) -> Outputs:
        """Returns the outputs of a response that passes every check."""
        outputs = codec.decode_response(self.split.manifest, response)
        if response.request_id != request.request_id:
            raise ProtocolError(
                f"The server answered request {response.request_id}; expected "
                f"{request.request_id}. Restart the server at {self.address}."
            )
        check_server_times(
            (response.queue_s, response.unpack_s, response.cloud_s), waited_s, self.address
        )
        return outputs


@contextlib.contextmanager
def connect(
    split: Split,
    address: str,
    *,
    link: ShapedLink | None = None,
    security: ClientSecurity | None = None,
    allow_insecure: bool = False,
    alternatives: Sequence[Split] = (),
    retry: RetryPolicy = USUAL_RETRY,
    connect_timeout_s: float = 5.0,
    timeout_s: float = 60.0,
) -> Iterator[EdgeClient]:
    """Opens a connection to the cloud half of the same split, and closes it again.

    The server is asked for its version, its splits and their tensors first. Proxies of the
    environment are ignored, because the times would be theirs.

    Args:
      split: with at least one crossing tensor.
      address: ``host:port`` of the server.
      link: imitated for every request; None leaves the connection as it is.
      security: certificates and token; None is plain text.
      allow_insecure: send in plain text to an address that is not loopback.
      alternatives: other saved splits of the same function: the server holds their cloud
        halves too. `EdgeClient.stream` switches between them by the measured bandwidth;
        one of which nothing crosses answers while the link is down.
      retry: how often to repeat what is safe to repeat, and when.
      connect_timeout_s: longest wait for the server's first answer.
      timeout_s: longest wait for one response.

    Yields:
      The client.

    Raises:
      InputError: the splits differ in their inputs or outputs, no tensor crosses the cut, or
        plain text would leave this machine unasked.
      ProtocolError: the server speaks another version or serves other splits.
      CloudUnavailableError: no server answers at ``address`` in time.
    """
    splits = (split, *alternatives)
    check_alike(splits)
    check_exposure(address, security, allow_insecure)
    with open_channel(address, splits, security, retry) as channel:
        client = EdgeClient(
            split=split,
            address=address,
            stub=pb2_grpc.SplitInferenceStub(channel),
            link=link,
            timeout_s=timeout_s,
            alternatives=tuple(alternatives),
            retry=retry,
            security=security,
        )
        client.check_server(connect_timeout_s)
        yield client


def check_alike(splits: Sequence[Split]) -> None:
    """Raises unless the splits have the same inputs and outputs, and one sends something.

    Args:
      splits: the plans of one client.

    Raises:
      InputError: they are not splits of one function, or none needs a server.
    """
    first = splits[0].manifest
    for split in splits:
        if (split.manifest.inputs, split.manifest.outputs) != (first.inputs, first.outputs):
            raise InputError(
                f"Split {split.manifest.split_id[:12]} has other inputs or outputs than split "
                f"{first.split_id[:12]}; expected plans of one function. Save them from one trace."
            )
    if not any(split.manifest.crossing for split in splits):
        raise InputError(
            f"Split {first.split_id[:12]} sends nothing: there is no cloud half to connect to. "
            "Call infer_on_edge, or give a split of which something crosses the cut."
        )
