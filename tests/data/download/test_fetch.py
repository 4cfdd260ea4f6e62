"""A file fetched from a server that behaves badly in one way after the other."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import re
import shutil
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fullconv
from fullconv.core.errors import FullconvError
from fullconv.data.download import fetch as module
from fullconv.data.download.fetch import DownloadProgress, fetch
from fullconv.data.download.registry import Archive

BODY = bytes(range(256)) * 40  # 10240 bytes
MD5, SHA1, SHA256 = (hashlib.new(k, BODY).hexdigest() for k in ("md5", "sha1", "sha256"))


class Host:
    """A server of files, each with an ETag, that answers ranges and notes what it was asked.

    `faults` are done to the next answers, one each: a status to answer, a number of bytes after
    which the connection ends, or "reset" in place of an answer.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.asked: list[str | None] = []  # the Range of each request
        self.headers: list[str] = []  # User-Agent of each request
        self.ranges, self.etag, self.length, self.shift = True, '"one"', True, 0
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, handler: Any) -> None:
        self.asked.append(handler.headers.get("Range"))
        self.headers.append(handler.headers.get("User-Agent"))
        fault = self.faults.pop(0) if self.faults else None
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            return
        body = self.files.get(handler.path[1:])
        if body is None or (isinstance(fault, int) and 400 <= fault < 600):
            handler.send_error(fault if body is not None else 404)
            return
        start = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        first = int(start[1]) if start and self.ranges else 0
        if first and handler.headers.get("If-Range") not in (None, self.etag):
            first = 0
        if first >= len(body) and first:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if first else 200)
        if first:
            first += self.shift
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.length:
            handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        end = first + fault if isinstance(fault, int) else len(body)
        handler.wfile.write(body[first:end])

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    host = Host()
    host.files["a.tar"] = BODY
    yield host
    host.close()


Get = Callable[..., Path]


@pytest.fixture
def get(host: Host, tmp_path: Path) -> Get:
    """Fetches a.tar of the host."""

    def call(checksum: str | None = SHA256, *addresses: str, **more: Any) -> Path:
        archive = Archive(addresses or (host.address("a.tar"),), checksum, **more)
        with DownloadProgress() as teller:
            return fetch(archive, tmp_path / "there", again="fullconv check a", progress=teller)

    return call


def refused(get: Get, *args: Any, **more: Any) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        get(*args, **more)
    return caught.value


@pytest.mark.parametrize("checksum", [MD5, SHA1, SHA256])
def test_a_file_comes_with_its_checksum(
    host: Host, get: Get, capsys: pytest.CaptureFixture[str], checksum: str
) -> None:
    path = get(checksum)
    assert path.read_bytes() == BODY
    assert [file.name for file in path.parent.iterdir()] == ["a.tar"]
    assert capsys.readouterr() == ("", f"{host.address('a.tar')}, 10.2 kB\n")
    assert host.headers == [f"fullconv/{fullconv.__version__}"]
    assert get(checksum) == path  # which is there now
    assert len(host.asked) == 1


def test_a_file_put_there_by_hand_is_checked_and_used(host: Host, get: Get, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.tar").write_bytes(BODY)
    assert get().read_bytes() == BODY
    assert host.asked == []
    (tmp_path / "there" / "a.tar").write_bytes(BODY[:-1])
    assert f"its sha256 is {hashlib.sha256(BODY[:-1]).hexdigest()}" in refused(get).message
    assert get().read_bytes() == BODY  # anew


def test_a_cut_connection_is_continued_where_it_was(
    host: Host, get: Get, capsys: pytest.CaptureFixture[str]
) -> None:
    host.faults = [4000, 1000]
    assert get().read_bytes() == BODY
    assert host.asked == [None, "bytes=4000-", "bytes=5000-"]
    assert capsys.readouterr().err.splitlines() == [
        f"{host.address('a.tar')}, 10.2 kB",
        f"{host.address('a.tar')}: the connection was cut at 4.0 kB; again in 0 s",
        f"{host.address('a.tar')}, 10.2 kB, continued at 4.0 kB",
        f"{host.address('a.tar')}: the connection was cut at 5.0 kB; again in 0 s",
        f"{host.address('a.tar')}, 10.2 kB, continued at 5.0 kB",
    ]


def test_cuts_are_survived_as_long_as_more_comes(host: Host, get: Get) -> None:
    host.faults = [100] * 20
    assert get().read_bytes() == BODY
    assert len(host.asked) == 21


def test_a_server_that_knows_no_ranges_sends_it_all_again(host: Host, get: Get) -> None:
    host.ranges, host.faults = False, [4000, 4000]
    assert get().read_bytes() == BODY
    assert host.asked == [None, "bytes=4000-", "bytes=4000-"]


def test_a_file_that_changed_meanwhile_is_not_continued(
    host: Host, get: Get, tmp_path: Path
) -> None:
    host.faults = [4000, "reset", "reset", "reset"]
    assert "could not be downloaded" in refused(get).message
    assert (tmp_path / "there" / "a.tar.part").read_bytes() == BODY[:4000]
    host.files["a.tar"], host.etag = BODY[::-1], '"two"'
    assert get(hashlib.md5(BODY[::-1]).hexdigest()).read_bytes() == BODY[::-1]
    assert host.asked[-1] == "bytes=4000-"


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_tag_nothing_is_continued(host: Host, get: Get, etag: str) -> None:
    host.etag, host.faults = etag, [4000]
    assert get().read_bytes() == BODY
    assert host.asked == [None, None]


def test_a_rest_that_begins_elsewhere_is_not_appended(host: Host, get: Get) -> None:
    host.shift, host.faults = 7, [4000]
    assert get().read_bytes() == BODY
    assert host.asked == [None, "bytes=4000-", None]


@pytest.mark.parametrize("kept", [BODY, BODY + b"more"])
def test_a_process_killed_before_the_end_was_noticed(
    host: Host, get: Get, tmp_path: Path, kept: bytes
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.tar.part").write_bytes(kept)
    (tmp_path / "there" / "a.tar.part.tag").write_text(host.etag)
    assert get().read_bytes() == BODY
    assert host.asked == [f"bytes={len(kept)}-", None][: 1 if kept == BODY else 2]


def test_a_size_that_nobody_told(host: Host, get: Get, capsys: pytest.CaptureFixture[str]) -> None:
    host.length = False
    assert get().read_bytes() == BODY
    assert capsys.readouterr().err == f"{host.address('a.tar')}, of unknown size\n"


@pytest.mark.parametrize("fault", [503, 500, 429, "reset"])
def test_what_may_pass_is_tried_again(host: Host, get: Get, fault: int | str) -> None:
    host.faults = [fault, 3000, fault]
    assert get().read_bytes() == BODY
    assert host.asked == [None, None, "bytes=3000-", "bytes=3000-"]


def test_but_not_for_ever(host: Host, get: Get) -> None:
    host.faults = [503] * 3
    error = refused(get)
    assert len(host.asked) == 3
    assert "HTTP 503 Service Unavailable, 3 times without a byte more" in error.message


@pytest.mark.parametrize(("status", "words"), [(404, "Not Found"), (403, "Forbidden")])
def test_what_is_not_there_is_not_asked_for_again(
    host: Host, get: Get, tmp_path: Path, status: int, words: str
) -> None:
    host.faults = [status]
    error = refused(get)
    assert error.message == (
        f"a.tar could not be downloaded.\n  {host.address('a.tar')}: HTTP {status} {words}\n"
        f"If it can be had in another way, put it into {tmp_path / 'there'} under this name."
    )
    assert error.hint.startswith("fullconv check a   # once")
    assert len(host.asked) == 1


def test_the_next_address_is_tried(host: Host, get: Get) -> None:
    gone, other = host.address("gone/a.tar"), host.address("gone/b.tar")
    assert refused(get, None, gone, other).message.splitlines()[1:3] == [
        f"  {gone}: HTTP 404 Not Found",
        f"  {other}: HTTP 404 Not Found",
    ]
    assert get(MD5, gone, host.address("a.tar")).read_bytes() == BODY


def test_a_machine_without_a_network_is_told_at_once(
    host: Host, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(module, "PAUSES", (1e9,))  # would be noticed
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    error = refused(get, MD5, "http://host.invalid/a.tar")
    said = "there is no network, or no host of that name"
    assert f"\n  http://host.invalid/a.tar: {said}\n" in error.message


def test_a_network_that_goes_on_the_way_is_waited_for(
    host: Host, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = socket.getaddrinfo, [False, True, True, False]

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        if lost.pop(0):
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    host.faults = [4000]
    assert get().read_bytes() == BODY
    assert host.asked == [None, "bytes=4000-"]


def test_a_server_that_says_nothing_is_left(
    host: Host, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(get, MD5, f"http://127.0.0.1:{silent.getsockname()[1]}/a.tar")
    assert "no answer within 0.05 s, 3 times without a byte more" in error.message


def test_a_wrong_file_is_set_aside_and_named(host: Host, get: Get, tmp_path: Path) -> None:
    host.files["a.tar"] = BODY + b"x"
    error = refused(get, MD5)
    found = hashlib.md5(BODY + b"x").hexdigest()
    bad = tmp_path / "there" / "a.tar.bad"
    assert error.message == (
        f"a.tar is not the file that was published: its md5 is {found}, expected {MD5} (10.2 kB). "
        f"It was set aside as {bad}."
    )
    assert error.hint == "fullconv check a   # downloads it anew"
    assert [file.name for file in bad.parent.iterdir()] == ["a.tar.bad"]
    host.files["a.tar"] = BODY
    assert get(MD5).read_bytes() == BODY


def test_the_page_of_a_login_is_recognised(host: Host, get: Get) -> None:
    host.files["a.tar"] = b"\n<!DOCTYPE html><title>Welcome</title>"
    assert "It is a web page: does this network ask for a login?" in refused(get).message


def test_where_no_checksum_is_published_that_of_what_came_is_kept(
    host: Host, get: Get, capsys: pytest.CaptureFixture[str]
) -> None:
    path = get(None)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"a.tar: no checksum of it is published; sha256 of what came: {SHA256}, kept in "
        "a.tar.sha256"
    )
    assert path.with_name("a.tar.sha256").read_text() == f"{SHA256}  a.tar\n"
    assert get(None) == path
    assert capsys.readouterr().err == ""
    path.write_bytes(b"another")
    assert f"expected {SHA256}" in refused(get, None).message
    assert get(None).read_bytes() == BODY


def test_a_host_that_packs_anew_is_told_from_a_wrong_file(
    host: Host, get: Get, capsys: pytest.CaptureFixture[str]
) -> None:
    path = get("0" * 32, repacked=True)
    assert f"its md5 is not {'0' * 32} any more, as its host packs" in capsys.readouterr().err
    assert path.with_name("a.tar.sha256").read_text() == f"{SHA256}  a.tar\n"
    assert get("0" * 32, repacked=True) == path
    path.write_bytes(BODY[:-1] + b"?")  # from now on the noted one counts
    damaged = hashlib.sha256(BODY[:-1] + b"?").hexdigest()
    error = refused(get, "0" * 32, repacked=True)
    assert f"its sha256 is {damaged}, expected {SHA256}" in error.message
    path.with_name("a.tar.sha256").unlink()
    get(MD5, repacked=True)
    assert "sha256" not in capsys.readouterr().err


def test_each_wrong_file_is_kept_under_a_name_of_its_own(host: Host, get: Get) -> None:
    for number, end in enumerate(("", "2", "3")):
        host.files["a.tar"] = b"wrong %d" % number
        error = refused(get)
        bad = Path(error.message.rpartition("set aside as ")[2].removesuffix("."))
        assert bad.name == f"a.tar.bad{end}"
    folder = bad.parent
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert kept == {
        "a.tar.bad": b"wrong 0",
        "a.tar.bad2": b"wrong 1",
        "a.tar.bad3": b"wrong 2",
    }
    host.files["a.tar"] = BODY
    assert get().read_bytes() == BODY


def test_too_little_room_is_said_before_the_disk_is_full(
    host: Host, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(OSError, match=r"a\.tar needs 10\.2 kB more, 5\.0 kB are free") as caught:
        get()
    assert caught.value.errno == errno.ENOSPC


def test_an_interrupt_keeps_what_has_come(
    host: Host, get: Get, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    host.faults = [4000]
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "what has come so far is kept: the same command continues there"
    assert get().read_bytes() == BODY
    assert host.asked == [None, "bytes=4000-"]


@pytest.mark.parametrize(("terminal", "kind"), [(True, "xterm"), (True, "dumb"), (False, "xterm")])
def test_bytes_are_counted_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: str
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", kind)
    with DownloadProgress() as teller:
        count = teller.counter("a.tar:")
        count(1_500_000, 3_000_000)
        count(1_600_000, 3_000_000)  # sooner than anybody reads
        teller.say("a sentence")
        count(7, 0)
    wiped = "\r\x1b[K"
    shown = f"{wiped}a.tar: 1.5 MB of 3.0 MB{wiped}a sentence\n{wiped}a.tar: 7 bytes{wiped}"
    assert stream.getvalue() == (shown if terminal and kind != "dumb" else "a sentence\n")


def test_a_quiet_teller_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with DownloadProgress(quiet=True) as teller:
        teller.say("a sentence")
        teller.line("a line")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (46_227_172, "46.2 MB")],
)
def test_sizes_in_words(count: int, text: str) -> None:
    assert size_of(count) == text
    assert size_of(1_999_639_040) == "2.0 GB"


def test_the_next_address_is_asked_where_another_file_came(
    host: Host, get: Get, tmp_path: Path
) -> None:
    host.files["parked"] = b"<html>this domain is for sale</html>"
    addresses = host.address("parked"), host.address("a.tar")
    archive = Archive(addresses, SHA256, name="a.tar")
    with DownloadProgress() as teller:
        path = fetch(archive, tmp_path / "there", again="fullconv check a", progress=teller)
    assert path.read_bytes() == BODY
    assert len(host.asked) == 2
    both = Archive((addresses[0], addresses[0]), SHA256, name="b.tar")
    with pytest.raises(FullconvError) as caught, DownloadProgress() as teller:
        fetch(both, tmp_path / "there", again="fullconv check a", progress=teller)
    assert caught.value.message.count(f"{addresses[0]}: ") == 2
