"""Labels in NumPy's .npy files. Their header is read and their numbers are taken as they lie; what
else NumPy would open behind that name, pickles and archives, is not.

Shapes: H, W picture.
"""

from __future__ import annotations

import io
import math
import tokenize
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.data.io.limits import quiet, read_content, refuse_large

# What NumPy is known to raise on broken headers, which it reads with Python's own parser.
_BROKEN = (ValueError, TypeError, KeyError, SyntaxError, EOFError, tokenize.TokenError)
_ALSO_BROKEN = (OverflowError, RecursionError, MemoryError)


def read_array(source: str | Path | IO[bytes], name: str) -> NDArray[Any]:
    """(H, W) whole numbers.

    Raises:
        FullconvError: it cannot be read, or it holds something else.
    """
    is_path = isinstance(source, str | Path)
    content = read_content(Path(source), "mask") if is_path else source.read()  # type: ignore
    file = io.BytesIO(content)
    try:
        shape, fortran, kind = _header(file)
    except (*_BROKEN, *_ALSO_BROKEN) as error:
        raise _unreadable(name, str(error) or type(error).__name__) from error
    if len(shape) != 2 or kind.kind not in "uib":
        one_hot = "array.argmax(-1)" if len(shape) == 3 else "array"
        raise FullconvError(
            f"mask {name} holds {kind} of shape {shape}; expected whole numbers (height, width).",
            f"np.save({name!r}, {one_hot}.astype('uint8'))",
        )
    refuse_large((shape[0], shape[1]), "mask", name)
    missing = math.prod(shape) * kind.itemsize - (len(content) - file.tell())
    if missing > 0:
        raise _unreadable(name, f"it is cut off, {missing} bytes are missing")
    values = np.frombuffer(content, kind, math.prod(shape), file.tell())
    return values.reshape(shape, order="F" if fortran else "C")


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and the type of the numbers."""
    with quiet:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
        # Version 3 differs from 2 in the names of fields alone, which no mask has.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran, kind


def _unreadable(name: str, said: str) -> FullconvError:
    return FullconvError(
        f"mask {name} cannot be read as a NumPy file: {said.splitlines()[0].rstrip('.')}.",
        f"copy or download {Path(name).name} again, or np.save({name!r}, ids.astype('uint8'))",
    )
