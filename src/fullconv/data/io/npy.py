"""Read NumPy files (.npy): masks and extra inputs.

The header is checked against the size of the file, and the numbers are not copied.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.data.io.array_errors import DAMAGED, DamagedError, not_a_mask, reason_of, truncated
from fullconv.data.io.limits import kind_name, no_warnings, read_content, read_or_map, refuse_large

_HEADER = 1 << 16  # bytes at the start that hold any header that NumPy accepts


def read_npy_mask(source: str | Path | IO[bytes], name: str) -> NDArray[Any]:
    """Read (H, W) whole numbers from a .npy file. Anything else is a `FullconvError`."""
    values = read_npy(source, name, "mask")
    if values.ndim != 2 or values.dtype.kind not in "uib":
        one_hot = "array.argmax(-1)" if values.ndim == 3 else "array"
        hint = f"np.save({name!r}, {one_hot}.astype('uint8'))"
        raise not_a_mask(name, str(values.dtype), values.shape, hint)
    return values


def read_npy(source: str | Path | IO[bytes], name: str, kind: str) -> NDArray[Any]:
    """Read a .npy file that holds numbers as a read-only array, without a copy of its content.

    Raises:
        FullconvError: the file cannot be read, or is larger than 1 GiB and `kind` is "mask".
    """
    if kind == "input" and isinstance(source, str | Path):
        content = read_or_map(Path(source), kind)
    else:
        content = read_content(source, kind)
    file = io.BytesIO(content[:_HEADER])
    try:
        with no_warnings:
            version = npy_format.read_magic(file)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise DamagedError(msg("its format version {version} is unknown", version=version))
            # Version 3 differs from 2 only in the names of fields, which no mask has.
            read_1, read_2 = npy_format.read_array_header_1_0, npy_format.read_array_header_2_0
            shape, fortran, dtype = read_1(file) if version == (1, 0) else read_2(file)
        if min(shape, default=0) < 0:
            raise DamagedError(msg("its shape is negative"))
        if len(shape) >= 2:
            refuse_large((shape[0], shape[1]), kind, name)
        missing = math.prod(shape) * dtype.itemsize - (len(content) - file.tell())
        if missing > 0:
            raise truncated(missing)
        values = np.frombuffer(content, dtype, math.prod(shape), file.tell())
        return values.reshape(shape, order="F" if fortran else "C")
    except DAMAGED as error:
        facts = {"kind": kind_name(kind), "name": name, "reason": reason_of(error)}
        message = msg("{kind} {name} cannot be read as a NumPy file: {reason}.", **facts)
        hint = msg(
            "copy or download {file} again, or save it with np.save({name!r}, array)",
            file=Path(name).name,
            name=name,
        )
        raise FullconvError(message, hint) from error
