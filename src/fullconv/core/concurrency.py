"""Threads that read and write next to the network without slowing it down."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_ITEM = TypeVar("_ITEM")
_RESULT = TypeVar("_RESULT")
SWITCH_INTERVAL = 0.0005  # seconds
_LOWEST_PRIORITY = 19


def lower_thread_priority() -> None:
    """Lower this thread's priority, so that I/O does not delay the network (Linux only).

    The network's threads wait at every operation for the slowest of them.
    """
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Make Python switch threads after 0.5 ms instead of 5 ms, which every operation would wait."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_INTERVAL))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def prefetch(
    read: Callable[[_ITEM], _RESULT], items: Iterable[_ITEM]
) -> Iterator[tuple[_ITEM, _RESULT]]:
    """Yield each item with its `read` result; a thread reads the next one in the meantime."""
    with ThreadPoolExecutor(1, "prefetch", lower_thread_priority) as pool:
        pending: deque[tuple[_ITEM, Future[_RESULT]]] = deque()
        for item in items:
            pending.append((item, pool.submit(read, item)))
            if len(pending) > 1:
                yield _resolve(*pending.popleft())
        if pending:
            yield _resolve(*pending.popleft())


def _resolve(item: _ITEM, future: Future[_RESULT]) -> tuple[_ITEM, _RESULT]:
    # A function of its own: a local variable of the generator would keep the result alive.
    return item, future.result()


class BackgroundWorker:
    """Run one call after the other in a thread, at most one waiting; errors come at the next."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "worker", lower_thread_priority)
        self._last: Future[None] | None = None

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def __call__(self, function: Callable[..., None], *arguments: Any) -> None:
        """Start a call, after the previous one has ended."""
        self.wait()
        self._last = self._pool.submit(function, *arguments)

    def wait(self) -> None:
        """Wait until the last call has ended."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
