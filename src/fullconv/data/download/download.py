"""Published data sets by name: `fullconv train voc2012` downloads it once and then uses it.

    ~/.cache/fullconv/data/          FULLCONV_DATA names another place
        voc2012/                     the data set, as a folder that a layout recognises
        archives/voc2012/*.tar       what came: .part until it is whole, .bad where it is wrong

A folder of that name always wins over the published data set. Only one process at a time
downloads; the others wait and find what it left.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.files import cache_dir
from fullconv.core.text import shell_command
from fullconv.data.download.fetch import DownloadProgress, fetch, unpack
from fullconv.data.download.registry import ELSEWHERE, SOURCES

try:
    import fcntl
except ImportError:  # not on Windows, where nobody waits for anybody
    fcntl = None  # type: ignore[assignment]


def resolve_dataset(data: str | Path, *, quiet: bool = False) -> Path:
    """The folder of a data set: the path itself where something is there or the name is unknown,
    else the published data set of that name, downloaded where it has not been yet.

    Args:
        data: a path, or a name of `fullconv.data.download.registry` in any case.
        quiet: print nothing.

    Raises:
        FullconvError: it cannot be downloaded, or only by a person.
    """
    path = Path(data)
    name = _name(path)
    if path.exists() or name is None:
        return path
    if name in ELSEWHERE:
        raise FullconvError(
            f"there is no folder {path}, and {name} is not downloaded by name: {ELSEWHERE[name]}.",
            "fullconv check FOLDER",
        )
    folder = data_root() / name
    if not folder.is_dir():
        quiet = quiet or os.environ.get("LOCAL_RANK", "0") != "0"  # one process of a run speaks
        with _in_words(name, folder.parent), DownloadProgress(quiet) as teller:
            _bring(name, folder, teller)
    return folder


def data_root() -> Path:
    """Where downloaded data sets lie."""
    told = os.environ.get("FULLCONV_DATA")
    if told:
        return Path(told).expanduser().absolute()
    return cache_dir() / "data"


def nearest_dataset_names(path: Path) -> list[str]:
    """The names of published data sets that look most like one that is none; none for a path."""
    if len(path.parts) != 1:
        return []
    return difflib.get_close_matches(_plain(path.name), SOURCES, 3)


def _name(path: Path) -> str | None:
    """The published data set that is meant: by its name, or by the folder that it would have."""
    if len(path.parts) != 1 and path.parent != data_root():
        return None
    name = _plain(path.name)
    return name if name in SOURCES or name in ELSEWHERE else None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")


def _bring(name: str, folder: Path, teller: DownloadProgress) -> None:
    """Downloads and unpacks a data set, unless another process does while this one waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent, teller):
        if folder.is_dir():
            return
        source = SOURCES[name]()
        archives = folder.parent / "archives" / name
        teller.say(
            f"{name} is no folder here: downloading the published data set into {folder} "
            f"(FULLCONV_DATA names another place). Its terms: {source.page}"
        )
        parts = []
        for archive in source.archives:
            path = fetch(
                archive, archives, again=shell_command("fullconv", "check", name), teller=teller
            )
            parts.append((path, archive.into))
        unpack(parts, source.root, folder, teller.counter("unpacked"))
        teller.say(f"{name} is in {folder}; {archives} is not needed any more")


@contextmanager
def _alone(folder: Path, teller: DownloadProgress) -> Iterator[None]:
    """One process at a time. The system lets the next one in, however the first one ends."""
    with (folder / ".lock").open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                teller.say(f"another process downloads into {folder}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _in_words(name: str, folder: Path) -> Iterator[None]:
    """What the disk refuses."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = error.filename or folder
        what = (
            f"there is no room left for {name} in {folder}" if full else f"{where} cannot be used"
        )
        again = shell_command("fullconv", "check", name)
        raise DownloadError(
            f"{what}: {error.strerror or error}.", f"FULLCONV_DATA=/another/place {again}", again
        ) from error
