"""Timing, memory, tables and result files, with command, machine, versions and commit.

README.md in this folder describes the method.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy")
PEERS = ("segmentation-models-pytorch", "torchfcn")  # recorded if they are installed
FILL_SECONDS = 0.05  # a fast variant is repeated for about this long
MOST_REPEATS = 20


class MissingError(Exception):
    """A section lacks something and is skipped with a message."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the median and quartiles of one or more values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Args:
        name: what is compared.
        ours, theirs: medians of Fullconv and the baseline, or None if only the ratio has a meaning.
        unit: unit of both.
        ratio: the figure.
        at_least, at_most: target of the median ratio, if any.
        note: additional text.
    """

    name: str
    ours: float | None
    theirs: float | None
    unit: str
    ratio: Spread
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return ok or short, or nothing without a target. A ratio that is NaN is short."""
        if self.at_least is None and self.at_most is None:
            return ""
        middle = self.ratio.median
        fine = (self.at_least is None or middle >= self.at_least) and (
            self.at_most is None or middle <= self.at_most
        )
        return "ok" if fine else "short"

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def counted(name: str, found: int, wanted: int) -> Figure:
    """Return a count over the expected count; anything but 1 misses the target."""
    ratio = found / wanted if wanted else 1.0 + found
    return Figure(name, found, wanted, "", Spread.of([ratio]), at_least=1, at_most=1)


@dataclass(frozen=True)
class Timings:
    """Seconds of one run of each variant, by round."""

    seconds: Mapping[str, Sequence[float]]

    def spread(self, name: str, *, scale: float = 1e3) -> Spread:
        """Return the milliseconds of a variant, or its seconds times another scale."""
        return Spread.of([scale * s for s in self.seconds[name]])

    def ratio(self, slow: str, fast: str) -> Spread:
        """Return how many times as long the first variant takes: the median over rounds."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return Spread.of([a / b for a, b in pairs])

    def figure(
        self,
        name: str,
        ours: str,
        theirs: str,
        *,
        at_least: float | None = None,
        images: int = 0,
        each: int = 1,
    ) -> Figure:
        """Return the baseline's time over Fullconv's.

        It is shown in ms (per item of `each` in a run), or in images per second if a run takes
        `images`.
        """
        middles = [self.spread(v, scale=1).median for v in (ours, theirs)]
        shown = [images / s if images else 1e3 * s / each for s in middles]
        unit = "images/s" if images else "ms"
        return Figure(name, *shown, unit, self.ratio(theirs, ours), at_least)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return {name: asdict(self.spread(name)) for name in self.seconds}


def compare(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2, seed: int = 0
) -> Timings:
    """Time variants in turn.

    Every round runs each of them in another order, so that other load on the machine affects all.
    """
    repeats = {name: _repeats(variant, warmup) for name, variant in variants.items()}
    chance = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with _no_collection():
        for _ in range(rounds):
            order = list(variants)
            chance.shuffle(order)
            for name in order:
                seconds[name].append(_clock(variants[name], repeats[name]))
            gc.collect()
    return Timings(seconds)


def _repeats(variant: Callable[[], object], warmup: int) -> int:
    """Warm up a variant; return how often it runs in one turn."""
    for _ in range(max(1, warmup)):
        latest = _clock(variant, 1)
    return min(MOST_REPEATS, max(1, math.ceil(FILL_SECONDS / max(latest, 1e-9))))


def _clock(variant: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        variant()
    return (time.perf_counter() - started) / repeats


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def extra_memory(run: Callable[[], object]) -> int:
    """Return the peak memory of `run` in bytes, above the memory in use before it.

    Use it in a new process with prepared inputs and loaded libraries.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # free memory would hide growth
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory
        before = _status("VmRSS")
        run()
        return _status("VmHWM") - before
    except OSError:  # not Linux, or not allowed: the peak since the process started
        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def in_fresh_process(script: str, *words: str) -> Any:
    """Run a script with these arguments; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(words)}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass
class Section:
    """The figures of a section, and other facts for the JSON file."""

    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return the options of all benchmarks."""
    first = (description or "").partition("\n\n")[0]
    made = argparse.ArgumentParser(description=first)
    made.add_argument("--only", nargs="+", metavar="SECTION", help="these parts only")
    made.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    made.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    made.add_argument("--threads", type=int, default=2, help="of torch; default 2")
    made.add_argument("--out", type=Path, help="folder of the results; default benchmarks/results")
    return made


def run(
    name: str,
    sections: Mapping[str, Callable[[argparse.Namespace], Section]],
    arguments: argparse.Namespace,
) -> int:
    """Run the sections, print and save a table of each, and return the exit status.

    Sections that do not run keep their earlier results, with their own date and commit.
    """
    unknown = sorted(set(arguments.only or ()) - set(sections))
    if unknown:
        print(f"no section {', '.join(unknown)}; there are {', '.join(sections)}.", file=sys.stderr)
        return 1
    if arguments.quick:
        arguments.rounds = 1
    out = arguments.out or (quick_folder() if arguments.quick else RESULTS)
    _use_threads(arguments.threads)
    failed = False
    for section in arguments.only or sections:
        print(f"\n{section}", flush=True)
        try:
            found = sections[section](arguments)
        except MissingError as reason:
            print(f"skipped: {reason}", flush=True)
            continue
        except Exception:  # the other sections are still useful
            traceback.print_exc()
            failed = True
            continue
        if arguments.quick:  # tiny sizes have no target
            found.figures = [replace(f, at_least=None, at_most=None) for f in found.figures]
        print(table(found.figures), flush=True)
        _save_section(name, section, found, arguments, out)
    return int(failed)


def quick_folder() -> Path:
    """Return the folder for trial results, which never replace real ones."""
    return Path(tempfile.gettempdir()) / "fullconv-quick"


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _save_section(
    name: str, section: str, found: Section, arguments: argparse.Namespace, out: Path
) -> None:
    path = out / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["sections"] if path.is_file() else {}
    facts = {
        "commit": commit(),
        "date": date.today().isoformat(),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "figures": [figure.to_dict() for figure in found.figures],
        **found.facts,
    }
    command = f"python {' '.join(sys.argv)}"
    save(name, command, {"sections": {**kept, section: facts}}, folder=out)


def table(figures: Sequence[Figure]) -> str:
    """Return figures as aligned text."""
    rows = [("figure", "ours", "theirs", "unit", "ratio", "quartiles", "wanted", "")]
    for f in figures:
        wanted = f">= {f.at_least:g}" if f.at_least is not None else ""
        wanted = f"<= {f.at_most:g}" if f.at_most is not None else wanted
        quartiles = f"{_short(f.ratio.low)} - {_short(f.ratio.high)}"
        row = (f.name, _short(f.ours), _short(f.theirs), f.unit, _short(f.ratio.median))
        rows.append((*row, quartiles, wanted, " ".join(filter(None, (f.verdict, f.note)))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def save(name: str, command: str, results: dict[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write NAME.json into the folder."""
    facts = {
        "command": command,
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "python": platform.python_version(),
        "versions": versions(),
        **results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """Return the commit, with a plus if the code has changes."""
    folder = Path(__file__).parent.parent
    words = ("git", "-C", str(folder))
    head = subprocess.run(
        [*words, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    code = ("src", "setup.py", ":(glob)benchmarks/*.py", "pyproject.toml")
    changed = subprocess.run(
        [*words, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=False
    ).stdout
    return f"{head}+" if changed else head


def versions() -> dict[str, str]:
    """Return the versions of the relevant installed packages."""
    found = {}
    for package in (*PACKAGES, *PEERS):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor() -> str:
    """Return the processor's name without the machine's."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
