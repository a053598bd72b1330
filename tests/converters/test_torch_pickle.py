"""The unpickler refuses everything that is not a tensor, whatever the file does."""

import collections
import io
import os
import pickle

import numpy as np
import pytest

from autosplit.converters import read_state_dict
from autosplit.converters.torch_pickle import Storage, TensorUnpickler, TensorView, to_array
from autosplit.errors import ArtefactError, ConversionError


class Calls:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "call",
    [
        lambda trap: Calls(os.system, f"touch {trap}"),
        lambda trap: Calls(eval, f"open({str(trap)!r}, 'w')"),
        lambda trap: Calls(open, str(trap), "w"),
        lambda trap: Calls(getattr, collections.OrderedDict, "__init__"),
        lambda trap: collections.Counter(a=1),
    ],
)
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, call, protocol):
    trap = tmp_path / "trap"
    path = tmp_path / "hostile.pth"
    path.write_bytes(pickle.dumps({"weight": call(trap)}, protocol=protocol))
    with pytest.raises(ConversionError, match="expected tensors in dictionaries"):
        read_state_dict(path)
    assert not trap.exists()


def test_a_dotted_name_reaches_nothing_behind_an_allowed_one():
    # OrderedDict.__init__.__globals__ and the like start with such a name.
    stream = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93."
    with pytest.raises(ConversionError, match=r"OrderedDict\.fromkeys"):
        TensorUnpickler(io.BytesIO(stream)).load()


@pytest.mark.parametrize(
    ("module", "name"),
    [("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2")],
)
def test_a_pickle_cannot_alter_what_it_is_handed(module, name):
    # GLOBAL, then BUILD with (None, {"__doc__": "altered"}): setattr on the global.
    stream = f"c{module}\n{name}\n".encode() + b"(N}S'__doc__'\nS'altered'\nstb."
    with pytest.raises((TypeError, AttributeError)):
        TensorUnpickler(io.BytesIO(stream)).load()


def test_dictionaries_of_numbers_and_text_pass():
    value = {"epoch": 3, "name": "net", "rates": [0.1, None, True], "more": (1, 2)}
    loaded = TensorUnpickler(io.BytesIO(pickle.dumps(value))).load()
    assert loaded == value


STORAGE = Storage("0", np.dtype("<f4"), 6, content=np.arange(6, dtype="<f4").tobytes())


def test_strided_windows_equal_numpys():
    flat = np.arange(6, dtype=np.float32)
    views = {
        "whole": (TensorView(STORAGE, 0, (2, 3), (3, 1)), flat.reshape(2, 3)),
        "transposed": (TensorView(STORAGE, 0, (3, 2), (1, 3)), flat.reshape(2, 3).T),
        "every other": (TensorView(STORAGE, 1, (3,), (2,)), flat[1::2]),
        "scalar": (TensorView(STORAGE, 4, (), ()), flat[4]),
        "empty": (TensorView(STORAGE, 6, (0, 3), (3, 1)), np.zeros((0, 3), np.float32)),
    }
    for view, expected in views.values():
        np.testing.assert_array_equal(to_array(view, {}), expected)
        assert to_array(view, {}).shape == expected.shape


@pytest.mark.parametrize(
    "view",
    [
        TensorView(STORAGE, 0, (7,), (1,)),
        TensorView(STORAGE, 1, (6,), (1,)),
        TensorView(STORAGE, 0, (2, 2), (1, 5)),
        TensorView(STORAGE, -1, (2,), (1,)),
        TensorView(STORAGE, 5, (2,), (-1,)),
        TensorView(STORAGE, 0, (10**9, 10**9), (0, 0)),
    ],
)
def test_a_window_outside_its_storage_is_refused(view):
    with pytest.raises(ArtefactError, match="damaged file"):
        to_array(view, {})
