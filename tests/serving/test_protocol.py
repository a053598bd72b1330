import dataclasses

import pytest

from autosplit.errors import ArtefactError, ProtocolError
from autosplit.hardware.network import Network
from autosplit.serving import protocol
from autosplit.serving import split_inference_pb2 as pb2
from autosplit.serving.link import plan_network

UNKNOWN_FIELD = b"\xa0\x06\x01"  # field 100, a varint of value 1


@pytest.mark.parametrize("version", [0, protocol.PROTOCOL_VERSION + 1, 2**32 - 1])
def test_any_other_version_is_refused(version):
    protocol.check_version(protocol.PROTOCOL_VERSION, "client")
    with pytest.raises(protocol.UnknownVersionError, match=f"version {version}; .*same version"):
        protocol.check_version(version, "client")


@pytest.mark.parametrize("split_id", ["", "cd" * 32, "AB" * 32])
def test_any_other_split_is_refused(split, split_id):
    protocol.check_split_id("ab" * 32, split.manifest, "client")
    with pytest.raises(protocol.UnknownSplitError, match="same saved split"):
        protocol.check_split_id(split_id, split.manifest, "client")


def test_unknown_fields_are_refused_at_any_depth():
    known = pb2.InferRequest(protocol_version=2, tensors=[pb2.Tensor(name="a")])
    protocol.check_fields(known, "client")
    outer = pb2.InferRequest.FromString(known.SerializeToString() + UNKNOWN_FIELD)
    with pytest.raises(ProtocolError, match=r"InferRequest .*unknown fields \[100\]"):
        protocol.check_fields(outer, "client")
    tensor = pb2.Tensor.FromString(known.tensors[0].SerializeToString() + UNKNOWN_FIELD)
    inner = pb2.InferRequest(tensors=[pb2.Tensor(name="b"), tensor])
    with pytest.raises(ProtocolError, match=r"Tensor .*unknown fields \[100\]"):
        protocol.check_fields(inner, "client")


def another(manifest, **changes):
    return dataclasses.replace(manifest, **changes)


def test_a_description_fits_every_manifest_that_it_was_made_of(split):
    other = another(split.manifest, split_id="0f" * 32, crossing=split.manifest.crossing[:1])
    described = protocol.describe([split.manifest, other])
    received = pb2.DescribeResponse.FromString(described.SerializeToString())
    assert [one.split_id for one in received.splits] == ["0f" * 32, "ab" * 32]
    for manifest in (split.manifest, other):
        protocol.check_description(received, manifest)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"protocol_version": 7}, protocol.UnknownVersionError, "version 7"),
        ({"split_id": "cd" * 32}, protocol.UnknownSplitError, "1 splits .'cdcd.*expected abab"),
        ({"crossing": [pb2.TensorSpec(name="x")]}, ProtocolError, "'relu, mean, x' cross there"),
        ({"outputs": [pb2.TensorSpec(name="more")]}, ProtocolError, "describes other tensors"),
    ],
)
def test_another_description_is_refused(split, change, kind, words):
    response = protocol.describe([split.manifest])
    version = change.pop("protocol_version", protocol.PROTOCOL_VERSION)
    response.protocol_version = version
    response.splits[0].MergeFrom(pb2.SplitDescription(**change))
    with pytest.raises(kind, match=words):
        protocol.check_description(response, split.manifest)


def test_a_server_without_splits_serves_none(split):
    with pytest.raises(protocol.UnknownSplitError, match=r"0 splits \(none\)"):
        protocol.check_description(protocol.describe([]), split.manifest)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (protocol.UnknownVersionError, "FAILED_PRECONDITION"),
        (protocol.UnknownSplitError, "NOT_FOUND"),
        (protocol.ChecksumError, "INVALID_ARGUMENT"),
        (ProtocolError, "INVALID_ARGUMENT"),
    ],
)
def test_each_refusal_has_its_status(kind, name):
    assert protocol.status(kind("why")).name == name


def test_what_a_peer_wrote_is_shown_on_one_short_line():
    long = "\n\x1b[31m" * 10**5
    words = protocol.shown(long)
    assert len(words) < 500
    assert words.isprintable()


def test_the_network_of_the_plan_is_read_from_the_manifest(split):
    network = plan_network(split.manifest)
    assert network == Network(uplink_bits_per_s=1e5, round_trip_s=0.02)
    strange = dataclasses.replace(split.manifest, network={"bandwidth": 3})
    with pytest.raises(ArtefactError, match="bandwidth"):
        plan_network(strange)
