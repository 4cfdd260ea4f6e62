"""`fullconv push`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import hub as stand_in
import pytest

from fullconv.cli.main import run


def test_push_says_where_it_is_and_what_comes_next(
    hub: stand_in.Hub,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    assert run(["push", str(model_folder), "someone/streets", "--private"]) == 0
    said = capsys.readouterr()
    assert said.out == (
        f"{hub.address}/someone/streets   # README.md, config.json, model.safetensors\n"
        "next: fullconv predict hf://someone/streets IMAGES\n"
    )
    assert hub.repos["someone/streets"].private
    words = ["someone/streets", "--revision", "v2", "--message", "better", "--json"]
    assert run(["push", str(model_folder), *words]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["name"] == "hf://someone/streets@v2"
    assert facts["commit"] == hub.repos["someone/streets"].branches["v2"]
    assert hub.repos["someone/streets"].messages[-1] == "better"


def test_without_a_token(
    hub: stand_in.Hub, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["push", str(model_folder), "someone/streets"]) == 1
    said = capsys.readouterr().err
    assert "this machine has no token" in said
    assert "try: hf auth login" in said
