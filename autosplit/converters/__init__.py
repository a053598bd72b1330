"""Checkpoints of other frameworks, converted to the variables of `autosplit.models`."""

from autosplit.converters.state_dict import convert, to_state_dict
from autosplit.converters.torch_file import read_state_dict

__all__ = ["convert", "read_state_dict", "to_state_dict"]
