"""Unpack downloaded archives.

An archive is not trusted: symbolic links are left out, no member is written outside the folder, and
none is larger than the free space.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command
from fullconv.data.download.fetch import Progress, require_space

_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(lzma.LZMAError, RuntimeError, NotImplementedError),  # a password, or unknown compression
    *(NotADirectoryError, IsADirectoryError, FileExistsError),  # a member inside another one
)


def unpack(
    parts: Sequence[tuple[Path, str]],
    root: str,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> None:
    """Unpack archives together, each into its subfolder (other files are copied); keep the folder
    `root` of the unpacked tree as `folder`. Whatever goes wrong, nothing is left behind.

    Raises:
        FullconvError: an archive is damaged, is unsafe, or does not contain `root`.
        OSError: the disk is full, or the folder cannot be written.
    """
    scratch = parts[0][0].with_name("unpacking")  # beside the archives, where only we write
    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed
    scratch.mkdir()
    try:
        tree = scratch / "tree"
        for path, subfolder in parts:
            target = tree / subfolder
            target.mkdir(parents=True, exist_ok=True)
            try:
                if path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
                    _unpack_tar(path, target, progress)
                elif path.name.lower().endswith(".zip"):
                    _unpack_zip(path, target, progress)
                else:
                    shutil.copyfile(path, target / path.name)
            except _DAMAGED as error:
                message = msg("{path} cannot be unpacked: {reason}.", path=path, reason=error)
                raise FullconvError(message, _download_again("rm", path)) from error
        if not (tree / root).is_dir():
            names = ", ".join(path.name for path, _ in parts)
            content = ", ".join(sorted(p.name for p in tree.iterdir())) or msg("nothing")
            values = {"archives": names, "root": root, "content": content}
            raise FullconvError(
                msg("{archives}: expected the folder {root} inside; found {content}.", **values),
                _download_again("rm", "-r", parts[0][0].parent),
            )
        (tree / root).rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download_again(*words: object) -> str:
    return msg("{command}   # then download it again", command=shell_command(*words))


def _unpack_tar(path: Path, target: Path, progress: Progress) -> None:
    size = path.stat().st_size
    with path.open("rb") as file, tarfile.open(fileobj=file) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # no owners, no set-user-id
        for member in tar:
            _check_member(path, member.name, member.size)
            if member.isreg() or member.isdir():
                tar.extract(member, target)
            elif member.islnk():  # a second name of a file: copied
                _check_member(path, member.linkname, 0)
                original, copy = target / member.linkname, target / member.name
                if not original.is_file():
                    values = {"path": path, "name": member.name, "target": member.linkname}
                    raise FullconvError(
                        msg(
                            "{path}: the member {name!r} is a link to {target!r}, which is not in "
                            "the archive.",
                            **values,
                        ),
                        _download_again("rm", path),
                    )
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(original, copy)
            progress(file.tell(), size)


def _unpack_zip(path: Path, target: Path, progress: Progress) -> None:
    done, size = 0, path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check_member(path, member.filename, member.file_size)
            if not stat.S_ISLNK(member.external_attr >> 16):
                archive.extract(member, target)
            done += member.compress_size
            progress(done, size)


def _check_member(path: Path, name: str, size: int) -> None:
    """Refuse a member outside the folder, on any system, and one that does not fit on the disk."""
    if any(p.anchor or ".." in p.parts for p in (PurePosixPath(name), PureWindowsPath(name))):
        raise FullconvError(
            msg(
                "{path}: the member {name!r} would be written outside the target folder. Nothing "
                "was unpacked.",
                path=path,
                name=name,
            ),
            msg("{command}   # and get it from elsewhere", command=shell_command("rm", path)),
        )
    require_space(path.parent, size, name)
