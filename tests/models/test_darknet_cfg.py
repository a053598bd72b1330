"""The parser reads darknet's sections as darknet does, and names the line of what it refuses."""

import collections
import contextlib
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from autosplit.errors import InputError
from autosplit.models.darknet_cfg import parse_cfg
from autosplit.models.darknet_sections import (
    Convolutional,
    Maxpool,
    Route,
    Shortcut,
    Upsample,
    Yolo,
    with_classes,
)
from autosplit.models.yolo import create_yolo

SMALL = pathlib.Path(__file__).with_name("yolo_small.cfg").read_text()
# Convolutional, shortcut, route, upsample, maxpool, yolo, as darknet lists them.
SECTIONS = {
    "yolov3": (75, 23, 4, 2, 0, 3),
    "yolov3_spp": (76, 23, 7, 2, 3, 3),
    "yolov3_tiny": (13, 0, 2, 1, 6, 2),
}
KINDS = (Convolutional, Shortcut, Route, Upsample, Maxpool, Yolo)


@pytest.mark.parametrize("name", SECTIONS)
def test_our_cfg_files_have_darknets_sections(name):
    model = create_yolo(name)
    counts = collections.Counter(type(section) for section in model.sections)
    assert tuple(counts[kind] for kind in KINDS) == SECTIONS[name]
    assert model.strides == (32, 16, 8)[: len(model.strides)]
    assert all(len(anchors) == 3 for anchors in model.anchors)
    assert {head.classes for head in model.heads} == {80}
    # Coarse heads have large anchors.
    areas = [sum(w * h for w, h in anchors) for anchors in model.anchors]
    assert areas == sorted(areas, reverse=True)


def test_sections_hold_what_is_written():
    sections = parse_cfg(SMALL)
    assert sections[0] == Convolutional(
        in_channels=3, filters=8, size=3, stride=2, batch_normalize=True, activation="leaky"
    )
    assert sections[3] == Shortcut(source=0)
    assert sections[4] == Maxpool(size=2, stride=2)
    assert sections[7] == Route(sources=(5,))
    assert sections[9] == Route(sources=(8, 6, 5))
    assert sections[10].in_channels == 36
    assert not sections[10].batch_normalize
    assert sections[10].activation == "linear"
    assert sections[11] == Yolo(
        anchors=((20.0, 16.0), (30.0, 41.0), (50.0, 44.0)), classes=2, stride=8
    )
    assert sections[14] == Upsample(stride=2)
    assert sections[15] == Route(sources=(14, 4))
    assert sections[17].stride == 4


def test_spaces_comments_and_line_ends_change_nothing():
    changed = SMALL.replace("=", "  =\t").replace("\n", "  \r\n;; a comment\r\n\r\n")
    assert parse_cfg(changed) == parse_cfg(SMALL)


def test_other_classes_change_the_heads_alone():
    sections = parse_cfg(SMALL)
    changed = with_classes(sections, 7)
    pairs = zip(sections, changed, strict=True)
    different = [index for index, (one, other) in enumerate(pairs) if one != other]
    assert different == [10, 11, 16, 17]
    assert (changed[10].filters, changed[16].filters) == (3 * 12, 2 * 12)
    assert with_classes(changed, 2) == sections
    with pytest.raises(InputError, match="at least 1"):
        with_classes(sections, 0)


def line_of(text, part):
    """The number of the first line with a text."""
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[upsample]", "[crop]", r"section \[crop\] is unknown; expected one of \[net\]"),
        ("[upsample]", "[upsample", r"section \[upsample is unknown"),
        ("size=2\nstride=2", "size=2\nstride=2\npadding=1", "unknown field 'padding=1'"),
        ("size=2\nstride=2", "size=2\nstride", "unknown field 'stride'"),
        ("size=2\nstride=2", "size=2\nsize=2", "size was given in line"),
        ("filters=4\n", "filters=4.5\n", "filters is '4.5'; expected int numbers"),
        ("filters=4\n", "filters=0\n", "filters is '0'; expected one whole number, 1 or more"),
        ("filters=4\n", "filters=4,4\n", "filters is '4,4'"),
        ("batch_normalize=1\nfilters=4", "batch_normalize=2\nfilters=4", "expected 0 or 1"),
        ("activation=linear\n\n[maxpool]", "activation=leaky\n\n[maxpool]", "expected linear"),
        ("activation=leaky", "activation=mish", "expected leaky or linear"),
        ("size=3\nstride=2\npad=1", "size=4\nstride=2\npad=1", "expected an odd size"),
        ("size=3\nstride=2\npad=1", "size=3\nstride=2\npad=0", "and pad=1 above 1"),
        ("layers=-2", "layers=-8", "leads section 7 to section -1, out of range"),
        ("layers=-2", "layers=7", "leads section 7 to section 7, out of range"),
        ("layers=-1, -3, 5", "layers=-1, -3, 4", r"strides \[8, 8, 4\]"),
        ("layers=-1, -3, 5", "layers=-1, , 5", "expected int numbers and commas"),
        ("layers = -3", "layers = -1", r"to section 11, a \[yolo\], which is an output"),
        ("from=-3", "from=-2", "expected one section of equal form"),
        ("from=-3", "from=-3,-3", "expected one section of equal form"),
        ("[upsample]\nstride=2", "[upsample]\nstride=3", "stride 3 enlarges a map of stride 8"),
        ("mask = 2,3,4", "mask = 2,3,5", r"mask is \[2, 3, 5\]; expected 0 to 4"),
        ("50,44\n", "50\n", "anchors has 9 numbers; expected 10"),
        ("50,44\n", "50,nan\n", "expected positive numbers of pixels"),
        ("50,44\n", "50,-44\n", "expected positive numbers of pixels"),
        ("mask = 2,3,4", "mask = 2,3", r"2 anchors and 2 classes .* expected .* filters=14"),
        ("filters=21", "filters=255", r"filters=255.*expected a \[convolutional\] with filters=21"),
        ("[upsample]", "[net]\nchannels=3\n[upsample]", r"\[net\] comes a second time"),
    ],
)  # fmt: skip
def test_errors_name_the_line(old, new, message):
    assert old in SMALL
    with pytest.raises(InputError, match=message) as caught:
        parse_cfg(SMALL.replace(old, new, 1))
    assert str(caught.value).startswith("line ")


def test_the_line_is_the_right_one():
    text = SMALL.replace("layers=-2", "layers=-20")
    with pytest.raises(InputError, match=f"line {line_of(text, '-20')} of the cfg"):
        parse_cfg(text)
    text = SMALL.replace("[upsample]", "[unknown]")
    with pytest.raises(InputError, match=f"line {line_of(text, '[unknown]')} of the cfg"):
        parse_cfg(text)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("convolutional", "filters=8"),
        ("convolutional", "stride=2"),
        ("shortcut", "from=-3"),
        ("upsample", "stride=2"),
        ("maxpool", "stride=2"),
        ("route", "layers=-2"),
        ("yolo", "num=5"),
        ("yolo", "classes=2"),
        ("net", "channels=3"),
    ],
)
def test_a_missing_field_is_named_with_its_section(section, field):
    start = SMALL.index(f"[{section}]")
    text = SMALL[:start] + SMALL[start:].replace(f"{field}\n", "\n", 1)
    line = SMALL[:start].count("\n") + 1
    name = field.partition("=")[0]
    with pytest.raises(InputError, match=rf"line {line} of the cfg: \[{section}\] lacks {name};"):
        parse_cfg(text)


POOL = "[maxpool]\nsize=2\nstride=1"


@pytest.mark.parametrize("text", ["", "# nothing", "[net]\nchannels=3", POOL])
def test_a_cfg_begins_with_net_and_goes_on(text):
    with pytest.raises(InputError, match=r"expected \[net\]"):
        parse_cfg(text)


LINES = SMALL.splitlines()
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(LINES) - 1),
        st.sampled_from([*LINES, "", "=", "[", "a", "stride=0", "layers=99", "size=1e9"]),
    ),
    min_size=1,
    max_size=4,
)


@hypothesis.given(EDITS)
def test_any_damage_is_read_or_refused(edits):
    lines = list(LINES)
    for place, line in edits:
        lines[place] = line
    with contextlib.suppress(InputError):
        parse_cfg("\n".join(lines))


def test_a_field_before_any_section_is_refused():
    with pytest.raises(InputError, match=r"line 1 .* before any section"):
        parse_cfg("size=2\n" + SMALL)


def test_nothing_reads_a_head():
    text = SMALL + "\n[maxpool]\nsize=2\nstride=1\n"
    with pytest.raises(InputError, match=r"reads the \[yolo\] before it"):
        parse_cfg(text)
