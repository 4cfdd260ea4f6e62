"""The confusion matrix of every single image of a split, kept beside the metrics of a run: runs
are compared by them, without their data.

An image shows a few classes and mistakes them for a few others: of its K x K cells only those that
hold a pixel are kept. One file per split, `counts_val.npz`, written beside the old one first:

    facts                 JSON: the images, the heads and their classes, the protocol card
    cells, pixels, ends   of the first head: i * K + j for pixels of true class i called j, how many
                          there are, and where each image's cells end; cells_1 ... of further ones

n images · K classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command

FORMAT = "fullconv-counts/1"
# What zipfile, NumPy and json are known to raise on damaged files.
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError)
_ALSO_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError,
                RuntimeError, OverflowError, MemoryError)  # fmt: skip
Sparse: TypeAlias = tuple[np.ndarray, np.ndarray]  # cells and pixels of one image


@dataclass(frozen=True)
class ImageConfusions:
    """Of one head.

    Args:
        classes: the names of its K classes.
        cells, pixels: of all images, one after another; see above.
        ends: (n,) where each image's cells end.
    """

    classes: tuple[str, ...]
    cells: np.ndarray
    pixels: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, classes: Sequence[str], found: Sequence[Sparse]) -> ImageConfusions:
        """Of what `sparse` made of the images' matrices."""
        lengths = [len(cells) for cells, _ in found]
        empty = np.zeros(0, np.uint32)
        return cls(
            tuple(classes),
            np.concatenate([empty, *(cells for cells, _ in found)]),
            np.concatenate([empty, *(pixels for _, pixels in found)]),
            np.cumsum(lengths, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.ends)

    def confusion(self, number: int | None = None) -> np.ndarray:
        """(K, K) pixel counts of one image, or of all; int64, rows are the truth."""
        start, end = 0, len(self.cells)
        if number is not None:
            start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        size = len(self.classes)
        found = np.zeros(size * size, np.int64)
        np.add.at(found, self.cells[start:end], self.pixels[start:end].astype(np.int64))
        return found.reshape(size, size)

    @cached_property
    def margins(self) -> np.ndarray:
        """(n, 3, K) pixels of each class that are right, that are there and that are called so;
        float64. All that the metrics need."""
        size, count = len(self.classes), len(self)
        image = np.repeat(np.arange(count), np.diff(self.ends, prepend=0))
        truth, called = np.divmod(self.cells.astype(np.int64), size)
        found = np.zeros((3, count, size))
        right = truth == called
        np.add.at(found[0], (image[right], truth[right]), self.pixels[right])
        np.add.at(found[1], (image, truth), self.pixels)
        np.add.at(found[2], (image, called), self.pixels)
        return np.ascontiguousarray(found.transpose(1, 0, 2))


def sparse(confusion: np.ndarray) -> Sparse:
    """(K, K) -> its cells that hold a pixel, i * K + j, and how many those are."""
    flat = confusion.ravel()
    cells = np.flatnonzero(flat)
    pixels = flat[cells]
    wide = np.uint32 if pixels.max(initial=0) < 2**32 else np.uint64
    return cells.astype(np.uint32), pixels.astype(wide)


def content_of(hashes: Sequence[str]) -> str:
    """A fingerprint of a pair, of those of its files: 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SplitConfusions:
    """Of one evaluation.

    Args:
        images: the name of each image, unique in its split.
        contents: the fingerprint of each, see `content_of`.
        heads: the counts of each head by name, the first one first; "" where there is only one.
        protocol: see `fullconv.evaluation.protocol.protocol_card`.
        data: the folder of the data set.
        weights: the sha256 of the model's weights, where it lies in a folder; else "".
    """

    images: tuple[str, ...]
    contents: tuple[str, ...]
    heads: Mapping[str, ImageConfusions]
    protocol: Mapping[str, Any]
    data: str = ""
    weights: str = ""

    _KEYS = ("cells", "pixels", "ends")

    def save(self, path: str | Path) -> Path:
        """Writes the file, in place of one that is there.

        Raises:
            FullconvError: it cannot be written.
        """
        path = Path(path)
        facts = {
            "format": FORMAT,
            "images": self.images,
            "contents": self.contents,
            "heads": {name: of.classes for name, of in self.heads.items()},
            "protocol": self.protocol,
            "data": self.data,
            "weights": self.weights,
        }
        text = json.dumps(facts, ensure_ascii=False).encode()
        arrays = {
            key + (f"_{number}" if number else ""): getattr(of, key)
            for number, of in enumerate(self.heads.values())
            for key in self._KEYS
        }
        fresh = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                np.savez_compressed(file, facts=np.frombuffer(text, np.uint8), **arrays)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise FullconvError(
                f"the counts of single images could not be written to {path}: "
                f"{error.strerror or error}.",
                "--counts ANOTHER_FOLDER/counts.npz",
            ) from error
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
        return path

    @classmethod
    def read(cls, path: str | Path) -> SplitConfusions:
        """Of what `save` wrote.

        Raises:
            FullconvError: no such file, a damaged one, or one of others.
        """
        path = Path(path)
        try:
            with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes())
                if facts["format"] != FORMAT:
                    raise ValueError(f"its format is {facts['format']!r}, not {FORMAT!r}")
                heads = {}
                for number, (name, classes) in enumerate(facts["heads"].items()):
                    end = f"_{number}" if number else ""
                    heads[name] = ImageConfusions(
                        tuple(classes), *(file[key + end] for key in cls._KEYS)
                    )
                    _verify(heads[name], len(facts["images"]))
            return cls(
                tuple(facts["images"]),
                tuple(facts["contents"]),
                heads,
                facts["protocol"],
                facts["data"],
                facts["weights"],
            )
        except FileNotFoundError:
            said = "there is no such file"
        except (*_BROKEN, *_ALSO_BROKEN) as error:
            said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise FullconvError(
            f"{path} cannot be read as counts of single images: {said}.",
            shell_command("fullconv", "evaluate", "MODEL", "DATA", "--counts", path),
        )

    def head(self, name: str = "") -> ImageConfusions:
        """Of a head; the first one where none is named.

        Raises:
            FullconvError: there is none of that name.
        """
        if not name:
            return next(iter(self.heads.values()))
        if name not in self.heads:
            there = ", ".join(self.heads) or "none"
            raise FullconvError(
                f"no head {name!r} was evaluated; there is {there if any(self.heads) else 'one'}.",
                f"--head {next(iter(self.heads))}" if any(self.heads) else "leave --head out",
            )
        return self.heads[name]


def _verify(of: ImageConfusions, images: int) -> None:
    """That the parts fit, so that nothing is read beyond them."""
    size = len(of.classes) ** 2
    ends = of.ends.tolist()
    fine = (
        of.cells.ndim == of.pixels.ndim == of.ends.ndim == 1
        and all(array.dtype.kind in "ui" for array in (of.cells, of.pixels, of.ends))
        and len(of.cells) == len(of.pixels)
        and len(ends) == images
        and sorted([0, *ends, len(of.cells)]) == [0, *ends, len(of.cells)]
        and (ends[-1] if ends else 0) == len(of.cells)
        and int(of.cells.max(initial=0)) < max(size, 1)
    )
    if not fine:
        raise ValueError("its parts do not fit each other")


def run_containing(model: str | Path) -> Path | None:
    """The folder of the run that a model lies in: runs/a or runs/a/model -> runs/a. None where it
    lies in none."""
    path = Path(model)
    folder = path.parent if path.name == "model" else path
    parts = (folder / "model" / "config.json", folder / "config.toml")
    return folder if all(part.is_file() for part in parts) else None


def require_npz(path: Path | None) -> None:
    """Refuses a name that `fullconv compare` would not take for such a file."""
    if path is not None and path.suffix != ".npz":
        raise FullconvError(
            f"counts of single images are kept as .npz, not as {path.name!r}.",
            shell_command("--counts", f"{path.name}.npz"),
        )


def file_in(run: Path, split: str) -> Path:
    """Where the counts of a split lie."""
    return run / f"counts_{split}.npz"


def weights_of(run: Path) -> str:
    """The sha256 of the weights of a run's model; "" where it is not known."""
    try:
        config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
        return str(config["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def save_next_to_run(counts: SplitConfusions, run: Path) -> Path:
    """Writes the counts of a run's model beside its metrics.

    Raises:
        FullconvError: they cannot be written.
    """
    known = replace(counts, weights=weights_of(run))
    return known.save(file_in(run, counts.protocol["split"]))
