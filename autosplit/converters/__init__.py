"""Checkpoints of other frameworks, converted to the variables of `autosplit.models`."""

from autosplit.converters.darknet_weights import read_darknet_weights, write_darknet_weights
from autosplit.converters.state_dict import convert, to_state_dict
from autosplit.converters.state_dict_file import STATE_DICT_SUFFIXES, write_state_dict
from autosplit.converters.torch_file import read_state_dict
from autosplit.converters.weights_file import load_weights

__all__ = [
    "STATE_DICT_SUFFIXES",
    "convert",
    "load_weights",
    "read_darknet_weights",
    "read_state_dict",
    "to_state_dict",
    "write_darknet_weights",
    "write_state_dict",
]
