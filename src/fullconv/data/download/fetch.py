"""Fetch a file by HTTP: continued where it was cut, checked, and whole or not there.

It comes as FILE.part, with what tells this version of it from others (its ETag or date) in
FILE.part.tag, and gets its name when the checksum is right; FILE.bad (.bad2 ...) was wrong.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import lzma
import os
import shutil
import socket
import ssl
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path, PurePosixPath, PureWindowsPath

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.i18n import translate
from fullconv.core.packages import __version__
from fullconv.core.text import shell_command
from fullconv.data.download.registry import Archive

PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds before each new try, while nothing more comes
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**20
_KINDS = {32: "md5", 40: "sha1", 64: "sha256"}  # by the digits of a checksum
_TRANSIENT = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)


class DownloadProgress:
    """What a download says on stderr: sentences, and on a terminal a line that counts bytes."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        moves = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._line = not quiet and moves
        self._shown = 0.0

    def __enter__(self) -> DownloadProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._wipe()
        if kind is KeyboardInterrupt:
            self.say("what has come so far is kept: the same command continues there")

    def say(self, text: str) -> None:
        """A sentence."""
        if not self.quiet:
            self._wipe()
            print(translate(text), file=sys.stderr, flush=True)

    def counter(self, what: str) -> Callable[[int, int], None]:
        """Shows (bytes done, bytes in all, or 0 where nobody knows), ten times a second at most."""

        def tell(done: int, total: int) -> None:
            if time.monotonic() - self._shown >= 0.1:
                self.line(f"{what} {size_of(done)}" + (f" of {size_of(total)}" if total else ""))

        return tell

    def line(self, text: str) -> None:
        """A line that the next one replaces."""
        if self._line:
            self._shown = time.monotonic()
            print(f"\r\x1b[K{translate(text)}", end="", file=sys.stderr, flush=True)

    def _wipe(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = 0.0


class _AddressError(Exception):
    """An address that does not give the file, in words."""


def fetch(archive: Archive, folder: Path, *, again: str, teller: DownloadProgress) -> Path:
    """A file of a published data set, downloaded unless it lies in the folder already.

    Args:
        archive: which.
        folder: where it is kept.
        again: the command that tries again, for messages.
        teller: says what goes on.

    Raises:
        FullconvError: it cannot be had, or is not what it should be.
        OSError: no room, or no permission.
    """
    path = folder / archive.file
    if path.is_file():  # of an earlier time, or put there by hand
        _accept(archive, path, path, again, teller)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    reasons = []
    for address in archive.addresses:
        try:
            _download(address, part, teller)
            _accept(archive, part, path, again, teller)
            return path
        except _AddressError as refused:
            reasons.append(f"{address}: {refused}")
        except FullconvError as wrong:  # another file under that name: the next may have the right
            if len(archive.addresses) == 1:
                raise
            reasons.append(f"{address}: {wrong.message}")
    raise DownloadError(
        f"{archive.file} could not be downloaded.\n  "
        + "\n  ".join(reasons)
        + f"\nIf it can be had in another way, put it into {folder} under this name.",
        f"{again}   # once there is a network, or the file is there",
        again,
    )


def _download(address: str, part: Path, teller: DownloadProgress) -> None:
    """Fetches a file to its end, with new tries where the connection breaks."""
    failures, came = 0, False
    while True:
        before = _size(part)
        try:
            if _attempt(address, part, teller):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            with error:
                reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise _AddressError(reason) from error
        except (*_TRANSIENT, ssl.SSLError) as error:
            reason = _words(error)
            if isinstance(error, urllib.error.URLError) and not came:  # no network, no such host
                raise _AddressError(reason) from error
        more = _size(part) > before
        failures, came = 0 if more else failures + 1, came or more
        if failures > len(PAUSES):
            raise _AddressError(f"{reason}, {failures} times without a byte more")
        pause = PAUSES[max(failures - 1, 0)]
        teller.say(f"{address}: {reason} at {size_of(_size(part))}; again in {pause:g} s")
        time.sleep(pause)


def _words(error: Exception) -> str:
    """Why a connection failed, as a person says it."""
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, socket.gaierror):
        return "there is no network, or no host of that name"
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(cause, ConnectionRefusedError):
        return "the host, or something on the way there, refuses the connection"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _attempt(address: str, part: Path, teller: DownloadProgress) -> bool:
    """One connection: whether the file is whole now."""
    tag = part.with_name(f"{part.name}.tag")
    have = _size(part) if tag.is_file() else 0
    headers = {"User-Agent": f"fullconv/{__version__}"}
    if have:  # If-Range: the rest of this version, or the whole of another one
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")}
    try:
        request = urllib.request.Request(address, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        with error:  # there is nothing after what is here
            whole = error.headers.get("Content-Range", "") == f"bytes */{have}"
        if not whole:
            tag.unlink()
        return whole
    with response:
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                tag.unlink(missing_ok=True)  # not what was asked for: the next try begins anew
                return False
        else:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        _require_room(part, total - have)
        there = f", continued at {size_of(have)}" if have else ""
        teller.say(f"{address}, {size_of(total) if total else 'of unknown size'}{there}")
        told = teller.counter(f"{part.name.removesuffix('.part')}:")
        with part.open("ab" if have else "wb") as file:
            if not have:  # after the file was emptied: the tag is of what is in it
                _remember(response.headers, tag)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                told(have, total)
    return have >= total


def _remember(headers: http.client.HTTPMessage, tag: Path) -> None:
    """What tells this version of a file from others. Without it nothing can be continued."""
    etag = headers.get("ETag", "")
    version = headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
    if version and headers.get("Accept-Ranges") != "none":
        tag.write_text(version, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def _require_room(part: Path, needed: int) -> None:
    """Says that a disk is too small before it is full."""
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        name = part.name.removesuffix(".part")
        raise OSError(
            errno.ENOSPC, f"{name} needs {size_of(needed)} more, {size_of(free)} are free"
        )


def _accept(archive: Archive, came: Path, path: Path, again: str, teller: DownloadProgress) -> None:
    """Gives a file its name if its checksum is right. Where none is published, the one of what
    came is written beside it, and holds as long as the file is there."""
    record = path.with_name(f"{path.name}.sha256")
    noted = []
    if came == path and record.is_file():
        noted = record.read_text(encoding="utf-8").split()
    expected = noted[0] if noted else archive.checksum
    if expected is not None:
        kind = _KINDS[len(expected)]
        teller.line(f"checking {path.name}")
        found = _digest(came, kind)
        if found != expected and (noted or not archive.repacked):
            _set_aside(came, path, f"its {kind} is {found}, expected {expected}", again)
    if not noted and (expected is None or found != expected):
        sha256 = _digest(came, "sha256")
        why = "no checksum of it is published"
        if expected is not None:
            why = f"its {kind} is not {expected} any more, as its host packs it anew now and then"
        teller.say(f"{path.name}: {why}; sha256 of what came: {sha256}, kept in {record.name}")
        record.write_text(f"{sha256}  {path.name}\n", encoding="utf-8")
    came.replace(path)
    came.with_name(f"{came.name}.tag").unlink(missing_ok=True)


def _set_aside(came: Path, path: Path, what: str, again: str) -> None:
    names = (f"{path.name}.bad{again}" for again in chain([""], count(2)))
    bad = next(place for name in names if not (place := path.with_name(name)).exists())
    with came.open("rb") as file:
        page = file.read(512).lstrip()[:1] == b"<"
    came.replace(bad)
    came.with_name(f"{came.name}.tag").unlink(missing_ok=True)
    guess = " It is a web page: does this network ask for a login?" if page else ""
    raise DownloadError(
        f"{path.name} is not the file that was published: {what} ({size_of(_size(bad))}).{guess} "
        f"It was set aside as {bad}.",
        f"{again}   # downloads it anew",
        again,
    )


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return found.hexdigest()


def _size(path: Path) -> int:
    """In bytes; 0 where there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def size_of(count: int) -> str:
    """1.9 GB of a number of bytes."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


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
                f"{shell_command('rm', '-r', parts[0][0].parent)}   # to download anew",
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
            f"{path} cannot be unpacked: {error}.", f"{shell_command('rm', path)}   # to start anew"
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
            f"{shell_command('rm', path)}   # to start anew",
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
            f"{shell_command('rm', path)}   # and get it from elsewhere",
        )
