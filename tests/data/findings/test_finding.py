from __future__ import annotations

from fullconv.data.findings.finding import LISTED, Finding, some


def test_a_finding_needs_no_files_and_no_fix() -> None:
    assert Finding("note", "rule", "message") == Finding("note", "rule", "message", (), "")


def test_long_lists_are_cut() -> None:
    names = [str(k) for k in range(LISTED + 1)]
    assert some(names[:2]) == "0, 1"
    assert not some(names[:LISTED]).endswith("...")
    assert some(names).endswith(f"{LISTED - 1}, ...")
