"""Reads darknet cfg text of the YOLOv3 family into checked sections."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from autosplit.errors import InputError
from autosplit.models.darknet_sections import (
    ACTIVATIONS,
    Convolutional,
    Maxpool,
    Route,
    Section,
    Shortcut,
    Upsample,
    Yolo,
)

# Fields of each section. A name in `_OPTIONAL` may be left out; one in `_TRAINING` tells darknet
# how to train or how large an image to take, and is not used here.
_FIELDS = {
    "net": {"channels"},
    "convolutional": {"batch_normalize", "filters", "size", "stride", "pad", "activation"},
    "shortcut": {"from", "activation"},
    "route": {"layers"},
    "upsample": {"stride"},
    "maxpool": {"size", "stride"},
    "yolo": {"mask", "anchors", "classes", "num"},
}
_OPTIONAL = frozenset({"batch_normalize"})
_TRAINING = {
    "net": frozenset(
        """
        angle batch burn_in decay exposure height hue learning_rate max_batches momentum policy
        saturation scales steps subdivisions width
        """.split()
    ),
    "yolo": frozenset({"ignore_thresh", "jitter", "random", "truth_thresh"}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Block:
    """A section as it is written: lines by field, and where it begins."""

    kind: str
    line: int
    fields: dict[str, tuple[int, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Form:
    """Channels of a section's output, and pixels of the network's input per pixel of it."""

    channels: int
    stride: int


def parse_cfg(text: str) -> tuple[Section, ...]:
    """Reads and checks a darknet cfg.

    Args:
      text: of a cfg file: ``[net]`` and sections of the six types above. Fields that
        only matter in training are accepted and ignored.

    Returns:
      The sections behind ``[net]``, in order, with absolute places of what they read.

    Raises:
      InputError: names the line and what is wrong there.

    >>> parse_cfg('''
    ... [net]
    ... channels=3
    ... [maxpool]
    ... size=2
    ... stride=2
    ... [route]
    ... layers=-1
    ... ''')
    (Maxpool(size=2, stride=2), Route(sources=(0,)))
    """
    blocks = _blocks(text)
    if not blocks or blocks[0].kind != "net" or len(blocks) == 1:
        raise InputError(
            f"the cfg begins with {[block.kind for block in blocks[:2]]}; expected [net] and then "
            "at least one section. Pass the text of a darknet cfg file."
        )
    sections: list[Section] = []
    forms: list[_Form | None] = []
    before: _Form | None = _Form(channels=_integer(blocks[0], "channels"), stride=1)
    for block in blocks[1:]:
        if block.kind == "net":
            raise _error(block.line, "[net] comes a second time", "expected one, at the top")
        section, before = _BUILDERS[block.kind](block, _Past(sections, forms, before))
        sections.append(section)
        forms.append(before)
    return tuple(sections)


def _error(line: int, found: str, expected: str) -> InputError:
    return InputError(f"line {line} of the cfg: {found}; {expected}.")


# ---- From text to blocks


def _blocks(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    for line, raw in enumerate(text.splitlines(), 1):
        content = raw.partition("#")[0].strip()
        if not content or content.startswith(";"):
            continue
        if content.startswith("["):
            blocks.append(_Block(kind=_kind(content, line), line=line, fields={}))
        elif blocks:
            _add_field(blocks[-1], content, line)
        else:
            raise _error(line, f"{content!r} stands before any section", "expected [net] first")
    for block in blocks:
        missing = sorted(_FIELDS[block.kind] - block.fields.keys() - _OPTIONAL)
        if missing:
            raise _error(block.line, f"[{block.kind}] lacks {', '.join(missing)}", "add them")
    return blocks


def _kind(content: str, line: int) -> str:
    kind = content.strip("[]").strip()
    if kind not in _FIELDS or not content.endswith("]"):
        known = " ".join(f"[{name}]" for name in _FIELDS)
        raise _error(
            line, f"the section {content} is unknown", f"expected one of {known}, those of YOLOv3"
        )
    return kind


def _add_field(block: _Block, content: str, line: int) -> None:
    name, equals, value = (part.strip() for part in content.partition("="))
    known = _FIELDS[block.kind] | _TRAINING.get(block.kind, frozenset())
    if not equals or name not in known:
        raise _error(
            line,
            f"[{block.kind}] has the unknown field {content!r}",
            f"expected name=value with one of {', '.join(sorted(known))}",
        )
    if name in block.fields:
        raise _error(
            line, f"{name} was given in line {block.fields[name][0]}", "expected each field once"
        )
    block.fields[name] = (line, value)


# ---- Values


def _numbers(block: _Block, name: str, kind: Callable[[str], float] = int) -> list[float]:
    line, value = block.fields[name]
    try:
        return [kind(part) for part in value.split(",")]
    except ValueError as error:
        raise _error(
            line, f"{name} is {value!r}", f"expected {kind.__name__} numbers and commas"
        ) from error


def _integer(block: _Block, name: str, least: int = 1) -> int:
    line, value = block.fields[name]
    numbers = _numbers(block, name)
    if len(numbers) != 1 or numbers[0] < least:
        raise _error(line, f"{name} is {value!r}", f"expected one whole number, {least} or more")
    return int(numbers[0])


def _flag(block: _Block, name: str) -> bool:
    line, value = block.fields.get(name, (block.line, "0"))
    if value not in ("0", "1"):
        raise _error(line, f"{name} is {value!r}", "expected 0 or 1")
    return value == "1"


def _activation(block: _Block, known: tuple[str, ...]) -> str:
    line, value = block.fields["activation"]
    if value not in known:
        raise _error(line, f"activation is {value!r}", f"expected {' or '.join(known)}")
    return value


# ---- From blocks to sections


@dataclasses.dataclass(frozen=True)
class _Past:
    """What a section can read: those before it, and what the last one made."""

    sections: list[Section]
    forms: list[_Form | None]
    last: _Form | None

    def previous(self, block: _Block) -> _Form:
        """Returns the form of the section before."""
        if self.last is None:
            raise _error(
                block.line,
                f"[{block.kind}] reads the [yolo] before it, which is an output",
                "expected a [route] to another section",
            )
        return self.last

    def sources(self, block: _Block, name: str) -> tuple[int, ...]:
        """Returns absolute places; a negative number counts backward from this section."""
        count = len(self.sections)
        line, _ = block.fields[name]
        places = tuple(int(p) + count * (p < 0) for p in _numbers(block, name))
        for place in places:
            if not 0 <= place < count or self.forms[place] is None:
                what = "a [yolo], which is an output" if 0 <= place < count else "out of range"
                raise _error(
                    line,
                    f"{name} leads section {count} to section {place}, {what}",
                    f"expected sections before it, {-count} to {count - 1}, that are no [yolo]",
                )
        return places

    def form(self, place: int) -> _Form:
        """Returns the form of a section that `sources` has checked."""
        form = self.forms[place]
        assert form is not None
        return form


_Built = tuple[Section, _Form | None]


def _convolutional(block: _Block, past: _Past) -> _Built:
    before = past.previous(block)
    size, stride = _integer(block, "size"), _integer(block, "stride")
    if size % 2 == 0 or (size > 1 and not _flag(block, "pad")):
        raise _error(
            block.fields["size"][0],
            f"size is {size} with pad={block.fields['pad'][1]}",
            "expected an odd size, and pad=1 above 1",
        )
    section = Convolutional(
        in_channels=before.channels,
        filters=_integer(block, "filters"),
        size=size,
        stride=stride,
        batch_normalize=_flag(block, "batch_normalize"),
        activation=_activation(block, ACTIVATIONS),
    )
    return section, _Form(channels=section.filters, stride=before.stride * stride)


def _shortcut(block: _Block, past: _Past) -> _Built:
    before, places = past.previous(block), past.sources(block, "from")
    _activation(block, ("linear",))
    if [past.form(place) for place in places] != [before]:
        found = ", ".join(str(past.form(place)) for place in places)
        raise _error(
            block.fields["from"][0],
            f"from leads to {found}, and the section before has {before}",
            "expected one section of equal form",
        )
    return Shortcut(source=places[0]), before


def _route(block: _Block, past: _Past) -> _Built:
    places = past.sources(block, "layers")
    forms = [past.form(place) for place in places]
    if len({form.stride for form in forms}) > 1:
        raise _error(
            block.fields["layers"][0],
            f"layers joins maps of strides {[form.stride for form in forms]}",
            "expected equal strides",
        )
    channels = sum(form.channels for form in forms)
    return Route(sources=places), _Form(channels=channels, stride=forms[0].stride)


def _upsample(block: _Block, past: _Past) -> _Built:
    before, stride = past.previous(block), _integer(block, "stride")
    if before.stride % stride:
        raise _error(
            block.fields["stride"][0],
            f"stride {stride} enlarges a map of stride {before.stride}",
            "expected a divisor of it",
        )
    form = _Form(channels=before.channels, stride=before.stride // stride)
    return Upsample(stride=stride), form


def _maxpool(block: _Block, past: _Past) -> _Built:
    before = past.previous(block)
    section = Maxpool(size=_integer(block, "size"), stride=_integer(block, "stride"))
    return section, _Form(channels=before.channels, stride=before.stride * section.stride)


def _yolo(block: _Block, past: _Past) -> _Built:
    before, classes = past.previous(block), _integer(block, "classes")
    anchors = _masked_anchors(block)
    filters = len(anchors) * (5 + classes)
    head = past.sections[-1] if past.sections else None
    if not isinstance(head, Convolutional) or head.filters != filters:
        raise _error(
            block.line,
            f"[yolo] with {len(anchors)} anchors and {classes} classes follows {head}",
            f"expected a [convolutional] with filters={filters}",
        )
    return Yolo(anchors=anchors, classes=classes, stride=before.stride), None


def _masked_anchors(block: _Block) -> tuple[tuple[float, float], ...]:
    """Returns the (width, height) pairs that the mask selects."""
    line, _ = block.fields["anchors"]
    flat, count = _numbers(block, "anchors", float), _integer(block, "num")
    if len(flat) != 2 * count:
        raise _error(
            line, f"anchors has {len(flat)} numbers", f"expected {2 * count}, two for each of num"
        )
    if not all(0 < length < math.inf for length in flat):
        raise _error(line, f"anchors are {flat}", "expected positive numbers of pixels")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    mask = [int(number) for number in _numbers(block, "mask")]
    if not all(0 <= number < count for number in mask):
        raise _error(block.fields["mask"][0], f"mask is {mask}", f"expected 0 to {count - 1}")
    return tuple(pairs[number] for number in mask)


_BUILDERS: Mapping[str, Callable[[_Block, _Past], _Built]] = {
    "convolutional": _convolutional,
    "shortcut": _shortcut,
    "route": _route,
    "upsample": _upsample,
    "maxpool": _maxpool,
    "yolo": _yolo,
}
