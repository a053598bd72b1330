"""Channels: connections of the edge to a server, and whose calls they carry."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from autosplit.execution.halves import Split
from autosplit.serving import codec
from autosplit.serving.retries import Metadata, RetryPolicy
from autosplit.serving.security import ClientSecurity, channel_credentials


def open_channel(
    address: str,
    splits: Sequence[Split],
    security: ClientSecurity | None,
    retry: RetryPolicy,
) -> grpc.Channel:
    """Returns a channel with a connection of its own.

    gRPC would share one connection among the channels of a process, and then a new
    channel would wait for the dead connection of the old one. Proxies of the environment are
    ignored, because the times would be theirs.

    Args:
      address: ``host:port``.
      splits: whose messages it carries; a longer one is refused before it is parsed.
      security: certificates; None is plain text.
      retry: how long to wait before connecting again.
    """
    # The description of a split names both.
    limit_bytes = max(
        codec.message_limit_bytes((*one.manifest.crossing, *one.manifest.outputs))
        for one in splits
    )
    options = (
        ("grpc.max_receive_message_length", limit_bytes),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", max(100, round(retry.first_s * 1e3))),
        ("grpc.min_reconnect_backoff_ms", 1000),  # it also bounds one attempt to connect
        ("grpc.max_reconnect_backoff_ms", max(100, round(retry.longest_s * 1e3))),
    )
    credentials = channel_credentials(security)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def call_metadata(security: ClientSecurity | None) -> Metadata:
    """Returns the metadata of every call: the client's token, where it has one."""
    if security is None or security.token is None:
        return ()
    return (("authorization", f"Bearer {security.token}"),)
