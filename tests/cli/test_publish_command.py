"""`fullconv push`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import hub as stand_in
import pytest
from commands import Cli


def test_push(
    cli: Cli, hub: stand_in.Hub, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = cli("push", model_folder, "someone/streets")
    assert (code, "this machine has no token" in err, "try: hf auth login" in err) == (
        1,
        True,
        True,
    )
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    code, out, _ = cli("push", model_folder, "someone/streets", "--private")
    assert (code, out) == (
        0,
        f"{hub.address}/someone/streets   # README.md, config.json, model.safetensors\n"
        "next: fullconv predict hf://someone/streets IMAGES\n",
    )
    assert hub.repos["someone/streets"].private
    words = ["someone/streets", "--revision", "v2", "--message", "better", "--json"]
    code, out, _ = cli("push", model_folder, *words)
    facts = json.loads(out)
    assert (code, facts["name"]) == (0, "hf://someone/streets@v2")
    assert facts["commit"] == hub.repos["someone/streets"].branches["v2"]
    assert hub.repos["someone/streets"].messages[-1] == "better"
