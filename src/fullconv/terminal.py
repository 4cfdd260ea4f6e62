"""The terminal: the application that commands join, and how they print.

Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal, TextIO

from cyclopts import App, Group, Parameter

import fullconv

app = App(
    name="fullconv",
    help="A label for every pixel: fully convolutional networks from any classifier.",
    version=fullconv.__version__,
    help_format="plaintext",
    group_commands=Group("Commands", sort_key=0),
    default_parameter=Parameter(negative_iterable=()),  # no --empty-crop
)
Json = Annotated[bool, Parameter(name="--json", negative=())]
Split = Literal["train", "val", "test"]
Precision = Literal["auto", "float32", "bfloat16"]


def say(text: str) -> None:
    """To stderr."""
    print(text, file=sys.stderr, flush=True)


def let_go(stream: TextIO) -> None:
    """Sends what is still to be written nowhere, or Python itself would stumble over it on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit(facts: dict[str, Any], text: str, as_json: bool) -> None:
    """The result, as text or as one JSON object."""
    # Flushed here, where a reader that went away can still be met: `fullconv check data | head`.
    try:
        print(json.dumps(facts) if as_json else text.rstrip("\n"), flush=True)
    except BrokenPipeError:
        let_go(sys.stdout)


@contextmanager
def counting(what: str) -> Iterator[Any]:
    """A line on a terminal that counts pictures; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return

    def progress(done: int, total: int) -> None:
        print(f"\r{what} {done}/{total}", end="", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        print("\r\x1b[K", end="", file=sys.stderr)


@contextmanager
def python_only() -> Iterator[None]:
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
