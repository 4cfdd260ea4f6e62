"""Check: everything that is wrong with a data set, each finding with its fix; the fingerprint.

Every mask and every image is decoded (large JPEG files at a reduced size), unless the same bytes
were seen before, so that truncated files are found before a training finds them. The rules are in
`findings`; the class shares and the fingerprint come from the same pass.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.labels import format_color
from fullconv.core.text import LIST_LIMIT, plural, shell_command
from fullconv.data.check.finding import Finding, percent
from fullconv.data.check.rules import findings
from fullconv.data.check.scan import DatasetScan, PairScan, scan_pair
from fullconv.data.check.value_meanings import Meaning, meanings, value_table
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts import dataset as layouts
from fullconv.data.layouts.dataset import Dataset

_SHOWN_FILES = 5
_SHOWN_CLASSES = 60
_LEVELS = {"error": "ERROR", "warning": "WARNING", "note": "NOTE"}


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Args:
        dataset: what was checked.
        findings: errors, then warnings, then notes.
        class_pixels: split -> pixels of each class (K long).
        ignored_pixels: split -> pixels that do not count.
        sizes: (H, W) of the images, upright -> how many.
        mean, std: of red, green and blue over the pixels of all images, scaled to 0-1; of large
            JPEG files at the reduced size, where the deviation is a little smaller.
        meanings: what the values in the mask files stand for, the commonest first.
        fingerprint: sha256 over splits, names, contents and class table; the same wherever the
            data lies and in whatever order its files are listed.
        contents: split and name of a pair -> sha256 of its image and of its mask; "" of a file
            that cannot be read.
        mask_class_pixels: mask -> class id -> pixels.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    class_pixels: dict[str, list[int]]
    ignored_pixels: dict[str, int]
    sizes: Counter[tuple[int, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    meanings: tuple[Meaning, ...]
    fingerprint: str
    contents: Mapping[tuple[str, str], tuple[str, str]]
    mask_class_pixels: Mapping[Path, Mapping[int, int]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def raise_for_errors(self) -> None:
        """Raise a `FullconvError` that lists the errors, if there are any."""
        if not self.errors:
            return
        lines = [f"{plural(len(self.errors), 'error')} in the data set {self.dataset.root}:"]
        for finding in self.errors:
            lines.append(f"  {finding.rule}: {finding.message}.")
            lines += ["    fix: " + indent(finding.fix, "      ").lstrip()] if finding.fix else []
        raise FullconvError("\n".join(lines), shell_command("fullconv", "check", self.dataset.root))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        data = self.dataset
        return {
            "root": str(data.root),
            "layout": data.layout,
            "reason": data.reason,
            "notes": list(data.notes),
            "labels": data.labels.to_dict(),
            "named": data.named,
            "images": {split: len(pairs) for split, pairs in data.splits.items()},
            "class_pixels": {
                split: dict(zip(data.labels.names, pixels, strict=True))
                for split, pixels in self.class_pixels.items()
            },
            "ignored_pixels": dict(self.ignored_pixels),
            "sizes": [
                {"height": height, "width": width, "images": count}
                for (height, width), count in self.sizes.most_common()
            ],
            "mean": list(self.mean),
            "std": list(self.std),
            "mask_values": [meaning.to_dict() for meaning in self.meanings],
            "fingerprint": self.fingerprint,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [
                {
                    "level": finding.level,
                    "rule": finding.rule,
                    "message": finding.message,
                    "files": list(finding.files),
                    "fix": finding.fix,
                }
                for finding in self.findings
            ],
        }

    def text(self) -> str:
        """The report as a person reads it."""
        parts = [_head(self), value_table(self.meanings), _class_table(self)]
        parts += [_paragraph(f) for f in self.findings]
        if not self.findings:
            parts.append("Nothing wrong found.")
        else:
            count = Counter(finding.level for finding in self.findings)
            errors, warnings = plural(count["error"], "error"), plural(count["warning"], "warning")
            parts.append(f"{errors}, {warnings}, {plural(count['note'], 'note')}")
        return "\n\n".join(part for part in parts if part) + "\n"


def check(
    root_or_dataset: str | Path | Dataset,
    *,
    layout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Look at every file of a data set. `layout` is for `layouts.load_dataset`; `progress` is called with
    (pairs done, pairs in all)."""
    dataset = root_or_dataset
    if not isinstance(dataset, Dataset):
        dataset = layouts.load_dataset(dataset, layout=layout)
    jobs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    # Threads: decoding and hashing leave Python's lock alone.
    with ScanCache() as known, ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        scans = pool.map(lambda job: scan_pair(job[0], job[1], known), jobs)
        facts = DatasetScan(dataset, _told(scans, len(jobs), progress))
    return CheckReport(
        dataset,
        findings(facts),
        facts.classes,
        facts.ignored,
        Counter(scan.image_size for scan in facts.scans if scan.image_size is not None),
        *_moments(facts.scans),
        meanings(facts),
        _fingerprint(dataset, facts.scans),
        {(s.split, s.pair.name): (s.image_hash, s.mask_hash) for s in facts.scans},
        facts.shown,
    )


def _told(
    scans: Iterable[PairScan], count: int, progress: Callable[[int, int], None] | None
) -> Iterator[PairScan]:
    """The scans, one after another, each of which is told."""
    for done, scan in enumerate(scans, 1):
        yield scan
        if progress is not None:
            progress(done, count)


def _moments(scans: list[PairScan]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue, 0-1; every pixel counts the same."""
    seen = [scan.image for scan in scans if scan.image]
    pixels = sum(height * width for height, width in (one.size for one in seen))
    if not pixels:
        return (), ()
    mean, square = (
        [sum(getattr(p, of)[c] * p.size[0] * p.size[1] for p in seen) / pixels for c in range(3)]
        for of in ("mean", "square")
    )
    std = [max(0.0, s - m * m) ** 0.5 for m, s in zip(mean, square, strict=True)]
    return tuple(m / 255 for m in mean), tuple(s / 255 for s in std)


def _fingerprint(dataset: Dataset, scans: list[PairScan]) -> str:
    labels = dataset.labels
    table = labels.to_dict() | {
        "values": sorted([str(value), class_id] for value, class_id in labels.values.items()),
        "closed": labels.strict_values,
    }
    rows = sorted([scan.split, scan.pair.name, scan.image_hash, scan.mask_hash] for scan in scans)
    text = json.dumps([table, sorted(dataset.splits), rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _head(report: CheckReport) -> str:
    data = report.dataset
    sizes = report.sizes.most_common(3)
    shown = ", ".join(f"{count} of {height} x {width}" for (height, width), count in sizes)
    more = f" and {plural(len(report.sizes) - 3, 'more size')}" if len(report.sizes) > 3 else ""
    lines = [
        f"{data.root}: layout {data.layout} ({data.reason})",
        "images: " + ", ".join(f"{split} {len(pairs)}" for split, pairs in data.splits.items()),
        f"sizes (height x width): {shown}{more}",
        f"red, green and blue, 0-1: mean {_three(report.mean)}, std {_three(report.std)}",
        f"fingerprint: {report.fingerprint}",
        *(f"note: {note}" for note in data.notes),
    ]
    return "\n".join(lines)


def _three(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values) or "-"


def _class_table(report: CheckReport) -> str:
    """Class id, colour, name and the share of the pixels that have a class, per split."""
    if isinstance(report.dataset.labels, tables.UndeterminedLabels):
        return ""
    names, colors = report.dataset.labels.names, report.dataset.labels.colors
    splits = list(report.class_pixels)
    shown = [k for k in range(len(names)) if any(report.class_pixels[s][k] for s in splits)]
    absent = len(names) - len(shown)
    if absent <= LIST_LIMIT:
        shown, absent = list(range(len(names))), 0
    more = len(shown) - _SHOWN_CLASSES
    width = max(len(name) for name in (*(names[k] for k in shown[:_SHOWN_CLASSES]), "(ignored)"))
    lines = [f"{'id':>4}  {'colour':7}  {'class':{width}}" + "".join(f"{s:>9}" for s in splits)]
    totals = {split: max(1, sum(report.class_pixels[split])) for split in splits}
    for k in shown[:_SHOWN_CLASSES]:
        cells = "".join(_percent(report.class_pixels[s][k], totals[s]) for s in splits)
        lines.append(f"{k:>4}  {format_color(colors[k])}  {names[k]:{width}}{cells}")
    if more > 0:
        lines.append(f"      ... and {plural(more, 'more class', 'more classes')}")
    if absent:
        lines.append(f"      ... and {absent} classes that never occur")
    ignored = report.ignored_pixels
    cells = "".join(_percent(ignored[s], max(1, ignored[s] + totals[s])) for s in splits)
    lines.append(f"{'':4}  {'':7}  {'(ignored)':{width}}{cells}  of all pixels")
    return "\n".join(lines)


def _percent(part: int, whole: int) -> str:
    return f"{percent(part / whole) if part else '-':>9}"


def _paragraph(finding: Finding) -> str:
    lines = [f"{_LEVELS[finding.level]} {finding.rule}: {finding.message}."]
    lines += [f"    {name}" for name in finding.files[:_SHOWN_FILES]]
    if len(finding.files) > _SHOWN_FILES:
        lines.append(f"    ... and {len(finding.files) - _SHOWN_FILES} more")
    if finding.fix:
        lines.append("  fix: " + indent(finding.fix, "    ").lstrip())
    return "\n".join(lines)
