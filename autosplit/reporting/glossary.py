"""The words of the report, explained to somebody who has not heard them."""

GLOSSARY: dict[str, str] = {
    "edge": "The device where the picture is taken: small, slow, with little memory.",
    "cloud": "A large, fast machine at the other end of a network link.",
    "layer": "One step of the network, such as a convolution with what directly follows it.",
    "cut": "The border between the layers that run on the edge and those that run in the cloud. "
    "Data only ever flows from edge to cloud.",
    "crossing tensor": "An array that a layer on the edge (or the camera) makes and a layer in the "
    "cloud reads. It is what goes over the link.",
    "bits": "How many binary digits hold one number. A network is trained with 32 per number; with "
    "4, only 16 different values are left, but the array is 8 times smaller.",
    "weight, activation": "Weights are the numbers that the network learned; activations are those "
    "that it computes for one picture.",
    "quantization": "Rounding weights or activations to few bits. Values beyond a chosen range, "
    "the clip, become its ends.",
    "packing": "Putting numbers of fewer than 8 bits side by side into bytes before they are sent.",
    "edge memory": "The quantized weights on the edge and the largest activation there.",
    "latency": "The time from picture to answer: edge layers, packing, the link, unpacking, cloud "
    "layers and the way back, one after the other.",
    "round trip": "The time that an empty message and its empty answer take on the link.",
    "MACs": "Multiply-accumulates: how many multiplications with an addition a layer does.",
    "output error": "How far the outputs move because of quantization: the mean squared difference "
    "to the outputs of the float network, divided by the mean square of those. 0 is no change.",
    "quant_mse": "The rounding error of single arrays, summed over the edge. It says little about "
    "the outputs by itself.",
    "float": "The network as it was trained, without quantization.",
    "raw, png, jpeg": "Three ways to send the picture itself and compute everything in the cloud: "
    "as it is, compressed without loss, compressed with loss.",
    "uniform": "A plan with the same number of bits everywhere.",
    "feasible": "Within every constraint that was asked for.",
    "Pareto set": "The plans that no other plan beats in latency, error and edge memory at once.",
    "lower bound, gap": "A latency that no plan can undercut, by proof, and how far above it the "
    "chosen plan is.",
    "simulated": "Computed from a model of the devices, of the link or of the error; nothing was "
    "timed.",
    "measured": "Really run and observed, on the machine named at the end.",
    "counted": "Follows exactly from the plan: layers, bits and bytes.",
}
"""Explanation of each term, in the order of the page."""
