"""Published datasets by name: `fullconv train voc2012` downloads the dataset once.

    ~/.cache/fullconv/data/          or the folder that FULLCONV_DATA names
        voc2012/                     the dataset, a folder that a layout recognizes
        archives/voc2012/*.tar       the downloaded files; .part while they are incomplete

A folder of that name takes precedence over the published dataset. Only one process downloads at a
time; the others wait and use its result.
"""

from __future__ import annotations

import difflib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.files import cache_dir
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command
from fullconv.data.download.registry import ELSEWHERE, SOURCES

if TYPE_CHECKING:
    from fullconv.data.download.fetch import DownloadProgress


def resolve_dataset(data: str | Path, *, quiet: bool = False) -> Path:
    """Return the folder of a dataset: a path, or the name of a published one (in any case).

    A published dataset is downloaded unless it is there.

    Raises:
        FullconvError: the dataset cannot be downloaded, or requires an account.
    """
    path = Path(data)
    name = _normalize(path.name)
    is_published = name in SOURCES or name in ELSEWHERE
    is_name = len(path.parts) == 1 or path.parent == data_root()  # or its folder in the cache
    if path.exists() or not (is_published and is_name):
        return path
    if name in ELSEWHERE:
        values = {"path": path, "name": name, "reason": ELSEWHERE[name]}
        raise FullconvError(
            msg(
                "there is no folder {path}, and {name} cannot be downloaded by name. {reason}",
                **values,
            ),
            "fullconv check FOLDER",
        )
    folder = data_root() / name
    if folder.is_dir():
        return folder
    # Imported only now: HTTP, TLS and archives are not needed for a dataset that is there.
    from fullconv.data.download.fetch import DownloadProgress

    again = shell_command("fullconv", "check", name)
    quiet = quiet or os.environ.get("LOCAL_RANK", "0") != "0"  # one process of a run prints
    try:
        with DownloadProgress(quiet) as progress:
            _download(name, folder, again, progress)
    except OSError as error:
        values = {"name": name, "folder": folder.parent, "reason": error.strerror or error}
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = msg("there is not enough space for {name} in {folder}: {reason}.", **values)
        else:
            values["path"] = Path(error.filename or folder.parent)
            message = msg("{path} cannot be used: {reason}.", **values)
        hint = f"FULLCONV_DATA=/another/folder {again}"
        raise DownloadError(message, hint, again) from error
    return folder


def data_root() -> Path:
    """Return the folder of downloaded datasets."""
    folder = os.environ.get("FULLCONV_DATA")
    return Path(folder).expanduser().absolute() if folder else cache_dir() / "data"


def nearest_dataset_names(path: Path) -> list[str]:
    """Return published datasets whose names resemble a misspelled one; [] for a path."""
    if len(path.parts) != 1:
        return []
    return difflib.get_close_matches(_normalize(path.name), SOURCES, 3)


def _normalize(name: str) -> str:
    return name.casefold().replace("_", "-")


def _download(name: str, folder: Path, again: str, progress: DownloadProgress) -> None:
    from filelock import FileLock, Timeout

    from fullconv.data.download.fetch import fetch
    from fullconv.data.download.unpack import unpack

    # Wait for another process that downloads; it may leave nothing to do.
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        progress.say(msg("waiting for another process that downloads into {folder}", folder=root))
        held = lock.acquire()
    with held:
        if folder.is_dir():
            return
        # Fetch all archives, then unpack them together.
        source, archives = SOURCES[name](), root / "archives" / name
        values = {"name": name, "folder": folder, "page": source.page, "archives": archives}
        progress.say(
            msg(
                "{name}: downloading the published dataset into {folder} (set FULLCONV_DATA to use "
                "another folder). Terms of use: {page}",
                **values,
            )
        )
        parts = []
        for archive in source.archives:
            path = fetch(archive, archives, again=again, progress=progress)
            parts.append((path, archive.into))
        unpack(parts, source.root, folder, progress.counter(msg("unpacking")))
        progress.say(msg("{name} is in {folder}; {archives} is no longer needed", **values))
