"""In which unit a time is: seconds since 1970, or a finer one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UNITS = {0: "seconds", 3: "milliseconds", 6: "microseconds", 9: "nanoseconds"}
"""By the power of ten that makes seconds of them."""
LARGEST_SECONDS = 1e11
"""The year 5138: a larger number is a time in a finer unit."""
SMALLEST_SECONDS = 1e8
"""March 1973: smaller numbers may be counters, and say nothing of a unit."""
_LOOKED_AT = 1000


def unit_of(time: float) -> int | None:
    """Return the power of ten that makes seconds of a time; None where its size says nothing.

    Examples
    --------
    >>> unit_of(1_700_000_000), unit_of(1_700_000_000_000), unit_of(12)
    (0, 3, None)
    """
    size = abs(time)
    if size < SMALLEST_SECONDS:
        return None
    return next((unit for unit in UNITS if size < LARGEST_SECONDS * 10.0**unit), 9)


def common_unit(times: npt.NDArray[np.float64]) -> int | None:
    """Return the unit of all times that say one; None where none does, or they differ."""
    some = times[:: max(1, len(times) // _LOOKED_AT)]  # in one log they are of one unit
    units = {unit_of(time) for time in some.tolist()} - {None}
    return units.pop() if len(units) == 1 else None
