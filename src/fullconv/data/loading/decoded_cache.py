"""Decoded images and masks, kept in memory that all reading processes share: each file is decoded
once per training, not once per epoch, as long as the budget lasts.

In memory each array is a head of `_HEAD` whole numbers (its kind, its shape) and its bytes."""

from __future__ import annotations

import math
import mmap
import multiprocessing
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError

_CLAIMED, _READY = 1, 2
_FIELDS = 3  # of an entry: whether it is there, place, how many arrays
_HEAD = 4
_KINDS = (np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.float32))


class DecodedCache:
    """Keeps by number the arrays of a pair: its image, its masks, further channels. They come
    back as uint8 or float32 where they are that, else as int32.

    Memory is taken from the system only as it is filled. It is shared with processes that are
    forked; where they are started anew (Windows, macOS), they have a cache that keeps nothing.

    Args:
        count: of pairs, none of whose arrays is empty or has more than three dimensions.
        budget: in bytes.
    """

    def __init__(self, count: int, budget: int) -> None:
        self.count, self.budget = count, budget
        if not (count and budget):
            return
        # An anonymous mapping: shared by fork, and not limited as /dev/shm is in containers.
        try:
            self._memory = mmap.mmap(-1, budget)
        except (OSError, OverflowError) as error:
            raise FullconvError(
                f"there are no {budget / 2**30:.3g} GiB of memory to keep decoded images in: "
                f"{error}.",
                "--cache 0.2   # GiB; 0 keeps none",
            ) from None
        entries = mmap.mmap(-1, 8 * _FIELDS * (count + 1))
        self._entries = np.frombuffer(entries, np.int64).reshape(count + 1, _FIELDS)
        self._lock = multiprocessing.get_context("fork").Lock() if _can_fork() else _NoLock()

    def __reduce__(self) -> Any:
        return DecodedCache, (0, 0)

    def get(self, number: int) -> list[np.ndarray] | None:
        """The arrays, as views that must not be written to; None if they are not there."""
        if not (self.count and self.budget):
            return None
        there, place, count = (int(x) for x in self._entries[number])
        if there != _READY:
            return None
        found = []
        for _ in range(count):
            kind, *sides = np.frombuffer(self._memory, np.int64, _HEAD, place).tolist()
            shape = [side for side in sides if side]
            place += 8 * _HEAD
            array = np.frombuffer(self._memory, _KINDS[kind], math.prod(shape), place)
            found.append(array.reshape(shape))
            place += _even(array.nbytes)
        return found

    def put(self, number: int, *arrays: np.ndarray) -> None:
        """Keeps them if the budget allows."""
        if not (self.count and self.budget):
            return
        kept = [a if a.dtype in _KINDS else a.astype(np.int32) for a in arrays]
        size = sum(8 * _HEAD + _even(array.nbytes) for array in kept)
        used = self._entries[self.count]
        with self._lock:
            place = int(used[0])
            if self._entries[number, 0] or place + size > self.budget:
                return
            used[0] = place + size
            self._entries[number, 0] = _CLAIMED  # no other process takes room for it
        self._entries[number, 1:] = place, len(kept)
        for array in kept:
            head = np.frombuffer(self._memory, np.int64, _HEAD, place)
            head[:] = [_KINDS.index(array.dtype), *array.shape, *[0] * (3 - array.ndim)]
            place += 8 * _HEAD
            room = np.frombuffer(self._memory, np.uint8, array.nbytes, place)
            room[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            place += _even(array.nbytes)
        self._entries[number, 0] = _READY  # last: another process may look at any time


class _NoLock:
    """Where nothing is forked, nothing is shared."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def _even(size: int) -> int:
    """Up to the next multiple of 8: whole numbers start where the processor likes it."""
    return -(-size // 8) * 8
