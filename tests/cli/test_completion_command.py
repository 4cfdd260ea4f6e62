"""Completion: where the script goes, and what the Tab key then offers in a real shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import Cli

TAB = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_fullconv
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ZSH", "ZSH_CUSTOM", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def offered(script: str, words: str) -> set[str]:
    """Return what bash offers for the last of the words."""
    argv = ["bash", "--norc", "-c", TAB, "bash", script, "fullconv", *words.split(" ")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_their_values(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/local/bin/bash")
    code, out, _ = cli("completion", "--json")
    facts = json.loads(out)
    assert (code, facts["shell"]) == (0, "bash")
    script = facts["script"]
    assert {"train", "check", "doctor"} <= offered(script, "")
    for words, expected in (
        ("pre", {"predict"}),
        ("train --back", {"--backbone", "--backbone-lr"}),
        ("check --qui", {"--quiet"}),
        ("evaluate m d --split ", {"train", "val", "test"}),
        ("export m --format o", {"onnx", "openvino"}),
    ):
        assert offered(script, words) == expected


@pytest.mark.parametrize(
    ("shell", "script", "startup"),
    [
        ("bash", ".local/share/bash-completion/completions/fullconv", ".bashrc"),
        ("fish", ".config/fish/completions/fullconv.fish", None),
        ("zsh", ".zsh/completions/_*fullconv", ".zshrc"),
    ],
)
def test_where_the_script_goes(
    cli: Cli, home: Path, shell: str, script: str, startup: str | None
) -> None:
    for _ in range(2):  # again changes nothing
        result = cli("completion", shell)
        (path,) = home.glob(script)
        text = f"completion for {shell}: {path}\nnext: exec {shell}   # or open a new terminal\n"
        assert result == (0, text, "")
        assert "backbone" in path.read_text()
        if startup:
            named = (home / startup).read_text()
            assert named.count("# Load fullconv completion") <= 1
            assert str(path if shell == "bash" else path.parent) in named
    assert len([path for path in home.rglob("*") if path.is_file()]) == 1 + bool(startup)
