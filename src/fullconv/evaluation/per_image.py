"""Confusion matrices of the single images of a split, stored next to the metrics of a run.

Runs are compared by them, without their data. An image shows a few classes and confuses them with a
few others, so its K x K matrix is a row of a sparse matrix, (n, K * K): the pixels of true class i
that were predicted as class j are in column i * K + j.

`counts_<split>.npz` holds no pickles:

    facts                  JSON: images, heads and their classes, protocol card
    pixels_0, columns_0,   the sparse matrix of the first head (`data`, `indices` and `indptr` of
    ends_0                 scipy.sparse.csr_array); pixels_1 ... those of additional heads

n images · K classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import Message, msg
from fullconv.core.metric_names import current_names
from fullconv.core.text import first_line, shell_command, truncated_list

FORMAT = "fullconv-counts/2"
_PARTS = ("pixels", "columns", "ends")
_FORMER = "fullconv-counts/1"  # the same under other names; its ends lack the leading 0
_FORMER_PARTS = ("pixels", "cells", "ends")
MAX_BYTES = 2 << 30  # of all arrays of a file; COCO-Stuff (5,000 images, 171 classes) needs 10 MB
MAX_CLASSES = 1 << 13  # a matrix of 8192 classes takes 512 MiB
# What zipfile, NumPy and json raise for damaged files.
_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, SyntaxError,
    RuntimeError, OverflowError, MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class ImageConfusions:
    """Confusion matrices of one head."""

    classes: tuple[str, ...]
    counts: csr_array  # (n, K * K) pixels

    @classmethod
    def from_rows(cls, classes: Sequence[str], rows: Sequence[csr_array]) -> ImageConfusions:
        """Join what `sparse_row` made of each image's matrix."""
        empty = csr_array((0, len(classes) ** 2), dtype=np.int64)
        return cls(tuple(classes), csr_array(vstack([empty, *rows], format="csr")))

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def confusion(self, number: int | None = None) -> np.ndarray:
        """Return the matrix of one image, or the sum of all: (K, K) int64, rows are the truth."""
        size = len(self.classes)
        rows = self.counts if number is None else self.counts[[number]]
        return np.asarray(rows.sum(axis=0), dtype=np.int64).reshape(size, size)

    @cached_property
    def margins(self) -> np.ndarray:
        """Correct, true and predicted pixels of each class in each image: (n, 3, K) float64. All
        metrics follow from them."""
        size = len(self.classes)
        cells = self.counts.tocoo()
        truth, prediction = np.divmod(cells.col, size)
        correct = cells.data * (truth == prediction)
        first = cells.row.astype(np.int64) * size  # of the places of an image
        sums = [
            np.bincount(first + classes, pixels, len(self) * size).reshape(-1, size)
            for classes, pixels in ((truth, correct), (truth, cells.data), (prediction, cells.data))
        ]
        return np.stack(sums, axis=1)


def sparse_row(confusion: np.ndarray) -> csr_array:
    """Return a confusion matrix (K, K) as a sparse row (1, K * K)."""
    return csr_array(confusion.reshape(1, -1).astype(np.int64))


def content_fingerprint(hashes: Sequence[str]) -> str:
    """Return a fingerprint of an image and its masks, by the hashes of the files: 16 digits."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SplitConfusions:
    """Confusion matrices of one evaluation, for all heads."""

    images: tuple[str, ...]  # names, unique in their split
    contents: tuple[str, ...]  # see `content_fingerprint`
    heads: Mapping[str, ImageConfusions]  # the first head first; "" if there is only one
    protocol: Mapping[str, Any]  # see `fullconv.evaluation.protocol.protocol_card`
    data: str = ""  # folder of the dataset
    weights: str = ""  # sha256 of the model's weights, if it is known

    def save(self, path: str | Path) -> Path:
        """Write the file atomically.

        Raises:
            FullconvError: the file cannot be written.
        """
        path = Path(path)
        classes = {name: head.classes for name, head in self.heads.items()}
        facts = {"format": FORMAT, **vars(self), "heads": classes}
        text = json.dumps(facts).encode()
        arrays = {"facts": np.frombuffer(text, np.uint8)}
        for number, head in enumerate(self.heads.values()):
            counts = head.counts
            small = counts.data.max(initial=0) < 2**32
            arrays[f"pixels_{number}"] = counts.data.astype(np.uint32 if small else np.uint64)
            arrays[f"columns_{number}"] = counts.indices.astype(np.uint32)
            arrays[f"ends_{number}"] = counts.indptr.astype(np.int64)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        try:
            atomic_write(path, content.getvalue())
        except OSError as error:
            reason = error.strerror or error
            problem = msg(
                "could not write per-image counts to {path}: {reason}.", path=path, reason=reason
            )
            raise FullconvError(problem, "--counts ANOTHER_FOLDER/counts.npz") from error
        return path

    @classmethod
    def read(cls, path: str | Path) -> SplitConfusions:
        """Read what `save` wrote, in this format or the former one.

        Files come from strangers: no pickle is loaded, no array is larger than its file claims,
        and all claims together are bounded.

        Raises:
            FullconvError: the file is missing, damaged or of another kind.
        """
        path = Path(path)
        try:
            with path.open("rb") as content, zipfile.ZipFile(content) as archive:
                return cls._from_archive(archive)
        except FileNotFoundError:
            reason: str = msg("there is no such file")
        except _DAMAGED as error:
            cause = error.args[0] if error.args else ""
            reason = cause if isinstance(cause, Message) else first_line(error)
        raise FullconvError(
            msg("cannot read {path} as per-image counts: {reason}.", path=path, reason=reason),
            shell_command("fullconv", "evaluate", "MODEL", "DATA", "--counts", path),
        )

    @classmethod
    def _from_archive(cls, archive: zipfile.ZipFile) -> SplitConfusions:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise ValueError(msg("it holds more than {gib} GiB", gib=MAX_BYTES >> 30))
        facts = json.loads(_read_array(archive, "facts").tobytes())
        form = facts["format"]
        if form not in (FORMAT, _FORMER):
            problem = msg(
                "its format is {format!r}; this version reads {known!r}", format=form, known=FORMAT
            )
            raise ValueError(problem)
        if form == _FORMER:
            facts = current_names(facts)
        images = tuple(map(str, facts["images"]))
        heads = {}
        for number, (name, classes) in enumerate(facts["heads"].items()):
            if form == FORMAT:
                names = [f"{part}_{number}" for part in _PARTS]
            else:
                names = [part + (f"_{number}" if number else "") for part in _FORMER_PARTS]
            pixels, columns, ends = (_read_array(archive, key) for key in names)
            if form == _FORMER:
                ends = np.concatenate([np.zeros(1, ends.dtype), ends])
            matrix = _checked(pixels, columns, ends, len(images), len(classes))
            heads[name] = ImageConfusions(tuple(map(str, classes)), matrix)
        contents, protocol = tuple(map(str, facts["contents"])), dict(facts["protocol"])
        return cls(images, contents, heads, protocol, str(facts["data"]), str(facts["weights"]))

    def head(self, name: str = "") -> ImageConfusions:
        """Return the counts of a head; the first one by default.

        Raises:
            FullconvError: no head has this name.
        """
        if not name:
            return next(iter(self.heads.values()))
        if name in self.heads:
            return self.heads[name]
        if not any(self.heads):
            raise FullconvError(
                msg("no head {name!r} was evaluated; the model has only one head.", name=name),
                msg("run the command again without --head"),
            )
        heads = truncated_list([*self.heads])
        problem = msg("no head {name!r} was evaluated; there are {heads}.", name=name, heads=heads)
        raise FullconvError(problem, f"--head {next(iter(self.heads))}")


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read a one-dimensional array of integers; memory is bounded by the size of the entry."""
    content = archive.read(f"{name}.npy")
    file = io.BytesIO(content)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
    if dtype.kind not in "ui" or len(shape) != 1 or not 0 <= shape[0] <= len(content):
        text = msg("{name} is no list of integers, but {dtype}", name=name, dtype=str(dtype))
        raise ValueError(text)
    return np.frombuffer(content, dtype, shape[0], file.tell())


def _checked(
    pixels: np.ndarray, columns: np.ndarray, ends: np.ndarray, images: int, classes: int
) -> csr_array:
    """Build the sparse matrix if its parts fit; nothing is allocated by what they claim."""
    fits = (
        0 < classes <= MAX_CLASSES
        and len(pixels) == len(columns)
        and len(ends) == images + 1
        and ends[0] == 0
        and ends[-1] == len(columns)
        and bool((ends[1:] >= ends[:-1]).all())
        and int(columns.min(initial=0)) >= 0
        and int(columns.max(initial=0)) < classes**2
        and int(pixels.min(initial=0)) >= 0
        and int(pixels.max(initial=0)) <= 2**53
    )
    if not fits:
        raise ValueError(msg("its parts do not fit each other"))
    shape = (images, classes**2)
    wide = np.int64 if max(math.prod(shape), len(columns)) >= 2**31 else np.int32
    parts = (pixels.astype(np.int64), columns.astype(wide), ends.astype(wide))
    return csr_array(parts, shape=shape)


def run_containing(model: str | Path) -> Path | None:
    """Return the run folder that contains a model: runs/a or runs/a/model -> runs/a; else None."""
    path = Path(model)
    folder = path.parent if path.name == "model" else path
    parts = (folder / "model" / "config.json", folder / "config.toml")
    return folder if all(part.is_file() for part in parts) else None


def require_npz(path: Path | None) -> None:
    """Refuse a file name that `fullconv compare` would not accept."""
    if path is not None and path.suffix != ".npz":
        raise FullconvError(
            msg("per-image counts are saved as .npz, not as {name!r}.", name=path.name),
            shell_command("--counts", f"{path.name}.npz"),
        )


def file_in(run: Path, split: str) -> Path:
    """Return the path of the counts of a split."""
    return run / f"counts_{split}.npz"


def weights_of(run: Path) -> str:
    """Return the sha256 of a run's weights; "" if it is unknown."""
    try:
        config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
        return str(config["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def save_next_to_run(counts: SplitConfusions, run: Path) -> Path:
    """Write the counts of a run's model next to its metrics; see `SplitConfusions.save`."""
    with_weights = replace(counts, weights=weights_of(run))
    return with_weights.save(file_in(run, counts.protocol["split"]))
