"""Run a peer in its own process, alternating with the measured code.

The peer uses the default memory pages of the system, whatever this process uses.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from method import MissingError


class Elsewhere:
    """Run a peer once in its own process when called, and wait for it.

    Args:
        make: a function of a module, with its `arguments`; its return value is called in each run.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, line = context.Pipe()
        words = (line, make, arguments, torch.get_num_threads())
        self._process = context.Process(target=_serve, args=words, daemon=True)
        self._process.start()
        problem = self._line.recv()
        if problem:
            raise MissingError(problem)

    def __call__(self) -> None:
        self._line.send("again")
        self._line.recv()


def _serve(line: Connection, make: Any, arguments: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        run = make(*arguments)
    except MissingError as reason:
        line.send(str(reason))
        return
    line.send("")
    with contextlib.suppress(EOFError):  # the parent has ended
        while line.recv():
            run()
            line.send("done")
