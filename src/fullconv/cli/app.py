"""The terminal: the application that commands join, and how they print.

Results go to stdout, progress and messages to stderr: on a terminal a bar that moves, elsewhere
plain lines. NO_COLOR is heard by rich, which draws the bars and the help.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from cyclopts import App, Group, Parameter

from fullconv.core.i18n import translate
from fullconv.core.packages import __version__

app = App(
    name="fullconv",
    help="A label for every pixel: fully convolutional networks from any classifier.",
    version=__version__,
    help_format="plaintext",
    group_commands=Group("Commands", sort_key=0),
    default_parameter=Parameter(negative_iterable=()),  # no --empty-crop
)
Json = Annotated[bool, Parameter(name="--json", negative=())]
Split = Literal["train", "val", "test"]
Precision = Literal["auto", "float32", "bfloat16"]
_NEXT = "next: "
PAUSE = 30.0  # seconds between lines of progress where there is no terminal


def say(text: str) -> None:
    """To stderr, in the language that is spoken."""
    print(translate(text), file=sys.stderr, flush=True)


def name_of(model: Path) -> str:
    """What a model is called: as the run that it lies in, or as its own folder or file."""
    path = model.resolve()
    if path.name == "model":  # of a run
        return path.parent.name
    return path.stem if path.is_file() else path.name


def detach_stream(stream: TextIO) -> None:
    """Sends what is still to be written nowhere, or Python itself would stumble over it on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_result(facts: dict[str, Any], text: str, as_json: bool, *, ahead: str = "") -> None:
    """The result, as text that may end with the command to type next, or as one JSON object."""
    text = text.rstrip("\n") + (f"\n{_NEXT}{ahead}" if ahead else "")
    if isinstance(sys.stderr, _Nowhere):  # results alone
        text = "\n".join(line for line in text.splitlines() if not line.startswith(_NEXT))
    # Flushed here, where a reader that went away can still be met: `fullconv check data | head`.
    try:
        print(json.dumps(facts) if as_json else translate(text), flush=True)
    except BrokenPipeError:
        detach_stream(sys.stdout)


@contextmanager
def progress_bar(what: str, *, shown: bool = True) -> Iterator[Any]:
    """A bar on a terminal that counts images, with how many a second and the time left; elsewhere
    a line with the same every half a minute."""
    if not (shown and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        yield _lines_of(what) if shown else lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[speed_said]}"),
        TimeRemainingColumn(),
        TextColumn(translate("left")),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=None, speed_said="")

    def progress(done: int, total: int) -> None:
        speed = bar.tasks[0].speed
        pace = f"{speed:.1f}/s" if speed else ""
        text = f"{translate(what)} {done}/{total}"
        bar.update(task, completed=done, total=total, description=text, speed_said=pace)

    with bar:
        yield progress


def _lines_of(what: str) -> Callable[[int, int], None]:
    started = last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PAUSE and 0 < done < total:
            last, speed = now, done / (now - started)
            left = timedelta(seconds=int((total - done) / speed))
            say(f"{what} {done}/{total}  {speed:.1f}/s  {left} left")

    return progress


@contextmanager
def silence_stderr() -> Iterator[None]:
    """What Python writes to stderr goes nowhere: progress, notes, warnings."""
    with redirect_stderr(_Nowhere()):
        yield


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def silence_native_stderr() -> Iterator[None]:
    """What libraries in C write to stderr goes nowhere, such as libtiff's word on every odd tag of
    every file; what Python writes there arrives."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    before, nowhere = sys.stderr, os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with suppress(AttributeError, OSError, ValueError):  # not a file at all
            if before.fileno() == 2:
                errors = before.errors or "backslashreplace"
                sys.stderr = open(kept, "w", 1, before.encoding, errors, closefd=False)  # noqa: SIM115
        yield
    finally:
        if sys.stderr is not before:
            with suppress(OSError):  # nobody reads it
                sys.stderr.close()
            sys.stderr = before
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
