"""Errors of files that hold arrays: MATLAB files (.mat) and NumPy files (.npy)."""

from __future__ import annotations

import struct
import tokenize
import zlib

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import first_line

# What the standard library and NumPy raise on damaged files.
DAMAGED = (
    *(ValueError, TypeError, KeyError, IndexError, OSError, OverflowError, SyntaxError),
    *(struct.error, zlib.error, tokenize.TokenError, RecursionError, MemoryError),
)


class DamagedError(ValueError):
    """A file is damaged, for a reason that can be translated: its `Message`."""


def truncated(missing: int) -> DamagedError:
    """Return the error for a file that ends too early."""
    return DamagedError(msg("it is truncated, {missing} bytes are missing", missing=missing))


def reason_of(error: BaseException) -> str:
    """Return why a file is damaged, for a message."""
    return error.args[0] if isinstance(error, DamagedError) else first_line(error)


def not_a_mask(name: str, content: str, shape: tuple[int, ...], hint: str) -> FullconvError:
    """Return the error for an array that holds other numbers, or has another shape, than a mask."""
    values = {"name": name, "content": content, "shape": shape}
    message = msg(
        "mask {name} holds {content} of shape {shape}; expected whole numbers (height, width).",
        **values,
    )
    return FullconvError(message, hint)
