"""How fast tensors are packed and made into messages, and whether zstd pays on real ones.

    python -m experiments.codec_speed --config=configs/codec_speed.py --workdir=build/codec_speed

Two parts:

speed: levels of several sizes and bit-widths are packed, encoded, decoded and unpacked; each
step beside a copy of the same bytes in memory, in turn. The aim is half of the copy's speed.

coding: MobileNet-v2 on photographs is cut at several places, the tensor that crosses in
several bit-widths. Its packed bytes are coded by zstd at several levels and timed; the rate of
the link below which a level pays follows, and so does what it saves at 3 Mbps.

Expected, on a machine that others used too (fastest calls):

    levels       packing        unpacking      encoding    decoding
       25,088     2 GB/s 0.04    2 GB/s 0.04    1-3 GB/s    1-2 GB/s
      401,408    24 GB/s 0.24   18 GB/s 0.18    4 GB/s      4 GB/s
    3,211,264    50 GB/s 0.9    42 GB/s 0.8     4 GB/s      4 GB/s    (of a copy in memory)

so packing reaches its aim on large tensors; on small ones a call of XLA costs 10 to 50 us, however
little it does. Encoding and decoding stay at a twentieth of a copy: zlib's CRC-32 reads 7 GB/s
and a message is copied three times, which is 5 to 100 us for tensors up to 400 KB. Messages
above 1 MB took milliseconds here, as their memory comes anew from the system each time.

zstd pays at 3 Mbps on every tensor, least on the linear bottleneck features_7 (82 to 91 % of
the packed bytes are sent), most on early ReLU6 tensors (35 to 62 %); level 1 pays below 84 Mbit/s
on 3 KB and below some 1,000 Mbit/s on 15 KB and more. It comes within 5 points of an ideal coder of
single levels, and on early layers far below it, so there is no entropy coder of our own.

Duration: 3 min on 2 cores, after a download of 15 MB.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the measurement."""
    config = ml_collections.ConfigDict()
    config.title = "Speed of the codec, and zstd on tensors of MobileNet-v2"
    config.seed = 0

    # Levels in a tensor: 28 x 28 x 32, 56 x 56 x 128, 112 x 112 x 256.
    config.sizes = (25_088, 401_408, 3_211_264)
    config.bits = (2, 4, 8)
    # Turns of each step, and timed calls in a turn.
    config.rounds = 20
    config.calls = 10

    config.network = "mobilenet_v2"
    config.settings = ml_collections.ConfigDict()
    config.settings.weights = "mobilenet_v2"
    config.settings.image_size = 224
    config.images = 8
    # The layers after which the network is cut: one tensor crosses.
    config.cuts = (
        "features_0_0", "features_2/conv_1_0", "features_7/conv_2", "features_14/conv_1_0",
        "features_18_0",
    )  # fmt: skip
    # Of all other tensors on the edge, and of its weights.
    config.edge_bits = 8
    config.clipping = "mse"
    config.bits_per_s = 3.0 * 1024**2
    return config
