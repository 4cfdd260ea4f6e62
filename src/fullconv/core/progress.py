"""Notes on stderr, and the stage that a command is in until its real progress begins.

    with show_stages():                       # the command line does this, once
        stage(msg("checking the dataset"))    # any code may name its stage; no-op outside the block
        ...
        finish_stages()                       # training: prints how long it took to the first step

On a terminal a spinner names the stage; elsewhere each stage is a line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fullconv.core.i18n import msg, translate


def say(text: str) -> None:
    """Print a message to stderr, in the current language."""
    print(translate(text), file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Return whether stderr is a terminal on which lines can be redrawn."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class _Stages:
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.live: Any = None

    def show(self, text: str) -> None:
        if not is_terminal():
            say(msg("{stage} ...", stage=text))
            return
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        spinner = Spinner("dots", f"{translate(text)} ...")
        if self.live is None:
            # Notes that are printed meanwhile go above the spinner; results on stdout stay there.
            self.live = Live(
                spinner, console=Console(stderr=True), transient=True, redirect_stdout=False
            )
            self.live.start()
        else:
            self.live.update(spinner)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


_stages: _Stages | None = None


@contextmanager
def show_stages() -> Iterator[None]:
    """Show each `stage` on stderr while the block runs."""
    global _stages
    outer, _stages = _stages, _Stages()
    try:
        yield
    finally:
        if _stages is not None:
            _stages.close()
        _stages = outer


def stage(text: str) -> None:
    """Name what the command does now, such as msg("building the model").

    It replaces the stage before. Outside `show_stages` nothing is shown.
    """
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
