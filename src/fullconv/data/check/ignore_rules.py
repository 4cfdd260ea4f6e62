"""Use a dataset in spite of errors that the user has named.

Only the files or values that an ignored rule found are left out: unreadable files and masks of
another size with their partners; values without a class become ignored pixels. If the masks have no
meaning at all, nothing could be learned from the rest, so such errors cannot be ignored.
"""

from __future__ import annotations

from dataclasses import replace

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command, split_list
from fullconv.data.check.check import CheckReport
from fullconv.data.layouts.class_table import UndeterminedLabels
from fullconv.data.layouts.dataset import Dataset

_FILE_RULES = ("unreadable", "size")  # their files cannot be used


def apply_ignore_rules(report: CheckReport, ignore_rules: str = "") -> Dataset:
    """Return the dataset of a report, without what the ignored rules found.

    Args:
        report: of the dataset.
        ignore_rules: comma-separated rules: "size,soft-mask". They need not have found anything.

    Raises:
        FullconvError: there are other errors, or errors that cannot be ignored.
    """
    rules, dataset = split_list(ignore_rules), report.dataset
    others = tuple(finding for finding in report.findings if finding.rule not in rules)
    replace(report, findings=others).raise_for_errors()
    ignored = [finding for finding in report.errors if finding.rule in rules]
    if not ignored:
        return dataset
    command = shell_command("fullconv", "check", dataset.root)
    if isinstance(dataset.labels, UndeterminedLabels):
        message = msg(
            "{rule} cannot be ignored: {message} The mask values of {root} have no meaning yet, so "
            "that nothing could be learned.",
            rule=ignored[0].rule,
            root=dataset.root,
            message=ignored[0].message,
        )
        raise FullconvError(message, ignored[0].fix or command)

    # Leave out the pairs of files that cannot be used; ignore values without a class.
    unusable = [finding for finding in ignored if finding.rule in _FILE_RULES]
    paths = {dataset.root / name for finding in unusable for name in finding.files}
    splits = {
        split: tuple(pair for pair in pairs if not {pair.image, pair.mask} & paths)
        for split, pairs in dataset.splits.items()
    }
    if dataset.splits.get("train") and not splits["train"]:
        message = msg(
            "nothing is left to train on in {root}: every pair has an ignored error ({rules}).",
            root=dataset.root,
            rules=", ".join(finding.rule for finding in ignored),
        )
        raise FullconvError(message, command)
    return replace(dataset, splits=splits, labels=replace(dataset.labels, unknown_as_ignore=True))
