"""The application that the commands join, and how they print.

Results go to stdout, progress and messages to stderr. On a terminal progress is a bar, elsewhere
plain lines. NO_COLOR is respected.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from cyclopts import App, Group, Parameter

from fullconv.core.i18n import msg, translate
from fullconv.core.packages import __version__
from fullconv.core.progress import hide_stage, is_terminal, print_text, say
from fullconv.core.text import duration

WORKFLOW = Group(msg("Commands"), sort_key=0)
ANALYSIS = Group(msg("Analysis and tools"), sort_key=1)
app = App(
    name="fullconv",
    help=msg("Semantic segmentation from any image classifier."),
    version=__version__,
    help_format="plaintext",
    group_commands=WORKFLOW,
    default_parameter=Parameter(negative_iterable=()),  # no --empty-crop
)
_JSON_HELP = msg("Print one JSON object and nothing else.")
Json = Annotated[bool, Parameter(negative=(), show_default=False, help=_JSON_HELP)]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Split = Literal["train", "val", "test"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
PAUSE = 30.0  # seconds between lines of progress without a terminal


@dataclass(frozen=True)
class RuntimeOptions:
    """The options of the commands that segment images that say how the model runs."""

    device: Device = "auto"
    """Device to run on."""
    precision: Precision = "auto"
    """Number format; auto uses bfloat16 if it is faster and the model gives the same labels."""
    compile: Flag = False
    """Compile the network. Takes up to a minute for each of the first two image sizes; faster
    afterwards."""
    tile: int | None = None
    """Cut images that are longer than this into tiles. Default: above 16.8 million pixels."""


def model_name(model: Path) -> str:
    """Return what a model is called: the name of its run, or of its own folder or file."""
    path = model.resolve()
    if path.name == "model":  # of a run
        return path.parent.name
    return path.stem if path.is_file() else path.name


def detach_stream(stream: TextIO) -> None:
    """Discard what is still buffered for a closed pipe; Python would fail on it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_result(facts: dict[str, Any], text: str, as_json: bool, *, ahead: str = "") -> None:
    """Print a result to stdout: one JSON object, or text and, unless --quiet, the next command."""
    hide_stage()
    lines = [translate(text).rstrip("\n")]
    if ahead and not isinstance(sys.stderr, _Discard):
        lines.append(translate(msg("next: {command}", command=ahead)))
    # Flushed here, where a closed pipe can still be handled: `fullconv check data | head`.
    try:
        if as_json:
            print(json.dumps(facts), flush=True)
        else:
            print_text("\n".join(lines), sys.stdout)
    except BrokenPipeError:
        detach_stream(sys.stdout)


@contextmanager
def progress_bar(label: str, *, visible: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows (done, total): a bar, or a line every half a minute."""
    hide_stage()
    if not visible:
        yield lambda done, total: None
        return
    started = last = time.monotonic()

    def print_line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PAUSE and 0 < done < total:
            last, speed = now, done / (now - started)
            counts = {"label": label, "done": done, "total": total, "speed": speed}
            left = duration((total - done) / speed)
            say(msg("{label} {done}/{total}  {speed:.1f}/s  {left} left", **counts, left=left))

    if not is_terminal():
        yield print_line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    counts, pace = TextColumn("{task.description}"), TextColumn("{task.fields[pace]}")
    left = [TimeRemainingColumn(), TextColumn(translate(msg("left")))]
    columns = [counts, BarColumn(bar_width=28), pace, *left]
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    task = bar.add_task(translate(label), total=None, pace="")

    def update_bar(done: int, total: int) -> None:
        speed = bar.tasks[0].speed
        pace = f"{speed:.1f}/s" if speed else ""
        description = f"{translate(label)} {done}/{total}"
        bar.update(task, completed=done, total=total, description=description, pace=pace)

    with bar:
        yield update_bar


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Discard what Python writes to stderr: progress, notes, warnings."""
    with redirect_stderr(_Discard()):
        yield


class _Discard(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def silence_native_stderr() -> Iterator[None]:
    """Discard what C libraries, not Python, write to stderr: libtiff notes every unusual tag."""
    try:
        copy = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    before, devnull = sys.stderr, os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        with suppress(AttributeError, OSError, ValueError):  # stderr is no file
            if before.fileno() == 2:
                errors = before.errors or "backslashreplace"
                sys.stderr = open(copy, "w", 1, before.encoding, errors, closefd=False)  # noqa: SIM115
        yield
    finally:
        if sys.stderr is not before:
            with suppress(OSError):  # a closed pipe
                sys.stderr.close()
            sys.stderr = before
        os.dup2(copy, 2)
        os.close(copy)
        os.close(devnull)
