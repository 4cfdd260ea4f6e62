"""Notes on stderr, and the stage that a command is in until its real progress begins.

    with show_stages():                       # the command line does this, once
        stage(msg("checking the dataset"))    # any code may name its stage; no-op outside the block
        ...
        finish_stages()                       # training: prints how long it took to the first step

On a terminal a spinner names the stage; elsewhere each stage may be a line.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from fullconv.core.i18n import msg, translate

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HEX_COLOR = re.compile(r"(?<![\"'\w])#[0-9a-f]{6}\b")  # not within quotes: a line to paste


def say(text: str) -> None:
    """Print a message to stderr, in the current language."""
    print_text(translate(text), sys.stderr)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Return whether a stream (default: stderr) is a terminal on which lines can be redrawn."""
    return (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Return text in which no file name or class name can steer the terminal: control characters
    and bytes that are no UTF-8 become escapes.

    >>> printable("a\\x1b[2J\\udcdf.png")
    'a\\\\x1b[2J\\\\udcdf.png'
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def print_text(text: str, stream: TextIO) -> None:
    """Print text: on a terminal with colors and wrapped between words, elsewhere as it is.

    "error:" is red, the line with the next command is bold, and a hex color is a colored block.
    """
    text = printable(text)
    if not is_terminal(stream):
        print(text, file=stream, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    if stream is sys.stderr and _stages is not None and _stages.live is not None:
        console = _stages.live.console  # which prints above the spinner
    else:
        console = Console(file=stream, highlight=False, emoji=False)
    error, hint, following = (
        translate(msg(template, message="", hint="", command="")).strip()
        for template in ("error: {message}", "  try: {hint}", "next: {command}")
    )
    for line in text.split("\n"):
        styled = Text()
        end = 0
        for match in _HEX_COLOR.finditer(line):
            styled.append(line[end : match.start()])
            styled.append("\u2588\u2588", match[0]).append("     ")
            end = match.end()
        styled.append(line[end:])
        if line.startswith(error):
            styled.stylize("bold red", 0, len(error))
        if line.startswith(following):
            styled.stylize("bold")
        # Commands stay on one line, to be copied; so do the rows of tables.
        verbatim = line.lstrip().startswith((hint, following)) or "  " in line.strip()
        console.print(styled, soft_wrap=verbatim)
    stream.flush()


class _Stages:
    def __init__(self, lines: bool) -> None:
        self.started = time.monotonic()
        self.lines = lines
        self.live: Any = None

    def show(self, text: str) -> None:
        if not is_terminal():
            if self.lines:
                say(msg("{stage} ...", stage=text))
            return
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        spinner = Spinner("dots", f"{translate(text)} ...")
        if self.live is None:
            # Notes that are printed meanwhile go above the spinner; results on stdout stay there.
            console = Console(stderr=True, highlight=False, emoji=False)
            self.live = Live(spinner, console=console, transient=True, redirect_stdout=False)
            self.live.start(refresh=True)
        else:
            self.live.update(spinner, refresh=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


_stages: _Stages | None = None


@contextmanager
def show_stages(*, lines: bool = True) -> Iterator[None]:
    """Show each `stage` on stderr while the block runs; without a terminal only if `lines`."""
    global _stages
    outer, _stages = _stages, _Stages(lines)
    try:
        yield
    finally:
        if _stages is not None:
            _stages.close()
        _stages = outer


def stage(text: str) -> None:
    """Name what the command does now. Outside `show_stages` nothing is shown."""
    if _stages is not None:
        _stages.show(text)


def finish_stages() -> None:
    """End the stages of a training run at its first step, and print how long they took."""
    global _stages
    if _stages is not None:
        _stages.close()
        seconds = time.monotonic() - _stages.started
        _stages = None
        say(msg("ready for the first step after {seconds:.1f} s", seconds=seconds))


def hide_stage() -> None:
    """Take the spinner away, before a result or other progress is printed."""
    if _stages is not None:
        _stages.close()
