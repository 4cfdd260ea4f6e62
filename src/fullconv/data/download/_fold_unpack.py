"""Unpack archives so that a folder is either whole or not there.

Everything goes into a folder beside the archives, and what is wanted of it is renamed at the end.
An archive may name places outside the folder, or link to them: a member with such a name is
refused, symbolic links are left out (no data set needs one). A hard link, which is how tar writes a
file that it holds twice, becomes a copy.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fullconv.core.errors import FullconvError, command

Progress = Callable[[int, int], None]
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
_ALSO_BROKEN = (
    *(lzma.LZMAError, RuntimeError, NotImplementedError),  # locked with a password, packed oddly
    *(NotADirectoryError, IsADirectoryError, FileExistsError),  # a member inside another one
)


def unpack(
    parts: Sequence[tuple[Path, str]],
    root: str,
    folder: Path,
    progress: Progress | None = None,
) -> None:
    """Unpacks archives together and keeps a folder of what was in them.

    Args:
        parts: the files, each with the folder below which its members go.
        root: the folder to keep, below the one that all was unpacked into.
        folder: what it becomes. It must not exist.
        progress: called with (bytes of the archive read, bytes in all), for each anew.

    Raises:
        FullconvError: an archive that is broken or climbs out of the folder, or has no `root`.
        OSError: no room, or no permission. Nothing is left behind then, as after any other end.
    """
    scratch = parts[0][0].with_name("unpacking")  # among the archives: nobody else's
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir()
    try:
        tree = scratch / "tree"
        for path, into in parts:
            _unpack_one(path, tree / into, progress or (lambda done, total: None))
        if not (tree / root).is_dir():
            there = ", ".join(sorted(found.name for found in tree.iterdir())) or "nothing"
            raise FullconvError(
                f"{' and '.join(path.name for path, _ in parts)} should hold the folder {root}, "
                f"but what came out is {there}.",
                f"{command('rm', '-r', parts[0][0].parent)}   # to download anew",
            )
        (tree / root).rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack_one(path: Path, into: Path, progress: Progress) -> None:
    into.mkdir(parents=True, exist_ok=True)
    try:
        if path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
            _unpack_tar(path, into, progress)
        elif path.name.lower().endswith(".zip"):
            _unpack_zip(path, into, progress)
        else:
            shutil.copyfile(path, into / path.name)
    except (*_BROKEN, *_ALSO_BROKEN) as error:
        raise FullconvError(
            f"{path} cannot be unpacked: {error}.", f"{command('rm', path)}   # to start anew"
        ) from error


def _unpack_tar(path: Path, into: Path, progress: Progress) -> None:
    size = path.stat().st_size
    with path.open("rb") as file, tarfile.open(fileobj=file) as tar:
        # No owners, no odd permissions. Python has it from 3.11.4 on; names are checked below.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in tar:
            _require_inside(path, member.name)
            if member.isreg() or member.isdir():
                tar.extract(member, into)
            elif member.islnk():
                _copy_linked(path, into, member)
            progress(file.tell(), size)


def _copy_linked(path: Path, into: Path, member: tarfile.TarInfo) -> None:
    _require_inside(path, member.linkname)
    first = into / member.linkname
    if not first.is_file():
        raise FullconvError(
            f"{path} holds the member {member.name!r} as a link to {member.linkname!r}, which is "
            "not in it.",
            f"{command('rm', path)}   # to start anew",
        )
    copy = into / member.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(first, copy)


def _unpack_zip(path: Path, into: Path, progress: Progress) -> None:
    done, size = 0, path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _require_inside(path, member.filename)
            if not stat.S_ISLNK(member.external_attr >> 16):
                archive.extract(member, into)
            done += member.compress_size
            progress(done, size)


def _require_inside(path: Path, name: str) -> None:
    """A member may not name a place outside the folder, on any system."""
    ways = (PurePosixPath(name), PureWindowsPath(name))
    if any(way.anchor or ".." in way.parts for way in ways):
        raise FullconvError(
            f"{path} holds the member {name!r}, which would be written outside the folder that it "
            "is unpacked into; nothing was unpacked.",
            f"{command('rm', path)}   # and get it from elsewhere",
        )
