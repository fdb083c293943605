"""Ctrl-C and SIGTERM as a wish that long work can honour when it is safe."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopWish:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Answer whether it was asked."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + (self.signal or 0)


@contextmanager
def stop_on_signals(tell: Callable[[str], None]) -> Iterator[StopWish]:
    """Turn the first signal into a wish; a second one ends the process at once."""
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        wish.signal = number
        for each in SIGNALS:
            signal.signal(each, before[each])
        tell("finishing the step and saving; once more to stop at once")

    before = {each: signal.signal(each, ask) for each in SIGNALS}
    try:
        yield wish
    finally:
        for each in SIGNALS:
            signal.signal(each, before[each])
