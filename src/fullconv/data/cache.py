"""Decoded pictures and masks, kept in memory that all reading processes share: each file is decoded
once per training, not once per epoch, as long as the budget lasts."""

from __future__ import annotations

import mmap
import multiprocessing
from typing import Any

import numpy as np

from fullconv.errors import FullconvError

_CLAIMED, _READY = 1, 2
_FIELDS = 5  # of an entry: whether it is there, place, height, width, bytes per id of the mask


class Cache:
    """Keeps pairs of a picture (H, W, 3 uint8) and its mask (H, W, uint8 or int32) by number.

    Memory is taken from the system only as it is filled. It is shared with processes that are
    forked; where they are started anew (Windows, macOS), they have a cache that keeps nothing.

    Args:
        count: of pairs.
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
                f"there are no {budget / 2**30:.3g} GiB of memory to keep decoded pictures in: "
                f"{error}.",
                "--cache 0.2   # GiB; 0 keeps none",
            ) from None
        entries = mmap.mmap(-1, 8 * _FIELDS * (count + 1))
        self._entries = np.frombuffer(entries, np.int64).reshape(count + 1, _FIELDS)
        self._lock = multiprocessing.get_context("fork").Lock() if _can_fork() else _NoLock()

    def __reduce__(self) -> Any:
        return Cache, (0, 0)

    def get(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The pair, as views that must not be written to; None if it is not there."""
        if not (self.count and self.budget):
            return None
        there, place, height, width, size = (int(x) for x in self._entries[number])
        if there != _READY:
            return None
        pixels = height * width
        picture = np.frombuffer(self._memory, np.uint8, 3 * pixels, place)
        ids = np.frombuffer(
            self._memory, np.uint8 if size == 1 else np.int32, pixels, place + _even(3 * pixels)
        )
        return picture.reshape(height, width, 3), ids.reshape(height, width)

    def put(self, number: int, picture: np.ndarray, mask: np.ndarray) -> None:
        """Keeps a pair if the budget allows."""
        if not (self.count and self.budget):
            return
        ids = mask if mask.dtype == np.uint8 else mask.astype(np.int32)
        size = _even(picture.size) + _even(ids.nbytes)
        used = self._entries[self.count]
        with self._lock:
            place = int(used[0])
            if self._entries[number, 0] or place + size > self.budget:
                return
            used[0] = place + size
            self._entries[number, 0] = _CLAIMED  # no other process takes room for it
        for at, array in ((place, picture), (place + _even(picture.size), ids)):
            kept = np.frombuffer(self._memory, np.uint8, array.nbytes, at)
            kept[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._entries[number, 1:] = place, *ids.shape, ids.itemsize
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
