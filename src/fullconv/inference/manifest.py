"""Manifest of an output folder: which images are done, by which model and with which options.

`.fullconv/` in the output folder has a file for each process that ever wrote there, with a line of
JSON for each image: the model and options (as a hash), the stamps of the image (path, size, time)
and of its results (name, size, time). An image is done if a line of the same model and options
still matches the files; which of several processes wrote last does not matter. The line is written
before the results are moved to their names, so a process that is killed in between leaves a line
that matches nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fullconv.core.errors import UnwrittenError
from fullconv.core.i18n import msg
from fullconv.inference.result_files import OUT_HINT
from fullconv.models.run import model_folder

FOLDER = ".fullconv"
FileStamp = tuple[str, int, int]  # name, bytes, modification time in nanoseconds
_KEYS = {"image", "job", "sources", "kinds", "files", "result"}


class Manifest:
    """The manifest of an output folder, which need not exist yet; call `close` at the end.

    Args:
        job: identifies the model and options, see `job_hash`.
        stems: names of the results of interest, relative to `out`.
        rank: of this process.

    Attributes:
        others: how many of these images have results of another model or other options.
    """

    def __init__(self, out: Path, job: str, stems: Iterable[Path], *, rank: int = 0) -> None:
        self.out, self.job = out, job
        self._path = out / FOLDER / f"{rank}.jsonl"
        self._file: int | None = None
        self._opening = threading.Lock()
        self._lines: dict[str, list[bytes]] = {}
        names, others = {stem.as_posix() for stem in stems}, set()
        for line, row in _read_rows(out / FOLDER):
            if row["image"] in names and row["job"] == job:
                self._lines.setdefault(row["image"], []).append(line)
            elif row["image"] in names:
                others.add(row["image"])
        self.others = len(others - set(self._lines))

    def result(
        self, stem: Path, sources: Sequence[FileStamp | None], kinds: Sequence[str]
    ) -> dict[str, Any] | None:
        """Return the recorded result of an image, with "files"; None if it is not done.

        `sources` are the `file_stamp` of the image and of its extra channels, `kinds` the output
        types that are needed.
        """
        stamps = [list(stamp) if stamp else None for stamp in sources]
        for line in self._lines.get(stem.as_posix(), []):
            row = json.loads(line)
            if row["sources"] != stamps or not set(kinds) <= set(row["kinds"]):
                continue
            if all(_size_and_time(self.out / name) == (s, t) for name, s, t in row["files"]):
                files = [str(self.out / name) for name, _, _ in row["files"]]
                return {**row["result"], "files": files}
        return None

    def add(
        self,
        stem: Path,
        sources: Sequence[FileStamp | None],
        kinds: Sequence[str],
        moves: Mapping[Path, Path],
        result: Mapping[str, Any],
    ) -> None:
        """Record an image whose results are about to be moved: `moves` has the name of each file.

        Raises:
            UnwrittenError: the manifest cannot be written.
        """
        files = [
            (path.relative_to(self.out).as_posix(), *(_size_and_time(file) or (0, 0)))
            for file, path in moves.items()
        ]
        row = {
            "image": stem.as_posix(),
            "job": self.job,
            "sources": sources,
            "kinds": list(kinds),
            "files": files,
            "result": {key: value for key, value in result.items() if key != "files"},
        }
        try:
            with self._opening:  # several writer threads call this function
                if self._file is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                    os.write(self._file, b"\n")  # ends a line that a killed process left incomplete
            os.write(self._file, json.dumps(row).encode() + b"\n")  # at once: others append too
        except OSError as error:
            values = {"path": self._path, "reason": error.strerror or error}
            message = msg("the manifest could not be written to {path}: {reason}.", **values)
            raise UnwrittenError(message, OUT_HINT) from error

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def file_stamp(path: Path) -> FileStamp | None:
    """Return the absolute path, size and modification time of a file; None if it is missing."""
    stamp = _size_and_time(path)
    return (os.path.abspath(path), *stamp) if stamp else None


def job_hash(model: Path, options: Mapping[str, Any]) -> str:
    """Return a hash of a model's files and of the options that its results depend on."""
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=str).encode())
    root = model_folder(model)
    files = [root]
    if root.is_dir():
        files = sorted(path for path in root.iterdir() if path.is_file())
    elif root.suffix.lower() == ".xml":
        files.append(root.with_suffix(".bin"))
    if not root.exists():  # torchvision:fcn_resnet50
        digest.update(os.fsencode(model))
    for path in files:
        if path.is_file():
            digest.update(b"\0" + path.name.encode(errors="replace") + b"\0")
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read_rows(folder: Path) -> Iterator[tuple[bytes, Any]]:
    """Yield the complete lines of all processes, as bytes and parsed."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                with suppress(ValueError, TypeError, KeyError):
                    row = json.loads(line)
                    if "picture" in row:  # the key before it was renamed
                        row["image"] = row.pop("picture")
                    if set(row) >= _KEYS:
                        yield line, row
