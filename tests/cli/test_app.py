"""Results, progress and messages, on terminals and elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fullconv.cli import app as terminal
from fullconv.cli.app import print_result, progress_bar, say, silence_native_stderr, silence_stderr

COLOR = re.compile(r"\x1b\[(\d+;)*([34]\d|9\d|10\d)")  # of letters or of what is behind them


@pytest.mark.parametrize("ahead", ["", "fullconv train data"])
def test_a_result_is_text_or_one_json_object(
    capsys: pytest.CaptureFixture[str], ahead: str
) -> None:
    print_result({"classes": 3}, "three classes\n", False, ahead=ahead)
    following = f"next: {ahead}\n" if ahead else ""
    assert capsys.readouterr() == (f"three classes\n{following}", "")
    print_result({"classes": 3}, "three classes\n", True, ahead=ahead)
    assert json.loads(capsys.readouterr().out) == {"classes": 3}


@pytest.mark.parametrize(("terminal", "visible"), [(True, True), (True, False), (False, True)])
def test_a_bar_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, visible: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress_bar("checked", visible=visible) as progress:
        for done in (0, 2, 4, 6):
            progress(done, 10)
            time.sleep(0.02)
    text = stream.getvalue()
    if not (terminal and visible):
        assert text == ""
        return
    assert "checked 6/10" in text
    assert "/s" in text
    assert re.search(r"\d:\d\d:\d\d left", re.sub(r"\x1b\[[\d;]*m", "", text))
    assert text.endswith("\x1b[2K")  # nothing stays


SPEAKING = """
import os, sys
from fullconv.cli.app import silence_native_stderr
from fullconv.core.progress import say
def library(): os.write(2, b"library ")
library()
with silence_native_stderr():
    library()
    say("inside")
    print("also", file=sys.stderr)
library()
say("after")
"""


def test_messages_of_libraries_are_discarded() -> None:
    argv = [sys.executable, "-c", SPEAKING]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == "library inside\nalso\nlibrary after\n"


def test_another_stream_in_place_of_stderr_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with silence_native_stderr():
        say("inside")
    assert sys.stderr is stream
    assert stream.getvalue() == "inside\n"


def test_progress_is_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress_bar("predicted") as progress:
        for done in range(0, 1001, 10):  # ten a second
            progress(done, 1000)
            now[0] += 1.0
    assert capsys.readouterr() == (
        "",
        "predicted 300/1000  10.0/s  1:10 left\n"
        "predicted 600/1000  10.0/s  0:40 left\n"
        "predicted 900/1000  10.0/s  0:10 left\n",
    )
    monkeypatch.setattr(terminal, "PAUSE", 0.0)
    with progress_bar("predicted", visible=False) as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_quiet_prints_results_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PAUSE", 0.0)
    with silence_stderr(), silence_native_stderr(), progress_bar("read") as progress:
        progress(1, 2)
        say("note: this")
        print("warning", file=sys.stderr)
        assert not sys.stderr.isatty()
        print_result({}, "three classes", False)
    say("error: that")
    assert capsys.readouterr() == ("three classes\n", "error: that\n")


def on_terminal(*words: str, **changed: str) -> str:
    """Return what a command sends to a terminal."""
    ours, its = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
    argv = [sys.executable, "-m", "fullconv", *words]
    with subprocess.Popen(
        argv, stdin=its, stdout=its, stderr=its, env={**environ, "TERM": "xterm", **changed}
    ) as process:
        os.close(its)
        text = b""
        try:
            while part := os.read(ours, 1 << 16):
                text += part
        except OSError:  # Linux says so that the other side is closed
            pass
        os.close(ours)
    assert process.returncode == 0, text
    return text.decode().replace("\r\n", "\n")


def test_no_color(scenes: Path) -> None:
    output = on_terminal("check", str(scenes))
    assert "checked 7/7" in output
    assert COLOR.search(output)
    plain = on_terminal("check", str(scenes), NO_COLOR="1")
    assert "checked 7/7" in plain
    assert not COLOR.search(plain)
    assert not COLOR.search(on_terminal("train", "--help", NO_COLOR="1"))


def test_a_dumb_terminal(scenes: Path) -> None:
    output = on_terminal("check", str(scenes), TERM="dumb")
    assert "images: train 3, val 2, test 2" in output
    assert "\x1b" not in output
    quiet = on_terminal("check", str(scenes), "--quiet", TERM="dumb")
    assert quiet == output[: output.index("next: ")]
