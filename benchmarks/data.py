"""Measure time and memory of `fullconv check`, and its behavior on damaged files.

`check`: CamVid, first and repeated · `many`: 10,000 synthetic pairs · `damaged`: 5,000 damaged
files, one by one and in datasets. Each command runs in its own process with its own cache folder.
Writes results/data.json.

    python benchmarks/data.py [--only check many] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from method import Figure, MissingError, Section, Spread, in_fresh_process, parser, run
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.io.images import image_size, read_image, read_reduced
from fullconv.data.io.masks import count_values, read_mask, write_mask
from fullconv.data.synthetic import scenes as drawn

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import damage
from sound import SIZE

FIRST_SECONDS, AGAIN_SECONDS = 30, 3  # for CamVid's 701 pairs
MANY, MANY_SCENES = 10_000, 500
MANY_BYTES = 1e9
WINDOW = (96, 128)  # H, W of a pair, cropped from a synthetic scene
DAMAGED, TOGETHER = 5_000, 250  # files in total, and per dataset
FILE_SECONDS, DAMAGED_BYTES = 10, 2e9
LIMIT = 1200  # seconds after which a check counts as hanging
Found = dict[str, Any]


def checked(folder: Path, cache: Path) -> Found:
    """Run `fullconv check` once; return seconds, peak bytes, exit code and output.

    The calling process must not have started others, so that the peak belongs to this one.
    """
    words = [sys.executable, "-m", "fullconv", "check", str(folder), "--json"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    started = time.perf_counter()
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, timeout=LIMIT, check=False
    )
    seconds = time.perf_counter() - started
    report = json.loads(done.stdout) if done.stdout else {}
    counts = {finding["rule"]: len(finding["files"]) for finding in report.get("findings", ())}
    return {
        "seconds": seconds,
        "bytes": peak_bytes(resource.RUSAGE_CHILDREN),
        "code": done.returncode,
        "said": done.stderr,
        "pairs": sum(report.get("images", {}).values()),
        "files_of_rules": counts,
    }


def peak_bytes(who: int) -> int:
    """Return the peak memory of this process or of its largest child."""
    if who == resource.RUSAGE_SELF and Path("/proc/self/status").is_file():
        # getrusage would return the parent's peak if it was higher.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_of(folder: Path, cache: Path) -> Found:
    """Run `checked` from a small process, because a child's peak includes that of its parent."""
    found: Found = in_fresh_process(__file__, "--one", "check", str(folder), str(cache))
    return found


def first_and_again(folder: Path) -> tuple[Found, Found]:
    """Run a check with an empty cache and again with the filled one."""
    with tempfile.TemporaryDirectory() as cache:
        return check_of(folder, Path(cache)), check_of(folder, Path(cache))


def bound(name: str, values: list[float], limit: float, unit: str) -> Figure:
    """Compare a value with an absolute limit, in the baseline column."""
    ratio = Spread.of([value / limit for value in values])
    return Figure(f"{name} / limit", Spread.of(values).median, limit, unit, ratio, at_most=1)


def check(arguments: argparse.Namespace) -> Section:
    """Check CamVid, first and repeated."""
    with tempfile.TemporaryDirectory() as made:
        if arguments.quick:
            folder = drawn.write(Path(made) / "data", train=6, val=2, test=2, size=WINDOW)
        else:
            folder = Path(os.environ.get("FULLCONV_SHARED", "")) / "data/camvid"
            if not os.environ.get("FULLCONV_SHARED") or not folder.is_dir():
                raise MissingError("CamVid: FULLCONV_SHARED names the folder of data/camvid")
        rounds = [first_and_again(folder) for _ in range(arguments.rounds)]
    first, again = ([found[k]["seconds"] for found in rounds] for k in (0, 1))
    count = rounds[0][0]["pairs"]
    ratio = Spread.of([a / b for a, b in zip(first, again, strict=True)])
    middles = [Spread.of(values).median for values in (again, first)]
    figures = [
        bound(f"{count} pairs, first time", first, FIRST_SECONDS, "s"),
        bound(f"{count} pairs, again", again, AGAIN_SECONDS, "s"),
        Figure(f"{count} pairs, first time / again", *middles, "s", ratio),
    ]
    return Section(figures, {"rounds_of_check": rounds})


def scene_windows(numbers: range, each: int, root: str) -> None:
    """Write `each` windows of every scene, some of them flipped."""
    for number in numbers:
        image, ids = drawn.scene(number)
        random = np.random.default_rng(number)
        for k in range(each):
            top, left = (
                random.integers(0, a - b + 1) for a, b in zip(ids.shape, WINDOW, strict=True)
            )
            rows, columns = slice(top, top + WINDOW[0]), slice(left, left + WINDOW[1])
            turn = 1 - 2 * (k % 2)
            photo, mask = (x[rows, columns][:, ::turn] for x in (image, ids))
            place = number * each + k
            name = f"{('train', 'train', 'train', 'val', 'test')[place % 5]}/{place:05d}"
            Image.fromarray(photo).save(Path(root, f"images/{name}.jpg"), quality=92)
            write_mask(Path(root, f"masks/{name}.png"), mask, drawn.LABELS)


def many(arguments: argparse.Namespace) -> Section:
    """Check a large number of synthetic pairs."""
    count, scenes = (20, 4) if arguments.quick else (MANY, MANY_SCENES)
    with tempfile.TemporaryDirectory() as made:
        root = drawn.write(Path(made) / "data", train=1, val=1, test=1, size=WINDOW)
        parts = [range(k, scenes, 8) for k in range(8)]
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            draw = partial(scene_windows, each=count // scenes, root=str(root))
            list(pool.map(draw, parts))
        rounds = [first_and_again(root) for _ in range(arguments.rounds)]
    first, again = ([found[k]["seconds"] for found in rounds] for k in (0, 1))
    peaks = [found[k]["bytes"] / 1e6 for found in rounds for k in (0, 1)]
    pairs = rounds[0][0]["pairs"]
    ratio = Spread.of([a / b for a, b in zip(first, again, strict=True)])
    middles = [Spread.of(values).median for values in (again, first)]
    figures = [
        bound(f"{pairs} pairs, peak memory", peaks, MANY_BYTES / 1e6, "MB"),
        Figure(f"{pairs} pairs, first time / again", *middles, "s", ratio),
    ]
    return Section(figures, {"rounds_of_check": rounds})


def damaged_files(count: int, bombs: bool) -> Iterator[damage.Damaged]:
    """Write damaged files, including small ones that promise or contain many pixels."""
    large = list(damage.bombs().items()) if bombs else []
    few = list(damage.files(count - len(large)))
    step = max(1, len(few) // max(1, len(large)))
    for number, file in enumerate(few):
        yield file
        if number % step == step - 1 and large:
            name, make = large.pop()
            yield damage.Damaged(f"{number:05d}_{name}", make())
    yield from (damage.Damaged(f"99999_{name}", make()) for name, make in large)


def lay_out(root: Path, number: int, file: damage.Damaged, sound: tuple[Path, Path]) -> Path:
    """Write a pair of a damaged and an intact file; alternate between image and mask."""
    as_mask = file.is_array or number % 2 == 0
    split, stem = ("train", "train", "val")[number % 3], f"{number:05d}"
    for folder, damaged, other in (("images", not as_mask, 0), ("masks", as_mask, 1)):
        suffix = Path(file.name).suffix if damaged else sound[other].suffix
        path = root / folder / split / f"{stem}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if damaged:
            path.write_bytes(file.content)
            hurt = path
        else:
            shutil.copyfile(sound[other], path)
    return hurt


def read_all(listing: Path) -> Found:
    """Read the files with every reader, one after another."""
    counts: Counter[str] = Counter()
    tracebacks, longest, peak = [], (0.0, ""), (0, "")
    for line in listing.read_text(encoding="utf-8").splitlines():
        path = Path(line)
        readers: list[Callable[[Path], object]] = [
            count_values,
            partial(read_mask, labels=drawn.LABELS),
        ]
        if path.suffix not in damage.ARRAYS:
            readers += [read_image, partial(read_reduced, shortest=512), image_size]
        refused = 0
        for number, read in enumerate(readers):
            started = time.perf_counter()
            try:
                read(path)
            except FullconvError:
                refused += number == 0
            except Exception as error:  # count what must not happen
                tracebacks.append(f"{path.name}: {type(error).__name__}: {error}")
            longest = max(longest, (time.perf_counter() - started, path.name))
        counts["refused" if refused else "read"] += 1
        reached = peak_bytes(resource.RUSAGE_SELF)
        peak = (reached, path.name) if reached > peak[0] else peak
    return {
        "files": dict(counts),
        "tracebacks": tracebacks,
        "longest_seconds": longest[0],
        "longest": longest[1],
        "bytes": peak[0],
        "largest": peak[1],
    }


@contextmanager
def damaged_sets(count: int, bombs: bool) -> Iterator[tuple[list[Path], Path]]:
    """Write datasets with damaged files, every second one without a class table, and a list of the
    damaged files."""
    with tempfile.TemporaryDirectory() as made:
        whole = drawn.write(Path(made) / "sound", train=1, val=1, test=1, size=SIZE)
        sound = (whole / "images/train/street_0000.jpg", whole / "masks/train/street_0000.png")
        roots, hurt = [], []
        for number, file in enumerate(damaged_files(count, bombs)):
            root = Path(made) / f"{number // TOGETHER:02d}"
            if root not in roots:
                roots.append(root)
                root.mkdir()
                if len(roots) % 2:
                    shutil.copyfile(whole / "dataset.toml", root / "dataset.toml")
            hurt.append(lay_out(root, number, file, sound))
        listing = Path(made) / "damaged.txt"
        listing.write_text("\n".join(map(str, hurt)), encoding="utf-8")
        yield roots, listing


def damaged(arguments: argparse.Namespace) -> Section:
    """Check files that are truncated, bit-flipped, overwritten, renamed or have wrong headers."""
    count = 300 if arguments.quick else DAMAGED
    with damaged_sets(count, not arguments.quick) as (roots, listing):
        alone: Found = in_fresh_process(__file__, "--one", "read", str(listing))
        with tempfile.TemporaryDirectory() as cache:
            checks = [check_of(root, Path(cache)) for root in roots]
    # An exit code of 1 means errors were found in the data; 2, or one below 0, is a bug.
    faults = [found["said"] or f"exit code {found['code']}" for found in checks if is_bug(found)]
    peaks = [alone["bytes"] / 1e6, max(found["bytes"] for found in checks) / 1e6]
    files = sum(alone["files"].values())
    bugs = len(alone["tracebacks"]) + len(faults)
    figures = [
        Figure(
            f"{files} files, tracebacks and words of libraries", bugs, 0, "", one(bugs), None, 0
        ),
        bound(f"{files} files, longest for one", [alone["longest_seconds"]], FILE_SECONDS, "s"),
        bound(f"{files} files, peak memory one by one", peaks[:1], DAMAGED_BYTES / 1e6, "MB"),
        bound(f"{files} files, peak memory of a check", peaks[1:], DAMAGED_BYTES / 1e6, "MB"),
    ]
    facts = {"one_by_one": alone, "checks": checks, "faults": faults, "pairs_a_check": TOGETHER}
    return Section(figures, {"rounds": 1, **facts})


def is_bug(found: Found) -> bool:
    """Return true if a check ended without a report or a library printed something."""
    return found["code"] not in (0, 1) or bool(found["said"])


def one(value: float) -> Spread:
    return Spread.of([value])


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.one:
        what, *paths = arguments.one
        found = (checked if what == "check" else read_all)(*map(Path, paths))
        print(json.dumps(found))
        return
    sys.exit(run("data", {"check": check, "many": many, "damaged": damaged}, arguments))


if __name__ == "__main__":
    main()
