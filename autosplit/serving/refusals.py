"""Refusals: why a server does not answer a request, and when to try again."""

from __future__ import annotations

import grpc

from autosplit.errors import AutosplitError, ProtocolError
from autosplit.serving import protocol


class RequestRefusedError(AutosplitError):
    """A well-formed request that the server does not compute; nothing of it is kept.

    Attributes:
      status: gRPC status of the answer.
      retry_after_s: when the same request may be sent again; 0 where that does not help.
    """

    status = grpc.StatusCode.UNAVAILABLE

    def __init__(self, message: str, retry_after_s: float = 0.0):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(RequestRefusedError):
    """More requests wait than the server's bound."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class DrainingError(RequestRefusedError):
    """The server stops: it ends what it accepted and accepts nothing more."""


class DeadlinePassedError(RequestRefusedError):
    """The client's deadline passed while the request waited; it was not computed."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


def refusal(error: Exception) -> tuple[grpc.StatusCode, str, float]:
    """Returns what a client is told of an error: status, words, seconds until a retry.

    Words of an unforeseen error stay in the server's log: they may hold paths or data.

    >>> status, words, retry_after_s = refusal(QueueFullError("256 requests wait.", 0.5))
    >>> status.name, words, retry_after_s
    ('RESOURCE_EXHAUSTED', '256 requests wait.', 0.5)
    >>> refusal(ValueError("/home/me"))[0].name
    'INTERNAL'

    Args:
      error: raised while a request was checked or computed.

    Returns:
      gRPC status code, message, and ``retry_after_s``.
    """
    if isinstance(error, RequestRefusedError):
        return error.status, str(error), error.retry_after_s
    if isinstance(error, ProtocolError):
        return protocol.status(error), str(error), 0.0
    words = "The server failed while it computed this request. Its log says why."
    return grpc.StatusCode.INTERNAL, words, 0.0
