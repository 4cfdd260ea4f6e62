"""Files are fetched from a server that fails in one way after another."""

import errno
import hashlib
import http.server
import io
import shutil
import socket
import sys
from types import SimpleNamespace

import pytest
from file_server import FileServer

import fullconv
from fullconv.core.errors import FullconvError
from fullconv.data.download import fetch as module
from fullconv.data.download.fetch import DownloadProgress, fetch
from fullconv.data.download.registry import Archive

BODY = bytes(range(256)) * 40  # 10240 bytes
MD5, SHA1, SHA256 = (hashlib.new(k, BODY).hexdigest() for k in ("md5", "sha1", "sha256"))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    server = FileServer()
    server.files["a.tar"] = BODY
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archives"


@pytest.fixture
def get(server, folder):
    """Fetch a.tar from the server."""

    def call(checksum=SHA256, *addresses, **more):
        archive = Archive(addresses or (server.address("a.tar"),), checksum, **more)
        with DownloadProgress() as progress:
            return fetch(archive, folder, again="fullconv check a", progress=progress)

    return call


def ranges(server):
    return [requested for _, requested in server.requests]


def refused(get, *args, **more):
    with pytest.raises(FullconvError) as caught:
        get(*args, **more)
    return caught.value


@pytest.mark.parametrize("checksum", [MD5, SHA1, SHA256])
def test_a_file_is_downloaded_once_and_verified(server, get, capsys, checksum):
    path = get(checksum)
    assert path.read_bytes() == BODY
    assert [file.name for file in path.parent.iterdir()] == ["a.tar"]
    assert capsys.readouterr() == ("", f"{server.address('a.tar')}, 10 kB\n")
    assert server.user_agents == [f"fullconv/{fullconv.__version__}"]
    assert get(checksum) == path
    assert len(server.requests) == 1


def test_a_file_that_the_user_copied_there_is_used_if_it_is_right(server, get, folder):
    folder.mkdir()
    (folder / "a.tar").write_bytes(BODY)
    assert get().read_bytes() == BODY
    assert server.requests == []
    (folder / "a.tar").write_bytes(BODY[:-1])
    assert get().read_bytes() == BODY
    assert len(server.requests) == 1


# Faults of the server -> the ranges that are requested until the file is complete.
RECOVERED = {
    "cut twice": ([4000, 1000], {}, [None, "bytes=4000-", "bytes=5000-"]),
    "cut often": ([100] * 20, {}, [None, *(f"bytes={100 * k}-" for k in range(1, 21))]),
    "busy": ([503, 3000, 503], {}, [None, None, "bytes=3000-", "bytes=3000-"]),
    "failing": ([500, 3000, 500], {}, [None, None, "bytes=3000-", "bytes=3000-"]),
    "too many requests": ([429, 3000, 429], {}, [None, None, "bytes=3000-", "bytes=3000-"]),
    "reset": (["reset", 3000, "reset"], {}, [None, None, "bytes=3000-", "bytes=3000-"]),
    "no ranges": ([4000, 4000], {"ranges": False}, [None, "bytes=4000-", "bytes=4000-"]),
    "no tag": ([4000], {"etag": ""}, [None, None]),
    "weak tag": ([4000], {"etag": 'W/"weak"'}, [None, None]),
    "wrong range": ([4000], {"shift": 7}, [None, "bytes=4000-", None]),
}


@pytest.mark.parametrize(("faults", "settings", "expected"), RECOVERED.values(), ids=RECOVERED)
def test_a_download_recovers_from_faults(server, get, faults, settings, expected):
    server.faults = list(faults)
    for name, value in settings.items():
        setattr(server, name, value)
    assert get().read_bytes() == BODY
    assert ranges(server) == expected


def test_a_resumed_download_is_reported(server, get, capsys):
    server.faults = [4000]
    get()
    address = server.address("a.tar")
    assert capsys.readouterr().err.splitlines() == [
        f"{address}, 10 kB",
        f"{address}: the connection was cut at 4 kB; retrying in 0 s",
        f"{address}, 10 kB, resuming at 4 kB",
    ]


def test_another_version_of_a_file_is_not_appended(server, get, folder):
    server.faults = [4000, "reset", "reset", "reset"]
    assert "could not be downloaded" in refused(get).message
    assert (folder / "a.tar.part").read_bytes() == BODY[:4000]
    server.files["a.tar"], server.etag = BODY[::-1], '"two"'
    assert get(hashlib.md5(BODY[::-1]).hexdigest()).read_bytes() == BODY[::-1]
    assert ranges(server)[-1] == "bytes=4000-"


@pytest.mark.parametrize("content", [BODY, BODY + b"more"])
def test_a_process_was_killed_after_the_last_byte(server, get, folder, content):
    folder.mkdir()
    (folder / "a.tar.part").write_bytes(content)
    (folder / "a.tar.part.tag").write_text(server.etag)
    assert get().read_bytes() == BODY
    assert ranges(server) == [f"bytes={len(content)}-", None][: 1 if content == BODY else 2]


@pytest.mark.parametrize("header", [None, "many"])
def test_the_size_may_be_unknown(server, get, monkeypatch, capsys, header):
    real = http.server.BaseHTTPRequestHandler.send_header

    def send_header(handler, name, value):
        real(handler, name, header if name == "Content-Length" else value)

    if header:
        monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "send_header", send_header)
    server.length = header is not None
    assert get().read_bytes() == BODY
    assert capsys.readouterr().err == f"{server.address('a.tar')}, unknown size\n"


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ([404], "HTTP 404 Not Found"),
        ([403], "HTTP 403 Forbidden"),
        ([503] * 3, "HTTP 503 Service Unavailable, 3 times without another byte"),
    ],
)
def test_a_download_gives_up(server, get, folder, faults, reason):
    server.faults = list(faults)
    error = refused(get)
    assert error.message == (
        f"a.tar could not be downloaded.\n  {server.address('a.tar')}: {reason}\n"
        f"If you can get it elsewhere, put it into {folder}."
    )
    assert error.hint.startswith("fullconv check a   # when")
    assert len(server.requests) == len(faults)


def test_without_a_network_the_error_comes_at_once(server, get, monkeypatch):
    def no_host(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(module, "PAUSES", (1e9,))  # would be noticed
    monkeypatch.setattr(socket, "getaddrinfo", no_host)
    error = refused(get, MD5, "http://host.invalid/a.tar")
    reason = "there is no network, or no host of that name"
    assert f"\n  http://host.invalid/a.tar: {reason}\n" in error.message


def test_a_network_that_fails_on_the_way_is_waited_for(server, get, monkeypatch):
    real, fails = socket.getaddrinfo, [False, True, True, False]

    def sometimes(*args, **kwargs):
        if fails.pop(0):
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    server.faults = [4000]
    assert get().read_bytes() == BODY
    assert ranges(server) == [None, "bytes=4000-"]


def test_a_server_that_does_not_answer_is_given_up(server, get, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(get, MD5, f"http://127.0.0.1:{silent.getsockname()[1]}/a.tar")
    assert "no answer within 0.05 s, 3 times without another byte" in error.message


def test_the_next_address_is_tried_if_one_fails_or_sends_another_file(server, get):
    server.files["parked"] = b"\n<!DOCTYPE html><title>This domain is for sale</title>"
    server.files["other"] = BODY + b"x"
    wrong = [server.address(name) for name in ("gone", "parked", "other")]
    assert refused(get, MD5, *wrong, name="a.tar").message.splitlines()[1:4] == [
        f"  {wrong[0]}: HTTP 404 Not Found",
        f"  {wrong[1]}: it sent a web page; does this network require a login?",
        f"  {wrong[2]}: it sent another file than the published one (10 kB; expected md5:{MD5})",
    ]
    assert get(MD5, *wrong, server.address("a.tar"), name="a.tar").read_bytes() == BODY


def test_without_a_published_checksum_the_first_one_is_stored(server, get, capsys):
    path = get(None)
    note = f"a.tar: no checksum is published; stored its sha256, {SHA256}, in a.tar.sha256"
    assert capsys.readouterr().err.splitlines()[-1] == note
    assert path.with_name("a.tar.sha256").read_text() == f"{SHA256}  a.tar\n"
    assert get(None) == path
    assert capsys.readouterr().err == ""
    path.write_bytes(b"another")
    assert get(None).read_bytes() == BODY
    assert f"{path} has changed and is downloaded again" in capsys.readouterr().err


def test_an_archive_that_its_host_repacks_is_accepted(server, get, capsys):
    path = get("0" * 32, repacked=True)
    assert "is not the published one, because its host repacks" in capsys.readouterr().err
    assert path.with_name("a.tar.sha256").read_text() == f"{SHA256}  a.tar\n"
    assert get("0" * 32, repacked=True) == path
    path.write_bytes(BODY[:-1] + b"?")  # from now on the stored checksum decides
    assert get("0" * 32, repacked=True).read_bytes() == BODY
    path.with_name("a.tar.sha256").unlink()
    capsys.readouterr()
    get(MD5, repacked=True)
    assert "sha256" not in capsys.readouterr().err
    path.with_name("a.tar.sha256").write_text(f"{'0' * 64}  a.tar\n")  # of an earlier version
    for _ in range(2):
        requests = len(server.requests)
        get(MD5, repacked=True)
    assert len(server.requests) == requests


def test_too_little_space_is_an_error_before_the_disk_is_full(server, get, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(OSError, match=r"a\.tar needs 10 kB, 5 kB are free") as caught:
        get()
    assert caught.value.errno == errno.ENOSPC


def test_an_interrupted_verification_loses_nothing(server, get, folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert (folder / "a.tar.part").read_bytes() == BODY
    assert get().read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={len(BODY)}-"]  # of which nothing is left
    assert [file.name for file in folder.iterdir()] == ["a.tar"]


def test_a_changed_file_is_kept_until_another_one_has_arrived(server, get, folder):
    get(None).write_bytes(b"another")
    server.faults = [404]
    assert "could not be downloaded" in refused(get, None).message
    assert (folder / "a.tar").read_bytes() == b"another"
    assert get(None).read_bytes() == BODY


def test_a_wrong_file_is_not_resumed(server, get, folder):
    server.files["a.tar"] = BODY[:-1]
    assert "another file than the published one" in refused(get).message
    assert list(folder.iterdir()) == []
    server.files["a.tar"] = BODY
    assert get().read_bytes() == BODY
    assert ranges(server) == [None, None]


@pytest.mark.parametrize(("terminal", "kind"), [(True, "xterm"), (True, "dumb"), (False, "xterm")])
def test_a_progress_bar_is_shown_on_a_terminal_only(monkeypatch, terminal, kind):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", kind)
    with DownloadProgress() as progress:
        count = progress.counter("a.tar")
        count(1_500_000, 3_000_000)
        progress.say("a sentence")
        progress.counter("b.tar")(7, 0)
    assert "a sentence" in stream.getvalue()
    assert ("b.tar" in stream.getvalue()) == (terminal and kind != "dumb")
