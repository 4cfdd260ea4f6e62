"""Threads beside the network: their order, their errors, and the memory that they hold."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from fullconv.core.concurrency import (
    SWITCH_INTERVAL,
    BackgroundWorker,
    lower_thread_priority,
    prefetch,
    short_switch_interval,
)

SECONDS = 20  # of waiting


class Thing:
    """An object with weak references."""


def test_the_next_is_read_while_the_caller_works() -> None:
    started = [threading.Event() for _ in range(4)]
    readers = set()

    def read(number: int) -> int:
        readers.add(threading.get_ident())
        started[number].set()
        return number * number

    for number, square in prefetch(read, range(4)):
        assert square == number * number
        if number < 3:
            assert started[number + 1].wait(SECONDS)
        assert not any(event.is_set() for event in started[number + 2 :])
    assert len(readers) == 1
    assert threading.get_ident() not in readers


def test_the_next_is_made_while_one_is_written() -> None:
    ready = [threading.Event() for _ in range(4)]
    written: list[tuple[int, int]] = []

    def write(number: int) -> None:
        if number < 3:
            assert ready[number + 1].wait(SECONDS)
        written.append((number, threading.get_ident()))

    with BackgroundWorker() as behind:
        for number in range(4):
            ready[number].set()
            behind(write, number)
            assert len(written) >= number - 1  # never more than one waits
        behind.wait()
    assert [number for number, _ in written] == [0, 1, 2, 3]
    assert threading.get_ident() not in {thread for _, thread in written}


def test_nothing_to_do() -> None:
    assert list(prefetch(abs, [])) == []
    with BackgroundWorker() as behind:
        behind.wait()


def test_an_error_comes_at_its_place() -> None:
    reading = prefetch(lambda number: 1 // (2 - number), range(4))
    assert [next(reading)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(reading)
    done: list[int] = []
    with BackgroundWorker() as behind:
        for number in range(3):
            behind(lambda number: done.append(number // (2 - number)), number)
        with pytest.raises(ZeroDivisionError):
            behind(done.append, 3)
        behind.wait()  # it is raised once
    assert done == [0, 1]


def test_what_was_handed_out_is_not_held() -> None:
    """Windows of large images are tens of megabytes."""
    references: list[weakref.ref[Thing]] = []

    def read(_: int) -> Thing:
        thing = Thing()
        references.append(weakref.ref(thing))
        return thing

    for number, thing in prefetch(read, range(5)):
        del thing
        gc.collect()
        assert all(reference() is None for reference in references[: number + 1])


def test_what_was_written_is_not_held() -> None:
    references: list[weakref.ref[Thing]] = []
    with BackgroundWorker() as behind:
        for _ in range(5):
            thing = Thing()
            references.append(weakref.ref(thing))
            behind(lambda _: None, thing)
            del thing
            gc.collect()
            assert all(reference() is None for reference in references[:-1])  # one is in use
        behind.wait()
        gc.collect()
        assert all(reference() is None for reference in references)


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    reading = prefetch(lambda number: number, range(100))
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    with BackgroundWorker() as behind:
        behind(abs, 1)
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_threads_beside_the_network_come_last() -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1, initializer=lower_thread_priority) as pool:
        priority = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, 0)).result()
    assert priority == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


@pytest.mark.parametrize(
    ("usual", "wanted"), [(0.005, SWITCH_INTERVAL), (SWITCH_INTERVAL / 2, SWITCH_INTERVAL / 2)]
)
def test_turns_are_short_for_a_while(usual: float, wanted: float) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(usual)
    try:
        with short_switch_interval():
            assert sys.getswitchinterval() == pytest.approx(wanted)
        assert sys.getswitchinterval() == pytest.approx(usual)
    finally:
        sys.setswitchinterval(before)
