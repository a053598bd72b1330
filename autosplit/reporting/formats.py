"""Numbers as people read them: few digits, with their unit."""

from __future__ import annotations

import math


def format_number(value: float, digits: int = 3) -> str:
    """Writes a number with some significant digits and no needless exponent.

    >>> [format_number(x) for x in (0, 1234.5, 66.12, 0.0456, 2.3e-7)]
    ['0', '1,234', '66.1', '0.0456', '2.3e-07']
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e9:
        places = digits - 1 - math.floor(math.log10(abs(value)))
        return f"{value:,.{max(places, 0)}f}"
    return f"{value:.{digits - 1}g}"


def format_ms(seconds: float) -> str:
    """Writes a time in milliseconds.

    >>> format_ms(0.0661), format_ms(0), format_ms(3e-8)
    ('66.1 ms', '0 ms', '<0.001 ms')
    """
    milliseconds = seconds * 1e3
    if 0 < milliseconds < 1e-3:
        return "<0.001 ms"
    return f"{format_number(milliseconds)} ms"


def format_size(size_bytes: float) -> str:
    """Writes a size in bytes, KiB (1024 bytes) or MiB.

    >>> format_size(512), format_size(9420), format_size(4 << 20)
    ('512 B', '9.20 KiB', '4.00 MiB')
    """
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= factor:
            return f"{format_number(size_bytes / factor)} {unit}"
    return f"{format_number(size_bytes)} B"


def format_percent(share: float) -> str:
    """Writes a share as per cent.

    >>> format_percent(0.85), format_percent(0.0123), format_percent(1)
    ('85.0 %', '1.23 %', '100 %')
    """
    return f"{format_number(share * 100)} %"


def format_error(error: float | None) -> str:
    """Writes a relative mean squared error; None is one that is not known.

    >>> format_error(0.0123), format_error(0.0), format_error(None)
    ('1.2e-02', '0', 'not known')
    """
    if error is None:
        return "not known"
    return "0" if error == 0 else f"{error:.1e}"


def format_rate(bits_per_s: float) -> str:
    """Writes the rate of a link.

    >>> format_rate(3 * 1024**2), format_rate(56e3), format_rate(1e9)
    ('3.15 Mbit/s', '56 kbit/s', '1 Gbit/s')
    """
    for unit, factor in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits_per_s >= factor:
            return f"{bits_per_s / factor:.3g} {unit}"
    return f"{bits_per_s:.3g} bit/s"
