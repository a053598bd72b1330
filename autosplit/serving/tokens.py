"""Bearer tokens: a file of names and digests, and the interceptor that asks for one of them.

The file holds no secret, only the SHA-256 of each, so whoever reads it cannot call:

    # name  SHA-256 of the token
    camera-1  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

A token is 32 random bytes (`new_token`): a digest needs no salt where nobody can guess. The
file is read again once it has changed: a call with a token that was deleted is refused from
then on, while a stream that is open goes on until it ends.
"""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import logging
import pathlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc

from autosplit.errors import InputError
from autosplit.serving.logs import log
from autosplit.serving.security import stamp

_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SCHEME = "bearer "

OPEN_SERVICES = ("/grpc.health.v1.Health/",)
"""Methods that need no token: what a load balancer asks. They say nothing but up or down."""

CALLER: contextvars.ContextVar[str | None] = contextvars.ContextVar("caller", default=None)
"""Name of the token with which the present call was made; None without tokens."""


def new_token(name: str) -> tuple[str, str]:
    """Returns a new token for a client, and the line for the server's file.

    >>> token, line = new_token("camera-1")
    >>> len(token), line.split()[0], token in line
    (43, 'camera-1', False)

    Args:
      name: of the client: 1 to 64 letters, digits or ``. _ - @``.

    Raises:
      InputError: another name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"The client's name is {name!r}; expected 1 to 64 letters, digits or . _ - @. Choose "
            "another name."
        )
    token = secrets.token_urlsafe(32)
    return token, f"{name}  {_digest(token)}\n"


def read_tokens(path: pathlib.Path) -> Mapping[str, str]:
    """Reads a file of tokens.

    Args:
      path: lines of ``name digest``; empty ones and those with ``#`` in front are skipped.

    Returns:
      Name -> SHA-256 of the token, hexadecimal.

    Raises:
      InputError: unreadable, a line of another form, or a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a file of tokens. Check its path."
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or line.lstrip().startswith("#"):
            continue
        fits = len(fields) == 2 and _NAME.fullmatch(fields[0]) and _DIGEST.fullmatch(fields[1])
        if not fits or fields[0] in found:  # the line itself may hold a secret: it is not shown
            raise InputError(
                f"{path}:{number} is no line of a file of tokens, or a name that was there "
                "before; expected a new name and the SHA-256 of its token. Take the line that "
                "`new_token` gives."
            )
        found[fields[0]] = fields[1]
    return found


def caller_of(header: str, digests: Mapping[str, str]) -> str | None:
    """Returns whose token a header holds.

    Every digest is compared, each in constant time, so the time says neither how much of a
    token was right nor whose it was.

    >>> caller_of("Bearer secret", {"me": hashlib.sha256(b"secret").hexdigest()})
    'me'

    Args:
      header: the value of ``authorization``.
      digests: from `read_tokens`.

    Returns:
      The name; None for a wrong token or none.
    """
    found = None
    if header[: len(_SCHEME)].lower() == _SCHEME:
        digest = _digest(header[len(_SCHEME) :].strip())
        for name, expected in digests.items():
            if hmac.compare_digest(digest, expected):
                found = name
    return found


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Answers calls without a known token with UNAUTHENTICATED, and names the caller of others.

    Args:
      path: file of tokens.
      open_services: beginnings of the methods that need none.
    """

    def __init__(self, path: pathlib.Path, open_services: Sequence[str] = OPEN_SERVICES):
        self.path = path
        self.open_services = tuple(open_services)
        self._stamp = stamp(path)
        self._digests = read_tokens(path)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Sets `CALLER` and goes on, or refuses."""
        if handler_call_details.method.startswith(self.open_services):
            return await continuation(handler_call_details)
        headers = [
            str(value)
            for key, value in handler_call_details.invocation_metadata
            if key == "authorization"
        ]
        caller = caller_of(headers[0], self._current()) if len(headers) == 1 else None
        if caller is None:
            return _REFUSING
        CALLER.set(caller)
        return await continuation(handler_call_details)

    def _current(self) -> Mapping[str, str]:
        """Returns the digests as the file has them; a file that is no good changes nothing."""
        try:
            found = stamp(self.path)
            if found != self._stamp:
                self._digests, self._stamp = read_tokens(self.path), found
                log(logging.INFO, "tokens read again", path=str(self.path),
                    clients=sorted(self._digests))  # fmt: skip
        except InputError as error:
            log(logging.WARNING, "tokens kept as they were", reason=str(error))
        return self._digests


async def _refuse(requests: Any, context: grpc.aio.ServicerContext) -> None:
    """Ends the call before any of its messages is read."""
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "The call has no token that this server knows; expected the metadata `authorization: "
        "Bearer TOKEN`. Ask who runs the server for a token.",
    )


# Of a streaming kind whatever was called, so that a refusal does not wait for a message.
_REFUSING = grpc.stream_stream_rpc_method_handler(_refuse)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
