"""MATLAB files with labels: SBD, PASCAL-Context, SIFT Flow, NYUDv2 and their like.

scipy reads them; files of version 7.3, which are HDF5, it does not.

Shapes: H, W picture.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import FullconvError

# Variables that hold labels, by data set.
_LABELS = ("LabelMap", "S", "segmentation", "labels", "mask", "label")
_BROKEN = (ValueError, TypeError, KeyError, IndexError, OSError, EOFError, struct.error)
_ALSO_BROKEN = (zlib.error, OverflowError, AttributeError, MemoryError)


def read_labels(source: str | Path | IO[bytes], name: str) -> NDArray[Any]:
    """(H, W) whole numbers: GTcls.Segmentation (SBD), LabelMap (PASCAL-Context), S (SIFT Flow),
    segmentation (NYUDv2), or the only matrix of whole numbers that there is.

    Raises:
        FullconvError: it cannot be read, or it is open which variable is meant.
    """
    table = _load(source, name)
    if "GTcls" in table:
        inner = np.asarray(table["GTcls"]).ravel()
        fields = inner.dtype.names or ()
        if "Segmentation" in fields and inner.size:
            return _whole(np.asarray(inner[0]["Segmentation"]), name)
    known = [key for key in _LABELS if key in table]
    matrices = [
        key for key, value in table.items() if value.ndim == 2 and value.dtype.kind in "uifb"
    ]
    key = known[0] if known else matrices[0] if len(matrices) == 1 else None
    if key is None:
        shown = ", ".join(f"{key} {value.shape}" for key, value in list(table.items())[:8])
        raise FullconvError(
            f"mask {name}: it is open which variable holds the labels. Found {shown or 'none'}; "
            f"expected GTcls, {', '.join(_LABELS)}, or one matrix.",
            f"scipy.io.savemat({name!r}, {{'labels': ids}})",
        )
    return _whole(table[key], name)


def read_names(path: Path) -> list[str]:
    """The class names that a file of SIFT Flow carries beside its labels; [] where it has none."""
    found = _load(path, str(path)).get("names")
    if found is None:
        return []
    return [str(np.asarray(cell).ravel()[0]) for cell in found.ravel() if np.asarray(cell).size]


def _load(source: str | Path | IO[bytes], name: str) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = source.read() if hasattr(source, "read") else Path(source).read_bytes()
        if content[:19] == b"MATLAB 7.3 MAT-file" or content[512:520] == b"\x89HDF\r\n\x1a\n":
            raise NotImplementedError
        table = loadmat(io.BytesIO(content))
    except NotImplementedError as error:
        raise FullconvError(
            f"mask {name} is a MATLAB file of version 7.3 (HDF5); expected version 5 to 7.",
            "in MATLAB: save('labels.mat', 'labels', '-v7')",
        ) from error
    except FileNotFoundError as error:
        raise FullconvError(
            f"no mask {name}: there is no such file.", f"ls {Path(name).parent}"
        ) from error
    except (*_BROKEN, *_ALSO_BROKEN, MatReadError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise FullconvError(
            f"mask {name} cannot be read as a MATLAB file: {said}.",
            f"copy or download {Path(name).name} again, or take it out of the data",
        ) from error
    return {k: np.asarray(v) for k, v in table.items() if not k.startswith("__")}


def _whole(values: NDArray[Any], name: str) -> NDArray[Any]:
    fine = values.ndim == 2 and values.size and values.dtype.kind in "uifb"
    if fine and values.dtype.kind == "f":
        fine = bool((np.isfinite(values) & (values == np.round(values))).all())
    if not fine:
        raise FullconvError(
            f"mask {name} holds {values.dtype} of shape {values.shape}; expected whole numbers "
            "(height, width).",
            f"scipy.io.savemat({name!r}, {{'labels': ids}})",
        )
    return values
