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
    known = pb2.InferRequest(protocol_version=1, tensors=[pb2.Tensor(name="a")])
    protocol.check_fields(known, "client")
    outer = pb2.InferRequest.FromString(known.SerializeToString() + UNKNOWN_FIELD)
    with pytest.raises(ProtocolError, match=r"InferRequest .*unknown fields \[100\]"):
        protocol.check_fields(outer, "client")
    tensor = pb2.Tensor.FromString(known.tensors[0].SerializeToString() + UNKNOWN_FIELD)
    inner = pb2.InferRequest(tensors=[pb2.Tensor(name="b"), tensor])
    with pytest.raises(ProtocolError, match=r"Tensor .*unknown fields \[100\]"):
        protocol.check_fields(inner, "client")


def test_a_description_fits_its_own_manifest(split):
    described = protocol.describe(split.manifest)
    received = pb2.DescribeResponse.FromString(described.SerializeToString())
    protocol.check_description(received, split.manifest)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol_version": 7},
        {"split_id": "cd" * 32},
        {"crossing": [pb2.TensorSpec(bits=3)]},
        {"outputs": [pb2.TensorSpec(name="more")]},
    ],
)
def test_another_description_is_refused(split, change):
    response = protocol.describe(split.manifest)
    response.MergeFrom(pb2.DescribeResponse(**change))
    with pytest.raises(ProtocolError):
        protocol.check_description(response, split.manifest)


def test_the_network_of_the_plan_is_read_from_the_manifest(split):
    network = plan_network(split.manifest)
    assert network == Network(uplink_bits_per_s=1e5, round_trip_s=0.02)
    strange = dataclasses.replace(split.manifest, network={"bandwidth": 3})
    with pytest.raises(ArtefactError, match="bandwidth"):
        plan_network(strange)
