"""The flags of serve_cloud become the server's options."""

import importlib
import pathlib

import pytest
from absl import flags

from autosplit.errors import InputError
from autosplit.serving.quotas import Quotas
from autosplit.serving.security import ServerSecurity
from autosplit.serving.server_options import ServerOptions


@pytest.fixture
def options_for(monkeypatch):
    """Returns a function from the command line to the options."""
    program = importlib.import_module("experiments.serve_cloud")
    values = flags.FlagValues()
    monkeypatch.setattr(program.flags, "FLAGS", values)
    for kind in ("string", "integer", "float", "bool", "enum"):
        define = getattr(flags, f"DEFINE_{kind}")
        monkeypatch.setattr(
            program.flags, f"DEFINE_{kind}",
            lambda *given, define=define, **named: define(*given, flag_values=values, **named),
        )  # fmt: skip
    program.define_flags()

    def parse(*arguments):
        values(["serve_cloud", "--split=x", *arguments])
        return program.options_of(values)

    return parse


def test_without_flags_the_options_are_the_defaults(options_for):
    assert options_for() == ServerOptions()


def test_every_flag_reaches_its_option(options_for):
    found = options_for(
        "--certificate=c.pem", "--key=k.pem", "--client_ca=a.pem", "--tokens=t", "--max_batch=2",
        "--queue=3", "--drain_s=4", "--devices=1", "--requests_per_s=5", "--bytes_per_s=6",
        "--metrics_address=127.0.0.1:0", "--allow_insecure",
    )  # fmt: skip
    files = {"certificate": "c.pem", "key": "k.pem", "client_ca": "a.pem", "tokens": "t"}
    assert found == ServerOptions(
        security=ServerSecurity(**{name: pathlib.Path(path) for name, path in files.items()}),
        quotas=Quotas(requests_per_s=5, bytes_per_s=6),
        max_batch=2, queue=3, drain_s=4, devices=1, metrics_address="127.0.0.1:0",
        allow_insecure=True,
    )  # fmt: skip


def test_half_of_a_certificate_is_refused(options_for):
    with pytest.raises(InputError, match="both or neither"):
        options_for("--certificate=c.pem")
