"""Decoded images and masks in memory that all workers share.

Each file is decoded once per run instead of once per epoch, as long as the memory budget lasts.
Each array is stored as a header of `_HEADER` integers (dtype and shape) and its bytes.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import multiprocessing
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg

_CLAIMED, _READY = 1, 2
_FIELDS = 3  # of an entry: state, offset, number of arrays
_HEADER = 4
_DTYPES = (np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.float32))


class DecodedCache:
    """The arrays of each of `count` pairs (image, masks, extra channels), up to `budget` bytes.

    No array is empty or has more than three dimensions. Arrays come back as uint8 or float32 if
    they are, else as int32. The system provides memory only as it is filled. It is shared with
    forked processes; spawned processes (Windows, macOS) get a cache that keeps nothing.
    """

    def __init__(self, count: int, budget: int) -> None:
        self.count, self.budget = count, budget
        if not (count and budget):
            return
        # An anonymous mapping is shared by fork, and not limited as /dev/shm is in containers.
        try:
            self._memory = mmap.mmap(-1, budget)
        except (OSError, OverflowError) as error:
            message = msg(
                "not enough memory for a cache of {size:.3g} GiB for decoded images: {reason}.",
                size=budget / 2**30,
                reason=str(error),
            )
            raise FullconvError(message, msg("--cache 0.2   # GiB; 0 disables the cache")) from None
        entries = mmap.mmap(-1, 8 * _FIELDS * (count + 1))  # the last one: bytes in use
        self._entries = np.frombuffer(entries, np.int64).reshape(count + 1, _FIELDS)
        self._lock: Any = contextlib.nullcontext()  # nothing is shared without fork
        if "fork" in multiprocessing.get_all_start_methods():
            self._lock = multiprocessing.get_context("fork").Lock()

    def __reduce__(self) -> Any:
        return DecodedCache, (0, 0)

    def get(self, index: int) -> list[np.ndarray] | None:
        """Return the arrays, as views that must not be written to; None if they are not cached."""
        if not (self.count and self.budget):
            return None
        state, offset, count = (int(x) for x in self._entries[index])
        if state != _READY:
            return None
        arrays = []
        for _ in range(count):
            dtype, *sides = np.frombuffer(self._memory, np.int64, _HEADER, offset).tolist()
            shape = [side for side in sides if side]
            offset += 8 * _HEADER
            array = np.frombuffer(self._memory, _DTYPES[dtype], math.prod(shape), offset)
            arrays.append(array.reshape(shape))
            offset += _aligned(array.nbytes)
        return arrays

    def put(self, index: int, *arrays: np.ndarray) -> None:
        """Store the arrays of a pair if the budget allows."""
        if not (self.count and self.budget):
            return
        stored = [a if a.dtype in _DTYPES else a.astype(np.int32) for a in arrays]
        size = sum(8 * _HEADER + _aligned(array.nbytes) for array in stored)
        used = self._entries[self.count]
        with self._lock:
            offset = int(used[0])
            if self._entries[index, 0] or offset + size > self.budget:
                return
            used[0] = offset + size
            self._entries[index, 0] = _CLAIMED  # so that no other process stores this pair
        self._entries[index, 1:] = offset, len(stored)
        for array in stored:
            header = np.frombuffer(self._memory, np.int64, _HEADER, offset)
            header[:] = [_DTYPES.index(array.dtype), *array.shape, *[0] * (3 - array.ndim)]
            offset += 8 * _HEADER
            target = np.frombuffer(self._memory, np.uint8, array.nbytes, offset)
            target[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            offset += _aligned(array.nbytes)
        self._entries[index, 0] = _READY  # last: another process may read it at any time


def _aligned(size: int) -> int:
    """Round up to a multiple of 8 bytes, so that the integers of a header are aligned."""
    return -(-size // 8) * 8
