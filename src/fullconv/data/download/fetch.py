"""Download files over HTTP and unpack archives.

pooch decides whether a file has to be downloaded, and verifies its checksum. pooch cannot resume,
so the transfer is done here: into FILE.part, with the ETag or date of this version in
FILE.part.tag. Unpacking is done here too, because pooch's processors extract links.
"""

from __future__ import annotations

import errno
import gzip
import http.client
import lzma
import os
import shutil
import socket
import ssl
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.i18n import join, msg, translate
from fullconv.core.packages import __version__
from fullconv.core.progress import hide_stage, is_terminal, say
from fullconv.core.text import file_size, shell_command
from fullconv.data.download.registry import Archive

PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds before each retry, as long as nothing more arrives
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**20
_HASHES = {32: "md5", 40: "sha1", 64: "sha256"}  # by the number of digits
_TRANSIENT = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(lzma.LZMAError, RuntimeError, NotImplementedError),  # a password, or unknown compression
    *(NotADirectoryError, IsADirectoryError, FileExistsError),  # a member inside another one
)
Progress = Callable[[int, int], None]  # (bytes done, bytes in all or 0)


class DownloadProgress:
    """Messages of a download on stderr, and on a terminal a progress bar."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars: Any = None

    def __enter__(self) -> DownloadProgress:
        hide_stage()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        if kind is KeyboardInterrupt:
            self.say(msg("Stopped. Run the same command to continue the download."))

    def say(self, text: str) -> None:
        """Print a message."""
        if not self.quiet:
            say(text)

    def counter(self, label: str) -> Progress:
        """Return a function that updates a progress bar with (bytes done, bytes in all or 0)."""
        if self.quiet or not is_terminal():
            return lambda done, total: None
        from rich import progress
        from rich.console import Console

        if self._bars is None:
            columns = (progress.TextColumn("{task.description}"), progress.BarColumn())
            numbers = (progress.DownloadColumn(), progress.TransferSpeedColumn())
            console = Console(stderr=True)
            self._bars = progress.Progress(*columns, *numbers, console=console, transient=True)
            self._bars.start()
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        task = self._bars.add_task(translate(label), total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total or None)


class _AddressError(Exception):
    """An address does not provide the file; the argument is the reason."""


def fetch(archive: Archive, folder: Path, *, again: str, progress: DownloadProgress) -> Path:
    """Return the path of a file in a folder; download it unless it is there with its checksum.

    If no checksum is published, the checksum of the downloaded file is stored in FILE.sha256.

    Args:
        again: the command that retries, for messages.

    Raises:
        FullconvError: no address provides the file.
        OSError: the disk is full, or the folder cannot be written.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    path = folder / archive.file
    record = path.with_name(f"{path.name}.sha256")
    if path.is_file() and record.is_file():
        if pooch.file_hash(str(path), "sha256") == record.read_text(encoding="utf-8")[:64]:
            return path
        progress.say(msg("{path} has changed and is downloaded again", path=path))
        path.unlink()
    known = archive.checksum
    expected = f"{_HASHES[len(known)]}:{known}" if known and not archive.repacked else None
    reasons = []
    for address in archive.addresses:
        download = _Download(path.with_name(f"{path.name}.part"), progress)
        try:
            pooch.retrieve(address, expected, path.name, folder, downloader=download)
            break
        except _AddressError as error:
            reasons.append(msg("  {address}: {reason}", address=address, reason=error.args[0]))
        except ValueError:  # another checksum
            reason = download.describe_wrong_file(str(expected))
            reasons.append(msg("  {address}: {reason}", address=address, reason=reason))
    else:
        raise DownloadError(
            join([
                msg("{file} could not be downloaded.", file=path.name),
                *reasons,
                msg("If you can get it elsewhere, put it into {folder}.", folder=folder),
            ]),
            msg("{command}   # when there is a network, or the file is there", command=again),
            again,
        )  # fmt: skip
    if expected is None and not (
        known and pooch.file_hash(str(path), _HASHES[len(known)]) == known
    ):
        sha256 = pooch.file_hash(str(path), "sha256")
        record.write_text(f"{sha256}  {path.name}\n", encoding="utf-8")
        values = {"file": path.name, "sha256": sha256, "record": record.name}
        if known:
            note = msg(
                "{file}: its checksum is not the published one, because its host repacks it from "
                "time to time; stored its sha256, {sha256}, in {record}",
                **values,
            )
        else:
            note = msg(
                "{file}: no checksum is published; stored its sha256, {sha256}, in {record}",
                **values,
            )
        progress.say(note)
    return path


class _Download:
    """A downloader for pooch that resumes FILE.part, and retries as long as more bytes arrive."""

    def __init__(self, part: Path, progress: DownloadProgress) -> None:
        self.part, self.progress = part, progress
        self.tag = part.with_name(f"{part.name}.tag")
        self.file = part.name.removesuffix(".part")
        self.size, self.is_web_page = 0, False

    def __call__(self, address: str, output_file: str, pooch: object = None) -> None:
        failures, received = 0, False
        while True:
            before = self._received()
            try:
                if self._attempt(address):
                    break
                reason: str = msg("the connection was cut")
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"HTTP {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    raise _AddressError(reason) from error
            except (*_TRANSIENT, ssl.SSLError) as error:
                reason = _connection_error(error)
                if isinstance(error, urllib.error.URLError) and not received:  # no such host
                    raise _AddressError(reason) from error
            more = self._received() > before
            failures, received = 0 if more else failures + 1, received or more
            if failures > len(PAUSES):
                raise _AddressError(
                    msg(
                        "{reason}, {count} times without another byte",
                        reason=reason,
                        count=failures,
                    )
                )
            pause = PAUSES[max(failures - 1, 0)]
            self.progress.say(
                msg(
                    "{address}: {reason} at {size}; retrying in {seconds:g} s",
                    address=address,
                    reason=reason,
                    size=file_size(self._received()),
                    seconds=pause,
                )
            )
            time.sleep(pause)
        # pooch verifies the checksum of its own temporary file.
        self.size = self._received()
        with self.part.open("rb") as file:
            self.is_web_page = file.read(512).lstrip()[:1] == b"<"
        os.replace(self.part, output_file)
        self.tag.unlink(missing_ok=True)

    def describe_wrong_file(self, expected: str) -> str:
        """Return why the file is not the published one."""
        if self.is_web_page:
            return msg("it sent a web page; does this network require a login?")
        return msg(
            "it sent another file than the published one ({size}; expected {checksum})",
            size=file_size(self.size),
            checksum=expected,
        )

    def _attempt(self, address: str) -> bool:
        """Connect once; return whether the file is complete."""
        # If-Range: the server sends the rest of this version, or the whole of another one.
        start = self._received() if self.tag.is_file() else 0
        headers = {"User-Agent": f"fullconv/{__version__}"}
        if start:
            tag = self.tag.read_text(encoding="utf-8")
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        try:
            request = urllib.request.Request(address, headers=headers)
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not start:
                raise
            with error:  # nothing comes after what is here
                complete = error.headers.get("Content-Range", "") == f"bytes */{start}"
            if not complete:
                self.tag.unlink()
            return complete
        with response:
            if response.status != 206:
                start = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.tag.unlink(missing_ok=True)  # another range: the next attempt starts over
                return False
            length = int(response.headers.get("Content-Length") or 0)
            total = start + length if length else 0
            _require_space(self.part.parent, length, self.file)
            self._announce(address, start, total)
            count = self.progress.counter(self.file)
            with self.part.open("ab" if start else "wb") as file:
                if not start:  # after the file was emptied: the tag belongs to its content
                    self._store_tag(response.headers)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    start += len(chunk)
                    count(start, total)
        return start >= total

    def _announce(self, address: str, start: int, total: int) -> None:
        values = {"address": address, "size": file_size(total), "start": file_size(start)}
        if start:
            self.progress.say(msg("{address}, {size}, resuming at {start}", **values))
        elif total:
            self.progress.say(msg("{address}, {size}", **values))
        else:
            self.progress.say(msg("{address}, unknown size", **values))

    def _store_tag(self, headers: http.client.HTTPMessage) -> None:
        """Store what identifies this version of the file. Without it nothing can be resumed."""
        etag = headers.get("ETag", "")
        version = headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        if version and headers.get("Accept-Ranges") != "none":
            self.tag.write_text(version, encoding="utf-8")
        else:
            self.tag.unlink(missing_ok=True)

    def _received(self) -> int:
        with suppress(FileNotFoundError):
            return self.part.stat().st_size
        return 0


def _connection_error(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, socket.gaierror):
        return msg("there is no network, or no host of that name")
    if isinstance(cause, TimeoutError):
        return msg("no answer within {seconds:g} s", seconds=TIMEOUT)
    if isinstance(cause, ConnectionRefusedError):
        return msg("the host or a proxy refuses the connection")
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _require_space(folder: Path, size: int, file: str) -> None:
    """Raise an error before the disk is full."""
    free = shutil.disk_usage(folder).free
    if size > free:
        values = {"file": file, "size": file_size(size), "free": file_size(free)}
        raise OSError(errno.ENOSPC, msg("{file} needs {size}, {free} are free", **values))


def unpack(
    parts: Sequence[tuple[Path, str]],
    root: str,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> None:
    """Unpack archives together, and keep one folder of their content.

    Links that leave the archive are not followed, and no member is written outside the folder or
    larger than the free space. Whatever goes wrong, nothing is left behind.

    Args:
        parts: the files, each with the subfolder for its members. Other files are copied.
        root: the folder of the unpacked tree to keep.
        folder: the path that it gets. It must not exist.
        progress: called with the bytes of the archive that were read, and its size.

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
                raise FullconvError(
                    msg("{path} cannot be unpacked: {reason}.", path=path, reason=error),
                    msg("{command}   # then download it again", command=shell_command("rm", path)),
                ) from error
        if not (tree / root).is_dir():
            raise FullconvError(
                msg(
                    "{archives}: expected the folder {root} inside; found {content}.",
                    archives=", ".join(path.name for path, _ in parts),
                    root=root,
                    content=", ".join(sorted(p.name for p in tree.iterdir())) or msg("nothing"),
                ),
                msg(
                    "{command}   # then download it again",
                    command=shell_command("rm", "-r", parts[0][0].parent),
                ),
            )
        (tree / root).rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
                    raise FullconvError(
                        msg(
                            "{path}: the member {name!r} is a link to {target!r}, which is not in "
                            "the archive.",
                            path=path,
                            name=member.name,
                            target=member.linkname,
                        ),
                        msg(
                            "{command}   # then download it again",
                            command=shell_command("rm", path),
                        ),
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
    _require_space(path.parent, size, name)
