"""Check the masks of additional heads, each as a dataset of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.ignore_rules import apply_ignore_rules
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.extra_folders import head_dataset


def add_extra_heads(
    report: CheckReport, folders: Sequence[str], *, ignore_rules: str = ""
) -> tuple[Dataset, list[CheckReport]]:
    """Return a dataset whose pairs have the masks of additional heads, and the heads' reports.

    `folders` are in the dataset's folder, or paths. `ignore_rules` counts for every head, see
    `fullconv.data.check.ignore_rules.apply_ignore_rules`.

    Raises:
        FullconvError: there is no such folder, an image has no mask, or masks have errors.
    """
    dataset = apply_ignore_rules(report, ignore_rules)
    reports = []
    for folder in folders:
        head_report = check(head_dataset(report.dataset, folder))
        try:
            head = apply_ignore_rules(head_report, ignore_rules)
        except FullconvError as error:
            command = shell_command("fullconv", "check", dataset.root, "--heads", folder)
            raise FullconvError(error.message, command) from None
        name = Path(folder).name
        if name in [other for other, _ in dataset.heads]:
            raise FullconvError(msg("two heads are called {name}.", name=name), f"--heads {name}")
        masks = {(s, pair.name): pair.mask for s, pairs in head.splits.items() for pair in pairs}
        splits = {}
        for split, pairs in dataset.splits.items():
            usable = [pair for pair in pairs if (split, pair.name) in masks]
            splits[split] = tuple(
                replace(p, masks=(*p.masks, masks[split, p.name])) for p in usable
            )
        dataset = replace(dataset, splits=splits, heads=(*dataset.heads, (name, head.labels)))
        reports.append(head_report)
    return dataset, reports


def fingerprint(report: CheckReport, dataset: Dataset) -> str:
    """Return the fingerprint of a dataset and its extra inputs; the report's if there are none."""
    if not dataset.inputs:
        return report.fingerprint
    digest = hashlib.sha256(report.fingerprint.encode())
    for split, pairs in sorted(dataset.splits.items()):
        for pair in sorted(pairs, key=lambda pair: pair.name):
            for path in pair.inputs:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                line = f"{split}\0{pair.name}\0{content}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
