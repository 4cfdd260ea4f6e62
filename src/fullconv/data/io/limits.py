"""Limits on the size of files and images, and on how much is decoded at once.

The header of a damaged file can claim any size, so it is checked before memory is allocated.
Warnings of libraries are silenced: we report ourselves what is wrong with a file.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import release_memory
from fullconv.core.i18n import Message, msg
from fullconv.core.text import shell_command

_DECODED_AT_ONCE = 1 << 26  # pixels, by all threads together
_LARGE = 1 << 24  # pixels of an image for which unused memory is released first
_MAX_BYTES = 1 << 30  # of a file that is read whole
_KINDS = {
    "image": msg("image"),
    "mask": msg("mask"),
    "input": msg("extra input"),
    "bitmask": msg("bitmask"),
}

logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise it writes to stderr


class TooLargeError(FullconvError):
    """The image has more pixels than are read."""


def kind_name(kind: str) -> str:
    """Return the word for "image", "mask", "input" or "bitmask" in a message."""
    return _KINDS.get(kind, kind)


def refuse_large(size: tuple[int, int], kind: str, name: str, *, share: float = 1) -> None:
    """Raise `TooLargeError` if (H, W) has more pixels than Pillow's limit, or a share of it."""
    limit = share * (Image.MAX_IMAGE_PIXELS or float("inf"))
    pixels = size[0] * size[1]
    if pixels > limit:
        message = msg(
            "the header of {kind} {name} claims {height} x {width} pixels (height x width), "
            "{millions:.0f} million; at most {limit:.0f} million are read.",
            kind=kind_name(kind),
            name=name,
            height=size[0],
            width=size[1],
            millions=pixels / 1e6,
            limit=limit / 1e6,
        )
        raise TooLargeError(message, large_image_hint())


def large_image_hint() -> Message:
    """Return what to do about an image that is too large."""
    return msg("cut it into tiles, or set PIL.Image.MAX_IMAGE_PIXELS = None")


def missing_file(kind: str, path: str | Path) -> FullconvError:
    """Return the error for a file that does not exist, with a hint to list the nearest folder."""
    nearest = next((p for p in Path(path).parents if p.is_dir()), Path())
    message = msg("no {kind} {path}: there is no such file.", kind=kind_name(kind), path=path)
    return FullconvError(message, shell_command("ls", nearest))


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Read images of any size inside the block."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_content(source: str | Path | IO[bytes], kind: str = "image") -> bytes:
    """Return the bytes of an open file, or of a path; at most 1 GiB, more than any mask needs."""
    if not isinstance(source, str | Path):
        return source.read()
    path = Path(source)
    with _reading(path, kind):
        size = path.stat().st_size
        if size <= _MAX_BYTES:
            return path.read_bytes()
    values = {"kind": kind_name(kind), "path": path, "size": size / 1e9, "limit": _MAX_BYTES / 1e9}
    message = msg("{kind} {path} has {size:.1f} GB; files up to {limit:.1f} GB are read.", **values)
    raise FullconvError(message, msg("cut it into tiles"))


def read_or_map(path: Path, kind: str) -> bytes | mmap.mmap:
    """Return the bytes of a file of any size. A file over 1 GiB is mapped into memory."""
    # Smaller files are not mapped: if a mapped file is truncated meanwhile, the process dies.
    with _reading(path, kind), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= _MAX_BYTES:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise missing_file(kind, path) from error
    except OSError as error:
        values = {"kind": kind_name(kind), "path": path, "reason": error.strerror or error}
        message = msg("{kind} {path} cannot be read: {reason}.", **values)
        raise FullconvError(message, shell_command("ls", "-l", path)) from error


class _NoWarnings:
    """Silences warnings while any thread is inside.

    `warnings.catch_warnings` is not thread-safe: the last thread restores the filters it met.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._catcher = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._catcher = warnings.catch_warnings()
                self._catcher.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._catcher.__exit__(None, None, None)


class DecodeBudget:
    """Bounds the pixels that all threads decode at once. A thread must not reserve twice."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._reserved = 0
        self._change = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until the pixels fit, or until no other thread decodes."""
        with self._change:
            while self._reserved and self._reserved + pixels > self._pixels:
                self._change.wait()
            self._reserved += pixels
        if pixels >= _LARGE:
            release_memory()
        try:
            yield
        finally:
            with self._change:
                self._reserved -= pixels
                self._change.notify_all()


no_warnings = _NoWarnings()
decode_budget = DecodeBudget(_DECODED_AT_ONCE)
