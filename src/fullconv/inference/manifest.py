"""What is finished in a folder of results, so that it is not done twice.

`.fullconv/` in that folder holds a file for each process that ever wrote there, with a line of JSON
for each image: which model and options made its results, what the image was (path, size, time),
and what the results are (name, size, time). An image is finished when a line of the same model and
options still says what is there; which of several processes wrote last, nobody can tell. The line
is written before the results are moved to their names: a process that is killed between the two
leaves a line that says what is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fullconv.core.errors import UnwrittenError

FOLDER = ".fullconv"
_BLOCK = 1 << 20  # bytes that are read at once
Seen = tuple[str, int, int]  # name, bytes, time of change in nanoseconds


class Manifest:
    """The record of a folder of results; to be closed.

    Args:
        out: the folder; it may not exist yet.
        job: what made the results, from `job_hash`.
        stems: names of the results that matter, relative to `out`.
        rank: of this process.

    Attributes:
        others: how many of them have results of another model or of other options.
    """

    def __init__(self, out: Path, job: str, stems: Iterable[Path], *, rank: int = 0) -> None:
        self.out, self.job = out, job
        self._path = out / FOLDER / f"{rank}.jsonl"
        self._file: int | None = None
        self._lines: dict[str, list[bytes]] = {}
        wanted, others = {stem.as_posix() for stem in stems}, set()
        for line, row in _rows(out / FOLDER):
            if row["image"] in wanted:
                if row["job"] == job:
                    self._lines.setdefault(row["image"], []).append(line)
                else:
                    others.add(row["image"])
        self.others = len(others - set(self._lines))

    def result(
        self, stem: Path, sources: Sequence[Seen | None], kinds: Sequence[str]
    ) -> dict[str, Any] | None:
        """What was found in an image that is finished, with "files"; else None.

        Args:
            sources: the image and the files beside it, see `file_stamp`.
            kinds: the results that are wanted.
        """
        there = [list(one) if one else None for one in sources]
        for line in self._lines.get(stem.as_posix(), []):
            row = json.loads(line)
            if row["sources"] != there or not set(kinds) <= set(row["kinds"]):
                continue
            files = [self.out / name for name, _, _ in row["files"]]
            if [_stamp(path) for path in files] == [tuple(of) for _, *of in row["files"]]:
                return {**row["result"], "files": [str(path) for path in files]}
        return None

    def add(
        self,
        stem: Path,
        sources: Sequence[Seen | None],
        kinds: Sequence[str],
        files: Mapping[Path, Path],
        result: Mapping[str, Any],
    ) -> None:
        """An image is about to be finished.

        Args:
            files: where each result is -> where it will be. Whole, and not to be changed again.
        """
        row = {
            "image": stem.as_posix(),
            "job": self.job,
            "sources": sources,
            "kinds": list(kinds),
            "files": [
                (to.relative_to(self.out).as_posix(), *(_stamp(now) or (0, 0)))
                for now, to in files.items()
            ],
            "result": {key: value for key, value in result.items() if key != "files"},
        }
        try:
            if self._file is None:
                self._file = self._opened()
            os.write(self._file, json.dumps(row).encode() + b"\n")  # at once: others append too
        except OSError as error:
            raise UnwrittenError(
                f"the record could not be written to {self._path}: {error.strerror or error}.",
                "--out ANOTHER_FOLDER   # or df -h, if the disk is full",
            ) from error

    def close(self) -> None:
        """Nothing more comes."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(file, b"\n")  # behind what a killed process may have left of a line
        return file


def file_stamp(path: Path) -> Seen | None:
    """A file as it is now; None where there is none."""
    stamp = _stamp(path)
    return (os.path.abspath(path), *stamp) if stamp else None


def job_hash(model: Path, options: Mapping[str, Any]) -> str:
    """A word for a model, by the content of its files, and the options that results depend on."""
    found = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=str).encode())
    root = model / "model" if (model / "model").is_dir() else model
    files = [root]
    if root.is_dir():
        files = sorted(path for path in root.iterdir() if path.is_file())
    elif root.suffix.lower() == ".xml":
        files.append(root.with_suffix(".bin"))
    found.update(b"" if root.exists() else str(model).encode())  # torchvision:fcn_resnet50
    for path in files:
        if path.is_file():
            found.update(b"\0" + path.name.encode(errors="replace") + b"\0")
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    found.update(block)
    return found.hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


def _rows(folder: Path) -> Iterator[tuple[bytes, Any]]:
    """The lines of all processes, as far as they are whole."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                with suppress(ValueError, TypeError, KeyError):
                    row = json.loads(line)
                    if {"image", "job", "sources", "kinds", "files", "result"} <= set(row):
                        yield line, row
