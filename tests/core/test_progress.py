"""Stages of a command, and how text is printed on terminals and elsewhere."""

from __future__ import annotations

import io
import re
import sys

import pytest

from fullconv.core.i18n import msg
from fullconv.core.progress import finish_stages, hide_stage, print_text, say, show_stages, stage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def plain(self) -> str:
        """Return what was written without control sequences."""
        return re.sub(r"\x1b\[[\d;?]*\w", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal()


def test_stages_are_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stage(msg("building the model"))  # not printed: no command shows stages
    with show_stages():
        stage(msg("loading PyTorch"))
        say("note: this")
        stage(msg("building the model"))
        finish_stages()
        stage(msg("reading"))  # too late
        finish_stages()
    with show_stages(lines=False):
        stage(msg("loading PyTorch"))
    out, err = capsys.readouterr()
    *lines, last = err.splitlines()
    assert (out, lines) == ("", ["loading PyTorch ...", "note: this", "building the model ..."])
    assert re.fullmatch(r"ready for the first step after 0\.\d s", last)


def test_a_terminal_shows_a_spinner_that_leaves_nothing(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    with show_stages():
        stage(msg("loading PyTorch"))
        stage(msg("building the model"))
        say("note: this")
        assert "\r\x1b[2Knote: this\n" in terminal.getvalue()  # in place of the spinner
        hide_stage()
        text = terminal.getvalue()
        assert "loading PyTorch ..." in text
        assert text.endswith("\x1b[2K")  # the line is erased
        stage(msg("reading"))
    assert terminal.getvalue().endswith("\x1b[2K")


def test_errors_commands_and_colors_on_a_terminal(terminal: Terminal) -> None:
    text = (
        "error: this sentence is a good deal longer than forty characters.\n"
        "  try: fullconv predict runs/first images --out predictions --overwrite\n"
        "    0  #8ecae6   sky\n"
        'road = "#804080"\n'
        "next: fullconv check DATA"
    )
    print_text(text, terminal)
    output = terminal.getvalue()
    assert "\x1b[1;31merror:\x1b[0m" in output
    assert "\x1b[1mnext: fullconv check DATA\x1b[0m" in output
    assert [line.rstrip() for line in terminal.plain().splitlines()] == [
        "error: this sentence is a good deal",
        "longer than forty characters.",
        "  try: fullconv predict runs/first images --out predictions --overwrite",
        "    0  ██        sky",
        'road = "#804080"',
        "next: fullconv check DATA",
    ]


def test_no_color_and_dumb_terminals(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    print_text("error: no", terminal)
    assert "31m" not in terminal.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    print_text("0  #8ecae6", terminal)
    assert terminal.getvalue().endswith("0  #8ecae6\n")


def test_names_cannot_steer_the_terminal(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b[2J\x07\udcdf\u202e.png\tstays"
    print_text(f"error: no {name}", terminal)
    say(name)
    expected = "a\\x1b[2J\\x07\\udcdf\\u202e.png"
    assert expected in terminal.plain()
    assert capsys.readouterr().err == f"{expected}\tstays\n"
