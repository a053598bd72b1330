"""Profile: everything a solver may know, as NumPy arrays."""

from __future__ import annotations

import dataclasses

import numpy as np

from autosplit.hardware.network import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputEncoding:
    """One way to send the graph's inputs to the cloud without computing on the edge.

    Attributes:
      name: ``"raw"``, ``"png"``, ``"jpeg-q90"``, ...
      payload_bytes: mean size of one request on the calibration images.
      lossless: False where the decoded input differs from the original.
      encode_s: measured on the machine that profiled (not on the edge device).
      decode_s: likewise.
      encode_j: energy of reading the pixels and writing the code on the edge device; the
        arithmetic of the coder is not counted. NaN where the device states no energy.
    """

    name: str
    payload_bytes: float
    lossless: bool
    encode_s: float = 0.0
    decode_s: float = 0.0
    encode_j: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unquantized:
    """What layers and tensors cost on the edge where they are not quantized.

    Baselines that know no bit-widths run so. Its error counts as none.

    Attributes:
      bits: of weights and activations, 16 as in Auto-Split's experiments.
      latency_s, energy_j: f64[L].
      weight_bytes: i64[L]; tensor_bytes: i64[T], graph inputs and integers as in the profile.
      pack_s, unpack_s, pack_j: f64[T].
    """

    bits: int
    latency_s: np.ndarray
    energy_j: np.ndarray
    weight_bytes: np.ndarray
    tensor_bytes: np.ndarray
    pack_s: np.ndarray
    unpack_s: np.ndarray
    pack_j: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Errors, times and sizes of a graph's layers and tensors, and its cuts.

    L layers in topological order, T tensors (graph inputs first, then layer
    outputs), K bit candidates in ascending order, C candidate cuts. Cut 0 is
    cloud-only (no layer on the edge), cut C-1 edge-only (every layer on it).

    Attributes:
      fingerprint: of the graph that was profiled.
      clipping: name of the clipping method.
      bits: i64[K].
      layer_names, tensor_names: str[L], str[T].
      macs: i64[L].
      has_weight: bool[L], there is a bit-width to choose; elsewhere the rows of the
        weight tables are constant.
      weight_error: f64[L, K], quant_mse of the weight, 0 where there is none.
      sensitivity: what the gains are, see `autosplit.profile`.
      weight_gain: f64[L, K], output error per unit of weight quant_mse; equal along K
        where it is of first order.
      weight_ratio: f64[L, K], clip over the largest absolute value of a channel.
      weight_bytes: i64[L, K], packed weight, scales, bias and float constants.
      weight_group: i64[L], layers with equal numbers share one stored weight
        (bytes are paid once and their bits must agree).
      activation_error: f64[T, K], quant_mse of the tensor; 0 for graph inputs.
      activation_gain: f64[T, K], as weight_gain.
      activation_low, activation_high: f64[T, K], the clip.
      tensor_bytes: i64[T, K], packed size; constant along K where the bits are
        fixed (graph inputs: 8 bits; integer tensors: their own width).
      float_bytes: i64[T], size as it is computed (float32: 4 bytes an element).
      edge_latency_s: f64[L, K, K], layer by weight bits by activation bits (the
        widest tensor that the layer reads or writes).
      edge_energy_j: f64[L, K, K], as edge_latency_s; NaN where the device states no energy.
      cloud_latency_s: f64[L], at the cloud's own bits.
      pack_s: f64[T, K] on the edge; unpack_s: f64[T, K] in the cloud.
      pack_j: f64[T, K] on the edge; NaN where the device states no energy.
      unquantized: the edge without quantization.
      producer: i64[T], layer that writes the tensor; -1 for graph inputs.
      reads: bool[L, T], layer reads tensor.
      is_output: bool[T], tensor is an output of the graph.
      on_edge: bool[C, L], closed under predecessors.
      crosses: bool[C, T], tensor is sent. A graph output made on the edge is sent
        too, except at the edge-only cut, where nothing is.
      cut_names: str[C].
      open_cuts: the listed cuts are not all that the topology allows, and a solver may
        take another; False where all are listed or only these are wanted.
      response_bytes: size of the float outputs that the cloud returns.
      input_encodings: the prices of cloud-only.
      network, edge_name, cloud_name: what the times were computed for.
    """

    fingerprint: str
    clipping: str
    bits: np.ndarray
    layer_names: tuple[str, ...]
    tensor_names: tuple[str, ...]
    macs: np.ndarray
    has_weight: np.ndarray
    sensitivity: str
    weight_error: np.ndarray
    weight_gain: np.ndarray
    weight_ratio: np.ndarray
    weight_bytes: np.ndarray
    weight_group: np.ndarray
    activation_error: np.ndarray
    activation_gain: np.ndarray
    activation_low: np.ndarray
    activation_high: np.ndarray
    tensor_bytes: np.ndarray
    float_bytes: np.ndarray
    edge_latency_s: np.ndarray
    edge_energy_j: np.ndarray
    cloud_latency_s: np.ndarray
    pack_s: np.ndarray
    unpack_s: np.ndarray
    pack_j: np.ndarray
    unquantized: Unquantized
    producer: np.ndarray
    reads: np.ndarray
    is_output: np.ndarray
    on_edge: np.ndarray
    crosses: np.ndarray
    cut_names: tuple[str, ...]
    open_cuts: bool
    response_bytes: int
    input_encodings: tuple[InputEncoding, ...]
    network: Network
    edge_name: str
    cloud_name: str

    @property
    def touches(self) -> np.ndarray:
        """bool[L, T]: the layer reads or writes the tensor."""
        writes = self.producer[None, :] == np.arange(len(self.macs))[:, None]
        return self.reads | writes
