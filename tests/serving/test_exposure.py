"""Settings of security that are refused before a file is read or a port is opened."""

import pathlib

import pytest

from autosplit.errors import InputError
from autosplit.serving import cloud_server, security
from autosplit.serving.security import ClientSecurity, ServerSecurity
from autosplit.serving.server_options import ServerOptions


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ServerSecurity, {"certificate": "a.pem"}),
        (ServerSecurity, {"key": "a.key"}),
        (ServerSecurity, {"client_ca": "a.pem"}),
        (ClientSecurity, {"certificate": "a.pem"}),
        (ClientSecurity, {"ca": "a.pem", "encrypted": False}),
        (ClientSecurity, {"token": "secret\n"}),
    ],
)
def test_half_a_setting_is_refused(kind, fields):
    with pytest.raises(InputError) as caught:
        kind(**fields)
    assert "secret" not in str(caught.value)


def test_a_token_is_not_shown():
    assert "secret" not in repr(ClientSecurity(token="secret"))


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "cloud.example:80", "192.168.0.2:80"])
def test_plain_text_leaves_the_machine_only_on_request(address):
    path = pathlib.Path("not read here")
    certified = {"certificate": path, "key": path}
    refused = (
        (None, "encryption and authentication"),
        (ServerSecurity(**certified), "authentication"),
        (ServerSecurity(tokens=path), "encryption"),
        (ClientSecurity(token="secret", encrypted=False), "encryption"),
    )
    for settings, lacking in refused:
        with pytest.raises(InputError, match=f"without {lacking}"):
            security.check_exposure(address, settings, allow_insecure=False)
        security.check_exposure(address, settings, allow_insecure=True)
        security.check_exposure("127.0.0.1:80", settings, allow_insecure=False)
    for settings in (
        ServerSecurity(**certified, tokens=path),
        ServerSecurity(**certified, client_ca=path),
        ClientSecurity(),
    ):
        security.check_exposure(address, settings, allow_insecure=False)


def test_a_server_is_not_exposed_unasked(split):
    everywhere = cloud_server.serving(split, "0.0.0.0:0")
    with pytest.raises(InputError, match=r"0\.0\.0\.0:0 can be reached"), everywhere:
        pass
    with cloud_server.serving(split, "0.0.0.0:0", ServerOptions(allow_insecure=True)):
        pass
