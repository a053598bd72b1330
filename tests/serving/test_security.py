import asyncio
import contextlib
import dataclasses
import datetime
import ipaddress
import logging
import os
import time
import types

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from autosplit.errors import CloudUnavailableError, InputError, ProtocolError
from autosplit.serving import cloud_server, edge_client, quotas, security, tokens
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving import split_inference_pb2_grpc as pb2_grpc
from autosplit.serving.logs import LOGGER
from autosplit.serving.security import ClientSecurity, ServerSecurity
from autosplit.serving.server_options import ServerOptions

pytest.importorskip("cryptography", reason="the certificates of these tests need cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

STATUS = grpc.StatusCode


class Authority:
    """Issues certificates for 127.0.0.1; ``pem`` holds its own."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = certificate_builder(name, name, self.key, days=1)
        own = builder.add_extension(constraints, critical=True).sign(self.key, hashes.SHA256())
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name, days=1):
        """Returns new PEM files, as fields of the dataclasses; ``days`` below 0 is expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(name)]
        )
        builder = certificate_builder(self.name, name, key, days)
        signed = builder.add_extension(address, critical=False).sign(self.key, hashes.SHA256())
        written = {
            "certificate": signed.public_bytes(serialization.Encoding.PEM),
            "key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        }
        paths = {kind: self.folder / f"{self.name}-{name}-{kind}.pem" for kind in written}
        for kind, path in paths.items():
            path.write_bytes(written[kind])
        return paths


def certificate_builder(issuer, subject, key, days):
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - datetime.timedelta(days=1))
        .not_valid_after(ends)
    )


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path):
    return Authority(tmp_path, "theirs")


async def say_who(request, context):
    return pb2.InferResponse(message=quotas.client_name(context))


async def say_who_of_each(requests, context):
    async for request in requests:
        message = quotas.client_name(context)
        yield pb2.InferResponse(request_id=request.request_id, message=message)


@contextlib.asynccontextmanager
async def running(settings):
    """Yields the address of a server that answers with the name of its client."""
    server = grpc.aio.server(interceptors=quotas.server_interceptors(settings, None))
    servicer = types.SimpleNamespace(Describe=None, Infer=say_who, InferStream=say_who_of_each)
    pb2_grpc.add_SplitInferenceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    credentials = security.server_credentials(settings)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def open_channel(address, client):
    # A channel of its own each time: gRPC would share the connection of an earlier one.
    options = (("grpc.use_local_subchannel_pool", 1),)
    credentials = security.channel_credentials(client)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


async def ask(address, client):
    """Returns the name that the server has for a client, or the status of its refusal."""
    token = client.token if client else None
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with open_channel(address, client) as channel:
        stub = pb2_grpc.SplitInferenceStub(channel)
        try:
            answer = await stub.Infer(pb2.InferRequest(), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return answer.message


def asked(server, *clients):
    async def ask_all():
        async with running(server) as address:
            return [await ask(address, client) for client in clients]

    return asyncio.run(ask_all())


# ---- Certificates


def test_a_client_of_the_right_authority_is_served(ours):
    server = ServerSecurity(**ours.issue("server"))
    (answer,) = asked(server, ClientSecurity(ca=ours.pem))
    assert answer.startswith("host:ipv4:127.0.0.1")


def test_a_server_of_another_authority_is_not_believed(ours, theirs):
    server = ServerSecurity(**theirs.issue("server"))
    assert asked(server, ClientSecurity(ca=ours.pem)) == [STATUS.UNAVAILABLE]


def test_an_expired_server_is_not_believed(ours):
    server = ServerSecurity(**ours.issue("server", days=-1))
    assert asked(server, ClientSecurity(ca=ours.pem)) == [STATUS.UNAVAILABLE]


def test_plain_text_does_not_reach_an_encrypted_server(ours):
    assert asked(ServerSecurity(**ours.issue("server")), None) == [STATUS.UNAVAILABLE]


def test_only_clients_of_the_authority_get_past_mutual_tls(ours, theirs):
    server = ServerSecurity(**ours.issue("server"), client_ca=ours.pem)
    good, expired = ours.issue("edge"), ours.issue("old", days=-1)
    none, right, wrong, old = asked(
        server,
        ClientSecurity(ca=ours.pem),
        ClientSecurity(ca=ours.pem, **good),
        ClientSecurity(ca=ours.pem, **theirs.issue("edge")),
        ClientSecurity(ca=ours.pem, **expired),
    )
    assert right == "certificate:127.0.0.1,edge"
    assert none == wrong == old == STATUS.UNAVAILABLE


@pytest.fixture
def events():
    """Yields what is logged, also where another test has sent the logs elsewhere."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield found
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def test_a_renewed_certificate_is_used_without_a_restart(ours, theirs, events):
    server = ServerSecurity(**ours.issue("server"))
    renewed = theirs.issue("server")

    async def renew():
        async with running(server) as address:
            before = [await ask(address, ClientSecurity(ca=who.pem)) for who in (ours, theirs)]
            os.replace(renewed["certificate"], server.certificate)  # half of a renewal
            between = await ask(address, ClientSecurity(ca=ours.pem))
            os.replace(renewed["key"], server.key)
            after = [await ask(address, ClientSecurity(ca=who.pem)) for who in (ours, theirs)]
        return before, between, after

    before, between, after = asyncio.run(renew())
    assert before == [between, STATUS.UNAVAILABLE]
    assert after == [STATUS.UNAVAILABLE, between]
    assert "certificates kept as they were" in events
    assert "certificates read again" in events


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca"])
def test_files_that_do_not_fit_are_refused_at_the_start(ours, tmp_path, broken):
    server = ServerSecurity(**ours.issue("server"), client_ca=ours.pem)
    security.server_credentials(server)
    other = ours.issue("other")["key"] if broken == "key" else tmp_path / "text.pem"
    if broken != "key":
        other.write_text("no certificate")
    for path in (other, tmp_path / "missing.pem"):
        with pytest.raises(InputError, match=r"cannot be (used|read)"):
            security.server_credentials(dataclasses.replace(server, **{broken: path}))


def test_a_client_is_told_which_file_does_not_fit(ours, tmp_path):
    for client in (
        ClientSecurity(ca=tmp_path / "missing.pem"),
        ClientSecurity(certificate=ours.pem, key=ours.issue("edge")["key"]),
    ):
        with pytest.raises(InputError, match="cannot be used"):
            security.channel_credentials(client)


# ---- Tokens


def written(path, *names):
    """Writes a file of tokens; returns the tokens."""
    made = [tokens.new_token(name) for name in names]
    path.write_text("# who may call\n\n" + "".join(line for _, line in made))
    return [token for token, _ in made]


def plain(token):
    return ClientSecurity(token=token, encrypted=False)


def test_a_token_says_who_calls(tmp_path, ours):
    path = tmp_path / "tokens"
    first, second = written(path, "first", "second")
    wrong = tokens.new_token("first")[0]
    clients = [plain(first), plain(second), plain(wrong), plain(first[:-1]), None]
    no = STATUS.UNAUTHENTICATED
    answers = asked(ServerSecurity(tokens=path), *clients)
    assert answers == ["token:first", "token:second", no, no, no]
    encrypted = ServerSecurity(**ours.issue("server"), tokens=path)
    clients = [ClientSecurity(ca=ours.pem, token=token) for token in (first, wrong)]
    assert asked(encrypted, *clients) == ["token:first", no]


def test_tokens_are_given_and_taken_without_a_restart(tmp_path, events):
    path = tmp_path / "tokens"
    (old,) = written(path, "old")

    async def change():
        async with running(ServerSecurity(tokens=path)) as address:
            answers = [await ask(address, plain(old))]
            (new,) = written(path, "new")
            answers += [await ask(address, plain(token)) for token in (old, new)]
            path.write_text("half a li")
            answers.append(await ask(address, plain(new)))
        return answers

    no = STATUS.UNAUTHENTICATED
    assert asyncio.run(change()) == ["token:old", no, "token:new", "token:new"]
    assert "tokens kept as they were" in events


def test_a_refused_stream_ends_before_its_first_message(tmp_path):
    path = tmp_path / "tokens"
    (token,) = written(path, "edge")

    async def streams():
        async with running(ServerSecurity(tokens=path)) as address, open_channel(
            address, None
        ) as channel:
            stub = pb2_grpc.SplitInferenceStub(channel)
            refused = await stub.InferStream(timeout=10).code()
            header = (("authorization", f"bearer {token}"),)
            call = stub.InferStream(timeout=10, metadata=header)
            await call.write(pb2.InferRequest(request_id=3))
            return refused, await call.read()

    refused, answer = asyncio.run(streams())
    assert refused is STATUS.UNAUTHENTICATED
    assert (answer.request_id, answer.message) == (3, "token:edge")


def test_health_is_told_without_a_token(tmp_path):
    path = tmp_path / "tokens"
    written(path, "edge")

    async def check():
        async with running(ServerSecurity(tokens=path)) as address, open_channel(
            address, None
        ) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)

    assert asyncio.run(check()).status == health_pb2.HealthCheckResponse.SERVING


def test_a_server_does_not_start_without_its_tokens(tmp_path):
    missing = ServerSecurity(tokens=tmp_path / "missing")
    with pytest.raises(InputError, match="missing cannot be read"):
        quotas.server_interceptors(missing, None)


# ---- The whole way


def test_both_sides_secured_give_the_outputs_and_others_get_none(split, images, ours, tmp_path):
    path = tmp_path / "tokens"
    (token,) = written(path, "edge")
    server = ServerSecurity(**ours.issue("server"), client_ca=ours.pem, tokens=path)
    client = ClientSecurity(ca=ours.pem, **ours.issue("edge"), token=token)
    refusals = (
        (ClientSecurity(ca=ours.pem, token=token), CloudUnavailableError),
        (dataclasses.replace(client, **ours.issue("old", days=-1)), CloudUnavailableError),
        (None, CloudUnavailableError),
        (dataclasses.replace(client, token=tokens.new_token("edge")[0]), ProtocolError),
        (dataclasses.replace(client, token=None), ProtocolError),
    )
    options = ServerOptions(security=server)
    with cloud_server.serving(split, options=options) as address:
        with edge_client.connect(split, address, security=client) as connected:
            outputs, _ = connected.infer(images)
            streamed = [answer.outputs for answer in connected.stream([images] * 3)]
        for wrong, kind in refusals:
            with pytest.raises(kind), edge_client.connect(
                split, address, security=wrong, connect_timeout_s=0.5
            ):
                pass
    expected = split.cloud_outputs(split.edge_layers(images))
    assert len(streamed) == 3
    for answer in (outputs, *streamed):
        for got, want in zip(answer, expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_client_over_its_quota_is_late_and_loses_nothing(split, images):
    options = ServerOptions(quotas=quotas.Quotas(requests_per_s=20, burst_s=0.1))
    with (
        cloud_server.serving(split, options=options) as address,
        edge_client.connect(split, address) as client,
    ):
        started_s = time.monotonic()
        for _ in range(4):
            client.infer(images)
        answers = list(client.stream([images] * 6))
        took_s = time.monotonic() - started_s
    assert len(answers) == 6
    assert took_s >= (10 - 2) / 20 - 0.01
