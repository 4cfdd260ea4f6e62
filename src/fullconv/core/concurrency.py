"""Threads that read and write beside the network, without holding it up."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_ANY = TypeVar("_ANY")
_MADE = TypeVar("_MADE")
TURN = 0.0005  # seconds
_LAST = 19  # the lowest priority


def lower_thread_priority() -> None:
    """In a thread. All threads of the network wait for the last one at every operation, so that one
    thread beside them that takes its processor for a while costs the time of them all."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LAST)


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """The network asks Python for its turn at every operation, and would wait each time for as long
    as a thread beside it may go on: 5 ms, unless something shorter is said."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def prefetch(read: Callable[[_ANY], _MADE], things: Iterable[_ANY]) -> Iterator[tuple[_ANY, _MADE]]:
    """Each thing and what was read of it, in their order: while the caller works on one, a thread
    reads the next. What was handed out is not held here."""
    with ThreadPoolExecutor(1, "ahead", lower_thread_priority) as pool:
        waiting: deque[tuple[_ANY, Future[_MADE]]] = deque()
        for thing in things:
            waiting.append((thing, pool.submit(read, thing)))
            if len(waiting) > 1:
                yield _result(*waiting.popleft())
        if waiting:
            yield _result(*waiting.popleft())


def _result(thing: _ANY, job: Future[_MADE]) -> tuple[_ANY, _MADE]:
    return thing, job.result()


class BackgroundWorker:
    """Does one thing after the other in a thread, while the caller goes on; never more than one
    waits. What was done is not held, and an error comes with the next one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "behind", lower_thread_priority)
        self._last: Future[None] | None = None

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def __call__(self, do: Callable[..., None], *given: Any) -> None:
        """Once what was given before is done."""
        self.wait()
        self._last = self._pool.submit(do, *given)

    def wait(self) -> None:
        """Until all is done."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
