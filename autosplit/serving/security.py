"""TLS and who may connect: certificates and tokens of a server and of its clients.

Plain text is for loopback. `check_exposure` refuses it anywhere else, on both sides,
unless the caller asks for it. Certificates are PEM files; a server reads them anew for the
next connection after they have changed, so a renewed certificate needs no restart.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import pathlib
import ssl
from collections.abc import Sequence

import grpc

from autosplit.errors import InputError
from autosplit.serving.logs import log


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSecurity:
    """What a server proves to its clients, and what it asks of them.

    Attributes:
      certificate: PEM file with the server's chain, its own certificate first; None serves in
        plain text.
      key: PEM file with its private key, not encrypted.
      client_ca: PEM file; only clients with a certificate of this authority may connect.
      tokens: file of `autosplit.serving.tokens`; only calls with a token of it are answered.
    """

    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None
    client_ca: pathlib.Path | None = None
    tokens: pathlib.Path | None = None

    def __post_init__(self) -> None:
        _check_pair("ServerSecurity", self.certificate, self.key)
        if self.client_ca is not None and self.certificate is None:
            raise InputError(
                f"ServerSecurity has the client authority {self.client_ca} and no certificate; "
                "clients prove themselves only inside TLS. Give certificate and key."
            )

    @property
    def encrypted(self) -> bool:
        """Whether connections are encrypted."""
        return self.certificate is not None

    @property
    def authenticated(self) -> bool:
        """Whether a client must prove who it is."""
        return self.client_ca is not None or self.tokens is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientSecurity:
    """What a client asks of its server, and what it proves to it.

    Attributes:
      ca: PEM file with the authority of the server's certificate; None takes those of the system.
      certificate, key: PEM files of the client, for a server with a ``client_ca``.
      token: sent with every call; never shown by ``repr``.
      encrypted: False for plain text with a token, which `check_exposure` keeps to loopback.
    """

    ca: pathlib.Path | None = None
    certificate: pathlib.Path | None = None
    key: pathlib.Path | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    encrypted: bool = True

    def __post_init__(self) -> None:
        _check_pair("ClientSecurity", self.certificate, self.key)
        if not self.encrypted and (self.ca or self.certificate):
            raise InputError(
                f"ClientSecurity names certificates ({self.ca or self.certificate}) and is not "
                "encrypted; expected one or the other. Leave `encrypted` out."
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise InputError(
                "The token holds characters that gRPC cannot send; expected printable ASCII. Take "
                "the token as `new_token` gave it, without the line end."
            )


def server_credentials(security: ServerSecurity) -> grpc.ServerCredentials | None:
    """Returns the credentials of a server's port; they follow changes of the files.

    Args:
      security: of the server.

    Returns:
      For ``add_secure_port``; None where the server is to listen in plain text.

    Raises:
      InputError: a file is missing, is no PEM, or the key is not the certificate's.
    """
    if security.certificate is None or security.key is None:
        return None
    watched = _Certificates(security)
    return grpc.dynamic_ssl_server_credentials(
        watched.current, watched.renewed, require_client_authentication=bool(security.client_ca)
    )


def channel_credentials(security: ClientSecurity | None) -> grpc.ChannelCredentials | None:
    """Returns the credentials of a client's channel.

    The token is not among them: it is metadata of each call.

    >>> channel_credentials(None) is None
    True

    Args:
      security: of the client; None is plain text without a token.

    Returns:
      For ``secure_channel``; None where the channel is to be plain text.

    Raises:
      InputError: a file is missing, is no PEM, or the key is not the certificate's.
    """
    if security is None or not security.encrypted:
        return None
    _check_files(security.certificate, security.key, security.ca)
    return grpc.ssl_channel_credentials(
        root_certificates=_read(security.ca),
        private_key=_read(security.key),
        certificate_chain=_read(security.certificate),
    )


def check_exposure(
    address: str, security: ServerSecurity | ClientSecurity | None, allow_insecure: bool
) -> None:
    """Raises if an address other than loopback would be used without protection.

    A client needs encryption there; a server also needs to know who its clients are.

    >>> check_exposure("127.0.0.1:8470", None, allow_insecure=False)
    >>> check_exposure("0.0.0.0:8470", None, allow_insecure=True)
    >>> check_exposure("0.0.0.0:8470", None, allow_insecure=False)
    Traceback (most recent call last):
    autosplit.errors.InputError: 0.0.0.0:8470 can be reached from other machines, ...

    Args:
      address: ``host:port`` that a server listens on, or that a client connects to.
      security: of that side.
      allow_insecure: whether the user asked for it.

    Raises:
      InputError: not loopback, not protected, and not asked for.
    """
    if allow_insecure or is_loopback(address):
        return
    lacks = []
    if security is None or not security.encrypted:
        lacks.append("encryption")
    if not isinstance(security, ClientSecurity) and not (security and security.authenticated):
        lacks.append("authentication of clients")
    if lacks:
        raise InputError(
            f"{address} can be reached from other machines, without {' and '.join(lacks)}; "
            "expected certificates, and tokens or a client authority, or an address on loopback. "
            "Give them, or ask for an insecure connection explicitly."
        )


def is_loopback(address: str) -> bool:
    """Returns whether only this machine can be at the other end of an address.

    Names other than ``localhost`` are not resolved: what they mean may change.

    >>> [is_loopback(a) for a in ("localhost:1", "127.0.0.2:1", "[::1]:1", "unix:/tmp/a")]
    [True, True, True, True]
    >>> [is_loopback(a) for a in ("0.0.0.0:1", "[::]:1", "localhost.example:1", "10.0.0.1:1", "")]
    [False, False, False, False, False]

    Args:
      address: ``host:port``, or gRPC's ``unix:path``.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Certificates:
    """The server's certificates as they are on disk, read when a connection comes in."""

    def __init__(self, security: ServerSecurity):
        self._security = security
        self._stamp = self._stamps()
        self.current = self._load()

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns new certificates for the next handshake; None where none have changed.

        Files that do not fit each other, as in the middle of a renewal, change nothing.
        """
        try:
            stamp = self._stamps()
            if stamp == self._stamp:
                return None
            self.current = self._load()
            self._stamp = stamp
        except (InputError, OSError) as error:
            log(logging.WARNING, "certificates kept as they were", reason=str(error))
            return None
        log(logging.INFO, "certificates read again", path=str(self._security.certificate))
        return self.current

    def _load(self) -> grpc.ServerCertificateConfiguration:
        security = self._security
        _check_files(security.certificate, security.key, security.client_ca)
        pair = (_read(security.key), _read(security.certificate))
        return grpc.ssl_server_certificate_configuration([pair], _read(security.client_ca))

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        security = self._security
        paths = (security.certificate, security.key, security.client_ca)
        return tuple(stamp(path) for path in paths if path is not None)


def stamp(path: pathlib.Path) -> tuple[int, int, int]:
    """Returns what differs once a file was written again or replaced.

    Raises:
      InputError: the file is missing.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _check_pair(owner: str, certificate: pathlib.Path | None, key: pathlib.Path | None) -> None:
    if (certificate is None) != (key is None):
        raise InputError(
            f"{owner} has the certificate {certificate} and the key {key}; expected both or "
            "neither. Give the file that is missing."
        )


def _check_files(
    certificate: pathlib.Path | None, key: pathlib.Path | None, authority: pathlib.Path | None
) -> None:
    """Raises where gRPC would only fail, without words, at the first handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key, password="")
        if authority is not None:
            context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        names: Sequence[str] = [str(path) for path in (certificate, key, authority) if path]
        raise InputError(
            f"{', '.join(names)} cannot be used ({error}); expected PEM files: a certificate, its "
            "own key without a password, and the authority of the other side. Check the paths."
        ) from error


def _read(path: pathlib.Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path | None, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read ({error}); expected a file. Check its path.")
