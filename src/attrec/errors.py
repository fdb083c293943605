"""What can go wrong, as one tree.

::

    AttRecError                 every error a user can cause or meet; the command line exits with 2
    ├── ConfigError             an option has a value outside its range, or is unknown
    ├── DataError               a file, a frame or a split cannot be used as it is
    │   └── FetchError          a public data set could not be had from any of its sources
    ├── UnknownIdError          a user or an item that the model has never met
    ├── RequestError            a request that no answer can satisfy (k = 0, nothing left to rank)
    ├── ArtifactError           a saved model is missing, damaged or of a newer format
    │   └── CheckpointError     a checkpoint belongs to another training
    ├── TrainingError           a training diverged: its loss or a distance is no number
    ├── InterruptedTraining     a training was asked to stop, and saved where it was
    ├── MemoryNeededError       the machine has too little memory for what was asked
    ├── DeviceError             the asked-for device is not there
    └── MissingExtraError       an optional library is not installed

A message is one plain sentence: place, value, expectation, remedy.
"""

from __future__ import annotations


class AttRecError(Exception):
    """Every error that AttRec raises on purpose."""


class ConfigError(AttRecError, ValueError):
    """An option has a value outside its range, or is unknown."""


class DataError(AttRecError, ValueError):
    """A file, a frame or a split cannot be used as it is."""


class FetchError(DataError):
    """A public data set could not be had from any of its sources."""


class UnknownIdError(AttRecError, KeyError):
    """A user or an item that the model has never met."""

    def __str__(self) -> str:
        """Return the plain sentence; `KeyError` would show its ``repr``."""
        return str(self.args[0]) if self.args else ""


class RequestError(AttRecError, ValueError):
    """A request that no answer can satisfy."""


class ArtifactError(AttRecError):
    """A saved model is missing, damaged or of a newer format."""


class CheckpointError(ArtifactError):
    """A checkpoint belongs to another training."""


class TrainingError(AttRecError, ArithmeticError):
    """A training diverged: its loss or a distance is no finite number."""


class InterruptedTraining(AttRecError):  # noqa: N818 - it is no fault
    """A training was asked to stop, and saved where it was."""


class MemoryNeededError(AttRecError, MemoryError):
    """The machine has too little memory for what was asked."""


class DeviceError(AttRecError, RuntimeError):
    """The asked-for device is not there."""


class MissingExtraError(AttRecError, ImportError):
    """An optional library is not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed; run: pip install 'attrec[{extra}]'"
        )


def in_one_line(error: BaseException) -> str:
    """Return what an error says in one line: the system's words, or the first line of its own.

    Its name where it says nothing.
    """
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).splitlines()[0]
