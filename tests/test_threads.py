"""Threads beside the network: what runs at the same time, in which order, and what they hold."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fullconv.threads import TURN, ahead, behind, let_the_network_go_first, short_turns

SECONDS = 20  # after which something that is waited for will not come


class Thing:
    """Something that one can ask whether it is still there."""


def test_the_next_is_read_while_the_caller_works() -> None:
    started = [threading.Event() for _ in range(4)]
    readers = set()

    def read(number: int) -> int:
        readers.add(threading.get_ident())
        started[number].set()
        return number * number

    for number, square in ahead(read, range(4)):
        assert square == number * number
        if number < 3:
            assert started[number + 1].wait(SECONDS)
        assert not any(event.is_set() for event in started[number + 2 :])
    assert len(readers) == 1
    assert threading.get_ident() not in readers


def test_the_next_is_made_while_one_is_written() -> None:
    made = [threading.Event() for _ in range(4)]
    written = []

    def things() -> Iterator[int]:
        for number in range(4):
            made[number].set()
            yield number

    def write(number: int) -> int:
        if number < 3:
            assert made[number + 1].wait(SECONDS)
        written.append((number, threading.get_ident()))
        return number * number

    assert list(behind(write, things())) == [0, 1, 4, 9]
    assert [number for number, _ in written] == [0, 1, 2, 3]
    assert threading.get_ident() not in {thread for _, thread in written}


@pytest.mark.parametrize("way", [ahead, behind])
def test_nothing_to_do(way: Callable[..., Iterator[object]]) -> None:
    assert list(way(abs, iter(()))) == []


def test_an_error_comes_at_its_place() -> None:
    reading = ahead(lambda number: 1 // (2 - number), range(4))
    assert [next(reading)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(reading)
    writing = behind(lambda number: number // (2 - number), iter(range(4)))
    assert [next(writing) for _ in range(2)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(writing)


def test_what_was_handed_out_is_not_held() -> None:
    """Windows of large pictures are tens of megabytes."""
    seen: list[weakref.ref[Thing]] = []

    def made(_: int) -> Thing:
        thing = Thing()
        seen.append(weakref.ref(thing))
        return thing

    for number, thing in ahead(made, range(5)):
        del thing
        gc.collect()
        assert all(one() is None for one in seen[: number + 1])


def test_what_was_written_is_not_held() -> None:
    seen: list[weakref.ref[Thing]] = []

    def things() -> Iterator[Thing]:
        for _ in range(5):
            gc.collect()
            assert all(one() is None for one in seen[:-1])  # the last one is being written
            thing = Thing()
            seen.append(weakref.ref(thing))
            yield thing
            del thing

    assert list(behind(lambda _: None, things())) == [None] * 5


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    reading = ahead(lambda number: number, range(100))
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    writing = behind(lambda number: number, iter(range(100)))
    next(writing)
    writing.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_threads_beside_the_network_come_last() -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1, initializer=let_the_network_go_first) as pool:
        found = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, 0)).result()
    assert found == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


@pytest.mark.parametrize(("usual", "wanted"), [(0.005, TURN), (TURN / 2, TURN / 2)])
def test_turns_are_short_for_a_while(usual: float, wanted: float) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(usual)
    try:
        with short_turns():
            assert sys.getswitchinterval() == pytest.approx(wanted)
        assert sys.getswitchinterval() == pytest.approx(usual)
    finally:
        sys.setswitchinterval(before)
