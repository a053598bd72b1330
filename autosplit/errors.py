"""Every error that autosplit raises on purpose.

A message says what was found, what was expected and what to do. All derive
from ``AutosplitError``, so one ``except`` clause at an entry point is enough.
"""


class AutosplitError(Exception):
    """Base of all deliberate errors of this package."""


class InputError(AutosplitError, ValueError):
    """An argument has a wrong value, shape or type."""


class TraceError(AutosplitError):
    """A function could not be traced: it is not pure, or not a JAX function."""


class UnknownPrimitiveError(TraceError):
    """A JAX primitive that costs something has no rule in the tracer."""


class CalibrationError(AutosplitError, ValueError):
    """A calibration batch is empty, holds NaN or infinity, or has a wrong shape."""


class CutError(AutosplitError, ValueError):
    """A set of layers is no cut: not closed under predecessors, or unknown."""


class PlanMismatchError(AutosplitError, ValueError):
    """A plan or profile was made for another graph."""


class InfeasibleError(AutosplitError):
    """No plan meets the constraints.

    Attributes:
      reasons: one sentence for each constraint that fails, with the shortfall.
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()):
        super().__init__(message)
        self.reasons = reasons


class ConversionError(AutosplitError, ValueError):
    """A checkpoint does not fit the model: keys left over, missing or misshapen."""


class ArtefactError(AutosplitError):
    """A saved file is truncated, tampered with, or of an unknown format version."""


class DownloadError(AutosplitError):
    """A package of weights or images could not be fetched or has a wrong hash."""


class ProtocolError(AutosplitError):
    """A message of an unknown protocol version, or one that breaks the protocol."""


class CloudUnavailableError(AutosplitError, ConnectionError):
    """The cloud server did not answer."""
