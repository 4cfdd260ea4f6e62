"""What the commands print with, where somebody looks and where nobody does."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time

import pytest

from fullconv.terminal import counting, emit, python_only, say


def test_a_result_is_text_or_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"classes": 3}, "three classes\n", False)
    assert capsys.readouterr() == ("three classes\n", "")
    emit({"classes": 3}, "three classes\n", True)
    assert json.loads(capsys.readouterr().out) == {"classes": 3}


def test_messages_go_to_the_other_stream(capsys: pytest.CaptureFixture[str]) -> None:
    say("note: this")
    assert capsys.readouterr() == ("", "note: this\n")


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (True, False), (False, True)])
def test_counting_shows_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with counting("checked", shown=shown) as progress:
        for done in (0, 2, 4, 6):
            progress(done, 10)
            time.sleep(0.02)
    text = stream.getvalue()
    if not (terminal and shown):
        assert text == ""
        return
    assert "checked 6/10" in text
    assert "/s" in text
    assert re.search(r"\d:\d\d:\d\d left", re.sub(r"\x1b\[[\d;]*m", "", text))
    assert text.endswith("\x1b[2K")  # nothing stays


SPEAKING = """
import os, sys
from fullconv.terminal import python_only, say
def library(): os.write(2, b"library ")
library()
with python_only():
    library()
    say("inside")
    print("also", file=sys.stderr)
library()
say("after")
"""


def test_what_libraries_say_past_python_is_not_heard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAKING], capture_output=True, text=True, check=True
    )
    assert done.stderr == "library inside\nalso\nlibrary after\n"


def test_another_stream_in_the_place_of_stderr_stays_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with python_only():
        say("inside")
    assert sys.stderr is stream
    assert stream.getvalue() == "inside\n"
