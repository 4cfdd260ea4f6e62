from __future__ import annotations

from fullconv.data.check.finding import Finding


def test_a_finding_needs_no_files_and_no_fix() -> None:
    assert Finding("note", "rule", "message") == Finding("note", "rule", "message", (), "", ())
