"""The edge side of the demonstration: one frame through the split, and through cloud-only JPEG."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
import PIL.Image

import autosplit
from autosplit.data import COCO_NAMES
from autosplit.errors import CloudUnavailableError, ProtocolError
from autosplit.hardware import Network
from autosplit.serving import codec, retries
from autosplit.serving.coding import CodingCost, fastest_coding, measure_codings
from autosplit.serving.edge_client import EdgeClient, connect
from autosplit.serving.link import steady_conditions
from autosplit.serving.shaper import ShapedProxy, shaping
from experiments.face_demo_detector import scaled
from experiments.face_demo_plans import PlanSet
from experiments.face_demo_state import Found, FrameResult, Settings

ANSWER_S = 30.0
"""Longest wait for one answer of the cloud."""
CODING_SAMPLES = 4


class Pane(Protocol):
    """One of the two solutions."""

    @property
    def name(self) -> str: ...

    def detect(self, image: np.ndarray, settings: Settings) -> FrameResult: ...


class ShapedLink:
    """A proxy whose uplink follows the settings, and what it carried."""

    def __init__(self, proxy: ShapedProxy, network: Network) -> None:
        self._proxy, self.network = proxy, network

    def follow(self, settings: Settings) -> None:
        """Gives the uplink the rate that is set."""
        if settings.uplink_bits_per_s != self.network.uplink_bits_per_s:
            self.network = dataclasses.replace(
                self.network, uplink_bits_per_s=settings.uplink_bits_per_s
            )
            self._proxy.reshape(steady_conditions(self.network))

    def carried(self) -> np.ndarray:
        """Returns the bytes so far, up and down."""
        traffic = self._proxy.traffic()
        return np.array([traffic.uplink_bytes, traffic.downlink_bytes])

    def stages_s(self, carried: np.ndarray, waited_s: float) -> dict[str, float]:
        """Divides the time of a call: what the link takes for its bytes, and the rest.

        Args:
          carried: bytes of the call, up and down.
          waited_s: for its answer, without what the cloud computed.
        """
        network = self.network
        down_bits_per_s = network.downlink_bits_per_s or network.uplink_bits_per_s
        link_s = {
            "uplink": float(carried[0]) * 8 / network.uplink_bits_per_s,
            "round_trip": network.round_trip_s,
            "downlink": float(carried[1]) * 8 / down_bits_per_s,
        }
        return {**link_s, "rest": max(waited_s - sum(link_s.values()), 0.0)}


@contextlib.contextmanager
def linked(address: str, network: Network) -> Iterator[tuple[str, ShapedLink]]:
    """Puts a link before a server; yields the address to connect to, and the link."""
    with shaping(address, steady_conditions(network)) as proxy:
        yield proxy.address, ShapedLink(proxy, network)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPane:
    """Runs the plan of the present rate.

    Attributes:
      plans: of all rates.
      splits: with their edge halves, by folder.
      clients: connected, by folder.
      codings: what lossless coding takes and gives, by folder.
      link: before the server.
    """

    plans: PlanSet
    splits: Mapping[str, autosplit.Split]
    clients: Mapping[str, EdgeClient]
    codings: Mapping[str, Sequence[CodingCost]]
    link: ShapedLink
    name: str = "split"

    def detect(self, image: np.ndarray, settings: Settings) -> FrameResult:
        """Returns what the split finds in u8[H, W, 3].

        Raises:
          AutosplitError: the cloud does not answer, or not as expected.
        """
        index = self.plans.index_at(settings.uplink_bits_per_s)
        folder = self.plans.rates[index].folder
        split, client = self.splits[folder], self.clients[folder]
        self.link.follow(settings)
        coding = fastest_coding(self.codings[folder], settings.uplink_bits_per_s / 8).coding
        before = self.link.carried()
        started_s = time.perf_counter()
        codes = jax.block_until_ready(split.edge_layers(scaled(image)[None]))
        computed_s = time.perf_counter()
        payload = split.pack(codes)
        request = codec.encode_request(
            split.manifest, payload, client.client_id, next(client.request_ids), coding
        )
        packed_s = time.perf_counter()
        response = retries.call(
            client.stub.Infer, request, address=client.address,
            timeout_s=client.timeout_s, policy=client.retry,
        )  # fmt: skip
        answered_s = time.perf_counter()
        outputs = codec.decode_response(split.manifest, response)
        server_s = response.queue_s + response.unpack_s + response.cloud_s
        wire = self.link.stages_s(self.link.carried() - before, answered_s - packed_s - server_s)
        return FrameResult(
            found=found_objects(outputs, image.shape),
            stages_s={
                "edge": computed_s - started_s,
                "pack": packed_s - computed_s,
                "unpack": response.unpack_s,
                "cloud": response.cloud_s,
                **wire,
                "rest": wire["rest"] + response.queue_s,
            },
            sent_bytes=int((self.link.carried() - before)[0]),
            payload_bytes=sum(len(tensor.data) for tensor in request.tensors),
            plan=index,
        )


@contextlib.contextmanager
def open_split_pane(
    plans: PlanSet,
    splits: Mapping[str, autosplit.Split],
    address: str,
    network: Network,
    samples: np.ndarray,
) -> Iterator[SplitPane]:
    """Connects to the server of the splits over a shaped link.

    Args:
      plans, splits: see `SplitPane`.
      address: of the server.
      network: of the link at first.
      samples: u8[N, H, W, 3], frames on which lossless coding is measured.

    Raises:
      AutosplitError: the server does not answer, or serves other splits.
    """
    codings = {
        folder: measure_codings([
            split.edge(scaled(sample)[None]) for sample in samples[:CODING_SAMPLES]
        ])
        for folder, split in splits.items()
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        shaped, link = stack.enter_context(linked(address, network))
        clients = {
            folder: stack.enter_context(connect(split, shaped, timeout_s=ANSWER_S))
            for folder, split in splits.items()
        }
        yield SplitPane(plans=plans, splits=splits, clients=clients, codings=codings, link=link)


class PicturePane:
    """Sends a JPEG of the frame, which the cloud decodes and runs the whole network on."""

    name = "cloud"

    def __init__(self, address: str, link: ShapedLink) -> None:
        self._link = link
        self._connection = http.client.HTTPConnection(address, timeout=ANSWER_S)

    def detect(self, image: np.ndarray, settings: Settings) -> FrameResult:
        """Returns what the cloud finds in u8[H, W, 3].

        Raises:
          CloudUnavailableError: it does not answer.
          ProtocolError: it answers something else.
        """
        self._link.follow(settings)
        before = self._link.carried()
        started_s = time.perf_counter()
        picture = jpeg_bytes(image, settings.jpeg_quality)
        encoded_s = time.perf_counter()
        answer = self._ask(picture)
        answered_s = time.perf_counter()
        server_s = answer["decode_s"] + answer["cloud_s"]
        carried = self._link.carried() - before
        return FrameResult(
            found=found_objects([np.asarray(one) for one in answer["outputs"]], image.shape),
            stages_s={
                "edge": 0.0,
                "pack": encoded_s - started_s,
                "unpack": answer["decode_s"],
                "cloud": answer["cloud_s"],
                **self._link.stages_s(carried, answered_s - encoded_s - server_s),
            },
            sent_bytes=int(carried[0]),
            payload_bytes=len(picture),
        )

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _ask(self, picture: bytes) -> Any:
        try:
            self._connection.request("POST", "/", picture, {"Content-Type": "image/jpeg"})
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next frame opens another
            raise CloudUnavailableError(
                f"The cloud process did not answer a picture ({error!r}); expected its boxes "
                f"within {ANSWER_S:g} s. Start the demonstration again if it has ended."
            ) from error
        except ValueError as error:
            self._connection.close()
            raise ProtocolError(f"The cloud's answer is no JSON ({error}).") from error
        if response.status != 200:
            raise ProtocolError(
                f"The cloud refused a picture with the status {response.status}: "
                f"{answer.get('error')}"
            )
        return answer


def jpeg_bytes(image: np.ndarray, quality: int) -> bytes:
    """Returns u8[H, W, 3] as Pillow's JPEG.

    >>> len(jpeg_bytes(np.zeros((64, 64, 3), np.uint8), 75)) < 1000
    True
    """
    target = io.BytesIO()
    PIL.Image.fromarray(image).save(target, "JPEG", quality=quality)
    return target.getvalue()


def found_objects(outputs: Sequence[Any], shape: Sequence[int]) -> list[Found]:
    """Returns the objects of one image.

    Args:
      outputs: of the detector for a batch of one: boxes f32[1, n, 4] in pixels, scores, classes,
        and which places hold an object.
      shape: of the image, (H, W, 3).
    """
    boxes, scores, classes, valid = (np.asarray(output)[0] for output in outputs)
    height, width = shape[:2]
    relative = np.clip(boxes / np.array([width, height, width, height]), 0, 1)
    return [
        Found(
            name=COCO_NAMES[int(classes[index])],
            score=float(scores[index]),
            box=tuple(relative[index].tolist()),
        )
        for index in np.flatnonzero(valid)
    ]

