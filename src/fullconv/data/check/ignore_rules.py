"""Tolerance: a data set with errors that a person has named as known, made fit to be read.

What an ignored rule found is left out, and nothing else: files that cannot be read and masks of
another size with their partners, values without a class as ignored pixels. Where the masks have no
meaning at all yet, nothing could be learned from what is left, so that cannot be ignored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.check.check import CheckReport
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.dataset import Dataset

_LEFT_OUT = ("unreadable", "size")  # rules that name files which no training can use


def apply_ignore_rules(report: CheckReport, ignore_rules: str = "") -> Dataset:
    """The data set of a report, without what the ignored rules found.

    Args:
        report: of `fullconv.data.check.check.check`.
        ignore_rules: names of rules, with commas: "size,soft-mask". A rule that found nothing may
            be among them.

    Raises:
        FullconvError: errors that are left, or that cannot be ignored.
    """
    rules = [rule.strip() for rule in ignore_rules.split(",") if rule.strip()]
    replace(
        report, findings=tuple(f for f in report.findings if f.rule not in rules)
    ).raise_for_errors()
    ignored = [finding for finding in report.errors if finding.rule in rules]
    if not ignored:
        return report.dataset
    dataset = report.dataset
    if isinstance(dataset.labels, tables.UndeterminedLabels):
        rule = ignored[0]
        raise FullconvError(
            f"{rule.rule} cannot be ignored: what the mask values of {dataset.root} mean is open, "
            f"so nothing is left to learn. {rule.message}.",
            rule.fix or shell_command("fullconv", "check", dataset.root),
        )
    gone = {name for f in ignored if f.rule in _LEFT_OUT for name in f.files}
    splits = {
        split: tuple(
            pair
            for pair in pairs
            if not {_relative(dataset, pair.image), _relative(dataset, pair.mask)} & gone
        )
        for split, pairs in dataset.splits.items()
    }
    if dataset.splits.get("train") and not splits["train"]:
        raise FullconvError(
            f"nothing is left to train on in {dataset.root}: every pair has an ignored error "
            f"({', '.join(f.rule for f in ignored)}).",
            shell_command("fullconv", "check", dataset.root),
        )
    return replace(dataset, splits=splits, labels=replace(dataset.labels, unknown_as_ignore=True))


def _relative(dataset: Dataset, path: Path) -> str:
    """As findings name it."""
    found = path.relative_to(dataset.root) if path.is_relative_to(dataset.root) else path
    return found.as_posix()
