"""Download files over HTTP.

A file arrives in FILE.part, with the ETag or date of this version in FILE.part.tag, so that a
download can be resumed. It is renamed to FILE when its checksum is right. A process that is stopped
at any time, even while it computes the checksum, loses nothing that has arrived. This is why no
download library is used: pooch, for example, cannot resume, and deletes a file that it could not
verify.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fullconv.core.errors import DownloadError
from fullconv.core.i18n import join, msg, translate
from fullconv.core.packages import __version__
from fullconv.core.progress import hide_stage, is_terminal, say
from fullconv.core.text import file_size
from fullconv.data.download.registry import Archive

PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds before each retry, as long as nothing more arrives
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**20
_HASHES = {32: "md5", 40: "sha1", 64: "sha256"}  # by the number of digits
_TRANSIENT = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)
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

    If no checksum is published, that of the downloaded file is stored in FILE.sha256. Messages name
    `again`, the command that retries.

    Raises:
        FullconvError: no address provides the file.
        OSError: the disk is full, or the folder cannot be written.
    """
    # What is there already: downloaded before, or copied there by the user.
    path = folder / archive.file
    record = path.with_name(f"{path.name}.sha256")
    if path.is_file():
        if record.is_file():
            if _digest(path, "sha256") == record.read_text(encoding="utf-8")[:64]:
                return path
            progress.say(msg("{path} has changed and is downloaded again", path=path))
        elif _accept(archive, path, record, progress):
            return path
    # Download into FILE.part, which replaces the file only if it is the right one.
    folder.mkdir(parents=True, exist_ok=True)
    download = _Download(path.with_name(f"{path.name}.part"), progress)
    reasons = []
    for address in archive.addresses:
        try:
            download.run(address)
        except _AddressError as error:
            reasons.append(msg("  {address}: {reason}", address=address, reason=error.args[0]))
            continue
        if _accept(archive, download.part, record, progress):
            download.part.replace(path)
            download.tag.unlink(missing_ok=True)
            return path
        reason = _describe_wrong_file(download.part, archive.checksum or "")
        reasons.append(msg("  {address}: {reason}", address=address, reason=reason))
        download.part.unlink()  # so that the next download starts over
        download.tag.unlink(missing_ok=True)
    first = msg("{file} could not be downloaded.", file=path.name)
    last = msg("If you can get it elsewhere, put it into {folder}.", folder=folder)
    hint = msg("{command}   # when there is a network, or the file is there", command=again)
    raise DownloadError(join([first, *reasons, last]), hint, again)


def _accept(archive: Archive, path: Path, record: Path, progress: DownloadProgress) -> bool:
    """Return whether a file is the published one, or cannot be compared with it: then its sha256 is
    stored."""
    known = archive.checksum
    if known and _digest(path, _HASHES[len(known)]) == known:
        record.unlink(missing_ok=True)  # of another version, which the host sent before
        return True
    if known and not archive.repacked:
        return False
    sha256 = _digest(path, "sha256")
    record.write_text(f"{sha256}  {archive.file}\n", encoding="utf-8")
    values = {"file": archive.file, "sha256": sha256, "record": record.name}
    note = msg(
        "{file}: no checksum is published; stored its sha256, {sha256}, in {record}", **values
    )
    if known:
        note = msg(
            "{file}: its checksum is not the published one, because its host repacks it from "
            "time to time; stored its sha256, {sha256}, in {record}",
            **values,
        )
    progress.say(note)
    return True


def _describe_wrong_file(part: Path, checksum: str) -> str:
    """Return why a file is not the published one."""
    with part.open("rb") as file:
        is_web_page = file.read(512).lstrip()[:1] == b"<"
    if is_web_page:
        return msg("it sent a web page; does this network require a login?")
    values = {"size": file_size(part.stat().st_size)}
    values["checksum"] = f"{_HASHES[len(checksum)]}:{checksum}"
    return msg(
        "it sent another file than the published one ({size}; expected {checksum})", **values
    )


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        # Systems in FIPS mode refuse md5 for security.
        digest = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return digest.hexdigest()


class _Download:
    """A download that resumes FILE.part, and retries as long as more bytes arrive."""

    def __init__(self, part: Path, progress: DownloadProgress) -> None:
        self.part, self.progress = part, progress
        self.tag = part.with_name(f"{part.name}.tag")
        self.file = part.name.removesuffix(".part")

    def run(self, address: str) -> None:
        """Complete FILE.part from an address, or raise an _AddressError."""
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
            values: dict[str, Any] = {"address": address, "reason": reason, "count": failures}
            if failures > len(PAUSES):
                raise _AddressError(msg("{reason}, {count} times without another byte", **values))
            values["seconds"] = pause = PAUSES[max(failures - 1, 0)]
            values["size"] = file_size(self._received())
            self.progress.say(
                msg("{address}: {reason} at {size}; retrying in {seconds:g} s", **values)
            )
            time.sleep(pause)

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
            length = response.length or 0  # None without a header, or with one that is no number
            total = start + length if length else 0
            require_space(self.part.parent, length, self.file)
            values = {"address": address, "size": file_size(total), "start": file_size(start)}
            if start:
                self.progress.say(msg("{address}, {size}, resuming at {start}", **values))
            elif total:
                self.progress.say(msg("{address}, {size}", **values))
            else:
                self.progress.say(msg("{address}, unknown size", **values))
            count = self.progress.counter(self.file)
            with self.part.open("ab" if start else "wb") as file:
                if not start:  # after the file was emptied: the tag belongs to its content
                    self._store_tag(response.headers)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    start += len(chunk)
                    count(start, total)
        return start >= total

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


def require_space(folder: Path, size: int, file: str) -> None:
    """Raise an error before the disk is full."""
    free = shutil.disk_usage(folder).free
    if size > free:
        values = {"file": file, "size": file_size(size), "free": file_size(free)}
        raise OSError(errno.ENOSPC, msg("{file} needs {size}, {free} are free", **values))
