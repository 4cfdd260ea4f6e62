"""Completion: where the script goes, and what the Tab key then offers in a real shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fullconv.cli.main import run

TAB = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_fullconv
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own; scripts go there."""
    for name in ("ZSH", "ZSH_CUSTOM", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def offered(script: str, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    argv = ["bash", "--norc", "-c", TAB, "bash", script, "fullconv", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_their_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/usr/local/bin/bash")
    assert run(["completion", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["shell"] == "bash"
    script = facts["script"]
    assert offered(script, "pre") == {"predict"}
    assert {"train", "check", "doctor"} <= offered(script, "")
    assert offered(script, "train", "--back") == {"--backbone", "--backbone-lr"}
    assert offered(script, "check", "--qui") == {"--quiet"}
    assert offered(script, "evaluate", "m", "d", "--split", "") == {"train", "val", "test"}
    assert offered(script, "export", "m", "--format", "o") == {"onnx", "openvino"}


@pytest.mark.parametrize(
    ("shell", "script", "startup"),
    [
        ("bash", ".local/share/bash-completion/completions/fullconv", ".bashrc"),
        ("fish", ".config/fish/completions/fullconv.fish", None),
        ("zsh", ".zsh/completions/_*fullconv", ".zshrc"),
    ],
)
def test_where_the_script_goes(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    shell: str,
    script: str,
    startup: str | None,
) -> None:
    for _ in range(2):  # again changes nothing
        assert run(["completion", shell]) == 0
        (path,) = home.glob(script)
        assert capsys.readouterr() == (
            f"completion for {shell}: {path}\nnext: exec {shell}   # or open a new terminal\n",
            "",
        )
        assert "--backbone" in path.read_text() or "backbone" in path.read_text()
        if startup:
            named = (home / startup).read_text()
            assert named.count("# Load fullconv completion") <= 1
            assert str(path if shell == "bash" else path.parent) in named
    assert len([path for path in home.rglob("*") if path.is_file()]) == 1 + bool(startup)


@pytest.mark.parametrize(("named", "said"), [("/bin/dash", "SHELL is 'dash'"), ("", "SHELL is ''")])
def test_a_shell_that_is_not_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    monkeypatch.setenv("SHELL", named)
    assert run(["completion"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "; completion supports bash, zsh, fish.\n  try: fullconv completion bash\n" in err


def test_a_home_that_cannot_be_written(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    assert run(["completion", "bash"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the completion script for bash could not be written")
    assert "\n  try: ls -ld " in err
