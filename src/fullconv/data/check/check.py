"""Check a dataset: all problems with their fixes, class shares, and a fingerprint of its content.

Every mask and image is decoded (large JPEG files at a reduced size) unless the same bytes were
scanned before, so that truncated files are found before training. Class shares and the fingerprint
come from the same pass.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import Message, join, msg, nmsg, translate
from fullconv.core.labels import RGB, format_color
from fullconv.core.text import LIST_LIMIT, shell_command
from fullconv.data.check.finding import Finding, share_text
from fullconv.data.check.rules import apply_rules
from fullconv.data.check.scan import DatasetScan, PairScan, scan_pair
from fullconv.data.check.value_meanings import Meaning, meanings, value_table
from fullconv.data.io.masks import Value
from fullconv.data.io.scan_cache import ScanCache
from fullconv.data.layouts.class_table import UndeterminedLabels
from fullconv.data.layouts.dataset import Dataset, load_dataset

_LISTED_FILES = 5
_LISTED_SIZES = 3
_MAX_CLASSES = 60
_LEVELS = {"error": msg("ERROR"), "warning": msg("WARNING"), "note": msg("NOTE")}


class ClassRow(NamedTuple):
    """A row of the class table: a class and its share of the labeled pixels of each split, or the
    ignored pixels (class id None) and their share of all pixels."""

    class_id: int | None
    color: RGB | None
    name: str
    shares: dict[str, float]


@dataclass(frozen=True)
class CheckReport:
    """The result of `check`.

    Args:
        dataset: the dataset that was checked.
        findings: errors, then warnings, then notes.
        class_pixels, ignored_pixels: split -> pixels of each of the K classes, and ignored ones.
        sizes: (H, W) of the images, upright -> number of images.
        mean, std: of red, green and blue over the pixels of all images, 0-1; large JPEG files
            count at a reduced size, where the standard deviation is slightly smaller.
        meanings: the meaning of the values in the mask files, most frequent first.
        fingerprint: sha256 over splits, names, contents and class table, wherever the dataset is.
        contents: split and name of a pair -> sha256 of image and mask; "" if it cannot be read.
        mask_class_pixels: mask -> class id -> pixels.
        value_pixels: value in the mask files -> pixels.
        lossy: True if any mask is in a lossy format.
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
    value_pixels: Mapping[Value, int] = field(default_factory=dict)
    lossy: bool = False

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that prevent training."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings of level "warning"."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    @property
    def class_rows(self) -> list[ClassRow]:
        """The shares of all classes, then of the ignored pixels; [] if the classes are unknown."""
        labels = self.dataset.labels
        if isinstance(labels, UndeterminedLabels):
            return []
        labeled = {split: max(1, sum(pixels)) for split, pixels in self.class_pixels.items()}
        rows = []
        for k, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True)):
            shares = {s: pixels[k] / labeled[s] for s, pixels in self.class_pixels.items()}
            rows.append(ClassRow(k, color, name, shares))
        ignored = {s: n / max(1, n + labeled[s]) for s, n in self.ignored_pixels.items()}
        return [*rows, ClassRow(None, None, msg("(ignored)"), ignored)]

    def for_evaluation(self) -> CheckReport:
        """Return the report without the errors that only prevent training."""
        findings = tuple(finding for finding in self.findings if finding.rule != "one-class")
        return replace(self, findings=findings)

    def raise_for_errors(self) -> None:
        """Raise a `FullconvError` that lists the errors, if there are any."""
        if not self.errors:
            return
        head = nmsg(
            "{count} error in the dataset {root}:",
            "{count} errors in the dataset {root}:",
            len(self.errors),
            root=self.dataset.root,
        )
        lines: list[str] = [head]
        for finding in self.errors:
            lines.append(msg("  {rule}: {message}", rule=finding.rule, message=finding.message))
            if finding.fix:
                lines.append(msg("    fix: {fix}", fix=_indented(finding.fix, 6)))
        raise FullconvError(join(lines), shell_command("fullconv", "check", self.dataset.root))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        data = self.dataset
        class_pixels = {
            split: dict(zip(data.labels.names, pixels, strict=True))
            for split, pixels in self.class_pixels.items()
        }
        sizes = [
            {"height": height, "width": width, "images": count}
            for (height, width), count in self.sizes.most_common()
        ]
        return {
            "root": str(data.root),
            "layout": data.layout,
            "reason": data.reason,
            "notes": list(data.notes),
            "labels": data.labels.to_dict(),
            "named": data.named,
            "images": {split: len(pairs) for split, pairs in data.splits.items()},
            "class_pixels": class_pixels,
            "ignored_pixels": dict(self.ignored_pixels),
            "sizes": sizes,
            "mean": list(self.mean),
            "std": list(self.std),
            "mask_values": [meaning.to_dict() for meaning in self.meanings],
            "fingerprint": self.fingerprint,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def text(self) -> str:
        """Return the report for a terminal, without colors."""
        parts = [_summary(self), value_table(self.meanings), _class_table(self)]
        parts += [_paragraph(finding) for finding in self.findings]
        levels = Counter(finding.level for finding in self.findings)
        counts = (
            nmsg("{count} error", "{count} errors", levels["error"]),
            nmsg("{count} warning", "{count} warnings", levels["warning"]),
            nmsg("{count} note", "{count} notes", levels["note"]),
        )
        parts.append(join(counts, ", ") if self.findings else msg("No problems found."))
        return join([part for part in parts if part], "\n\n")


def check(
    root_or_dataset: str | Path | Dataset,
    *,
    layout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Scan every file of a dataset and apply all rules.

    Args:
        root_or_dataset: a dataset, its folder, or the name of a published dataset.
        layout: see `fullconv.data.layouts.dataset.load_dataset`.
        progress: called with (pairs done, all pairs).

    Raises:
        FullconvError: the folder is not a dataset.
    """
    dataset = root_or_dataset
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, layout=layout)
    jobs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    scan = DatasetScan(dataset)
    # Threads suffice: decoding and hashing release the GIL.
    with ScanCache() as cache, ThreadPoolExecutor(min(16, cpu_count())) as pool:
        pair_scans = pool.map(lambda job: scan_pair(job[0], job[1], cache), jobs)
        for done, pair_scan in enumerate(pair_scans, 1):
            scan.add(pair_scan)
            if progress is not None:
                progress(done, len(jobs))

    # The fingerprint: of the class table, the splits and the files.
    labels = dataset.labels
    values = sorted([str(value), class_id] for value, class_id in labels.values.items())
    table = labels.to_dict() | {"values": values, "closed": labels.strict_values}
    rows = sorted([s.split, s.pair.name, s.image_hash, s.mask_hash] for s in scan.scans)
    text = json.dumps([table, sorted(dataset.splits), rows], sort_keys=True)
    return CheckReport(
        dataset,
        apply_rules(scan),
        scan.class_pixels,
        scan.ignored_pixels,
        Counter(s.image_size for s in scan.scans if s.image_size is not None),
        *_channel_statistics(scan.scans),
        meanings(scan),
        hashlib.sha256(text.encode()).hexdigest(),
        {(s.split, s.pair.name): (s.image_hash, s.mask_hash) for s in scan.scans},
        scan.mask_class_pixels,
        scan.values,
        any(mask.lossy for _, mask in scan.masks),
    )


def _channel_statistics(scans: list[PairScan]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of red, green and blue, 0-1, over all pixels."""
    images = [scan.image for scan in scans if scan.image]
    areas = [image.size[0] * image.size[1] for image in images]
    pixels = sum(areas)
    if not pixels:
        return (), ()
    mean, std = [], []
    for c in range(3):
        m = sum(image.mean[c] * area for image, area in zip(images, areas, strict=True)) / pixels
        s = sum(image.square[c] * area for image, area in zip(images, areas, strict=True)) / pixels
        mean.append(m / 255)
        std.append(max(0.0, s - m * m) ** 0.5 / 255)
    return tuple(mean), tuple(std)


def _summary(report: CheckReport) -> Message:
    data = report.dataset
    sizes: list[str] = [
        msg("{count} of {height} x {width}", count=count, height=height, width=width)
        for (height, width), count in report.sizes.most_common(_LISTED_SIZES)
    ]
    if (more := len(report.sizes) - _LISTED_SIZES) > 0:
        sizes.append(nmsg("{count} more size", "{count} more sizes", more))
    mean, std = (
        " ".join(f"{value:.3f}" for value in values) or "-" for values in (report.mean, report.std)
    )
    counts = ", ".join(f"{split} {len(pairs)}" for split, pairs in data.splits.items())
    return join([
        msg("{root}: layout {layout} ({reason})", root=data.root, layout=data.layout,
            reason=data.reason),
        msg("images: {counts}", counts=counts),
        msg("sizes (height x width): {sizes}", sizes=join(sizes, ", ")),
        msg("red, green and blue, 0-1: mean {mean}, std {std}", mean=mean, std=std),
        msg("fingerprint: {fingerprint}", fingerprint=report.fingerprint),
        *(msg("note: {note}", note=note) for note in data.notes),
    ])  # fmt: skip


def _class_table(report: CheckReport) -> Message:
    """Return id, color, name and share of the labeled pixels of each class."""
    if not report.class_rows:
        return join([])
    *rows, ignored = report.class_rows
    present = [row for row in rows if any(row.shares.values())]
    absent = len(rows) - len(present)
    if absent <= LIST_LIMIT:
        present, absent = rows, 0
    listed = present[:_MAX_CLASSES]
    width = max(len(row.name) for row in (*listed, ignored))

    def line(class_id: object, color: str, name: str, cells: Iterable[str]) -> Message:
        columns = {"id": class_id, "color": color, "name": name, "width": width}
        text = "".join(f"{cell:>9}" for cell in cells)
        return Message("{id:>4}  {color:7}  {name:{width}}{text}", {**columns, "text": text})

    def shares(row: ClassRow) -> list[str]:
        return [share_text(share) if share else "-" for share in row.shares.values()]

    lines = [line(msg("id"), msg("color"), msg("class"), ignored.shares)]
    for row in listed:
        color = format_color(row.color or (0, 0, 0))
        lines.append(line(row.class_id, color, row.name, shares(row)))
    if more := len(present) - len(listed):
        text = nmsg("      ... and {count} more class", "      ... and {count} more classes", more)
        lines.append(text)
    if absent:
        lines.append(msg("      ... and {count} classes that never occur", count=absent))
    last = line("", "", ignored.name, shares(ignored))
    return join([*lines, msg("{row}  of all pixels", row=last)])


def _paragraph(finding: Finding) -> Message:
    values = {"level": _LEVELS[finding.level], "rule": finding.rule, "message": finding.message}
    lines: list[str] = [msg("{level} {rule}: {message}", **values)]
    lines += [f"    {name}" for name in finding.files[:_LISTED_FILES]]
    if (more := len(finding.files) - _LISTED_FILES) > 0:
        lines.append(msg("    ... and {count} more", count=more))
    if finding.fix:
        lines.append(msg("  fix: {fix}", fix=_indented(finding.fix, 4)))
    return join(lines)


def _indented(text: str, width: int) -> str:
    """Return a text in the current language; all of its lines but the first are indented."""
    return indent(translate(text), " " * width).lstrip()
