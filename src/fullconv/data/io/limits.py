"""Limits: how large files and images may be, how many are decoded at once, and who speaks of it.

Damaged files promise anything: what a header says is held against these limits before memory is
taken for it. Libraries are kept from talking: what is wrong with a file is said once, by us.

Shapes: H, W image.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import release_memory
from fullconv.core.text import shell_command

_AT_ONCE = 1 << 26  # pixels that are decoded by all threads together
_LARGE = 1 << 24  # pixels of an image before which memory is tidied up
_MOST_BYTES = 1 << 30  # of a file that is read whole

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it writes to stderr


class TooLargeError(FullconvError):
    """More pixels than are read."""


def refuse_large(size: tuple[int, int], what: str, name: str, *, share: float = 1) -> None:
    """(H, W) of more pixels than are read at once: Pillow's own limit, which can be moved, or a
    share of it."""
    most = share * (Image.MAX_IMAGE_PIXELS or float("inf"))
    if size[0] * size[1] > most:
        raise TooLargeError(
            f"{what} {name} says that it has {size[0]} x {size[1]} pixels (height x width), "
            f"{size[0] * size[1] / 1e6:.0f} million; at most {most / 1e6:.0f} million are read.",
            "cut it into tiles, or set PIL.Image.MAX_IMAGE_PIXELS = None",
        )


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Images of any number of pixels are read meanwhile."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_content(path: Path, what: str = "image") -> bytes:
    """The bytes of a file of a size that an image or a mask can have."""
    try:
        size = path.stat().st_size
        if size <= _MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        said = error.strerror or error
        raise FullconvError(
            f"{what} {path} cannot be read: {said}.", shell_command("ls", "-l", path)
        ) from error
    raise FullconvError(
        f"{what} {path} has {size / 1e9:.1f} GB; files up to {_MOST_BYTES / 1e9:.1f} GB are read.",
        "cut it into tiles",
    )


class _Quiet:
    """While any thread is inside, no warning is shown. `warnings.catch_warnings` alone is not for
    threads: the one that leaves last would bring back what it found, not what was there first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._outside = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._outside = warnings.catch_warnings()
                self._outside.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._outside.__exit__(None, None, None)


class _Room:
    """Lets threads decode at once what has so many pixels together, or one image that has more:
    memory does not grow with the number of processors. Not to be entered twice by one thread."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._change = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Waits until there is room."""
        with self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels
        if pixels >= _LARGE:
            release_memory()
        try:
            yield
        finally:
            with self._change:
                self._taken -= pixels
                self._change.notify_all()


quiet = _Quiet()
room = _Room(_AT_ONCE)
