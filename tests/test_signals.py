import os
import signal
import threading

import pytest

from attrec.signals import SIGNALS, stop_on_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_wish_and_the_second_is_as_ever(number):
    told, before = [], signal.getsignal(number)
    with stop_on_signals(told.append) as wish:
        assert not wish()
        assert wish.exit_code == 128
        os.kill(os.getpid(), number)
        assert wish()
        assert wish.exit_code == 128 + number
        assert signal.getsignal(number) == before
    assert len(told) == 1
    assert signal.getsignal(number) == before


def test_outside_the_main_thread_nothing_is_touched():
    found = []

    def work():
        with stop_on_signals(found.append) as wish:
            found.append(wish())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
