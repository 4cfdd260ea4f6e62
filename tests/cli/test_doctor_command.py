"""The command doctor: text or one JSON object, and its exit code."""

from __future__ import annotations

import json

import pytest

from fullconv.cli import doctor
from fullconv.cli.main import run


@pytest.mark.parametrize("broken", [False, True])
def test_text_json_and_exit_code(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        monkeypatch.setattr(doctor, "wanted_by", lambda package, other: "<1")
    assert run(["doctor"]) == int(broken)
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith("fullconv     ")
    assert ("broken: torch" in out) == broken
    sound = "\nnothing is broken\nnext: fullconv check DATA   # or: fullconv demo\n"
    assert out.endswith(sound) != broken
    assert ("next: " in out) != broken
    assert run(["doctor", "--json"]) == int(broken)
    out, err = capfd.readouterr()
    assert err == ""
    facts = json.loads(out)
    assert facts["broken"] == broken
    assert [one["level"] for one in facts["findings"]].count("broken") == int(broken)
