"""Start a server in its own process and observe its memory, processor time and metrics."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

EVERY = 0.25  # seconds between two readings of the server's memory


@dataclass
class Process:
    """A running server, observed from outside.

    Args:
        process, address: the process and the address of the server.
        memory: resident bytes, by seconds since the load began.
    """

    process: subprocess.Popen[str]
    address: str
    memory: list[tuple[float, float]] = field(default_factory=list)

    def get(self, path: str) -> str:
        """Return the response at a path."""
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return str(answer.read().decode())

    @property
    def host_and_port(self) -> tuple[str, int]:
        parts = urlsplit(self.address)
        return parts.hostname or "", parts.port or 0

    def resident(self) -> float:
        """Return the resident memory in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return 1024.0 * int(re.findall(r"VmRSS:\s+(\d+)", text)[0])

    def cpu_seconds(self) -> float:
        """Return user and system seconds."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        words = text.rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record the memory meanwhile."""
        began, stop = time.monotonic(), threading.Event()

        def look() -> None:
            while True:
                self.memory.append((time.monotonic() - began, self.resident()))
                if stop.wait(EVERY):
                    return

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


@contextmanager
def serving(model: Path, limits: Mapping[str, float], threads: int, log: Path) -> Iterator[Process]:
    """Start a server with `limits` such as --max-seconds; its stderr goes to `log`."""
    words = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "fullconv", "serve", str(model), "--port", "0", "--json"]
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, *words],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment(threads),
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(log.read_text(encoding="utf-8"))
            yield Process(process, json.loads(line)["address"])
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process with a given number of torch threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def batch_size(metrics: str) -> float:
    """Return the mean number of images in a batch."""
    total, count = (
        float(re.findall(rf"fullconv_batch_size_{part} (\S+)", metrics)[0])
        for part in ("sum", "count")
    )
    return total / max(1.0, count)


def memory_facts(memory: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return resident MB at several times, and MB per minute in the second half (least squares).

    Memory that a few images use for a while is returned; lasting growth shows in the minima.
    """
    times, values = np.array(memory).T
    values, last = values / 1e6, times[-1]

    def within(start: float, end: float) -> np.ndarray:
        return values[(times >= start * last) & (times <= end * last)]

    half = times >= last / 2
    return {
        "start": values[0],
        "after_10_s": values[np.abs(times - 10).argmin()],
        "middle": values[np.abs(times - last / 2).argmin()],
        "end": values[-1],
        "highest": values.max(),
        "lowest_in_the_middle_fifth": within(0.4, 0.6).min(),
        "lowest_in_the_last_fifth": within(0.8, 1.0).min(),
        "a_minute_in_the_second_half": 60 * np.polyfit(times[half], values[half], 1)[0],
        "every_2_s": [round(value) for value in values[:: round(2 / EVERY)]],
    }
