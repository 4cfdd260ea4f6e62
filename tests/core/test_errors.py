from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fullconv.core.errors import FullconvError

SOURCE = Path(__file__).parents[2] / "src" / "fullconv"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
# The message itself names the one number that is wrong, and what it must be.
PLAIN = ("data/synthetic/scenes.py",)


def test_the_hint_is_below_the_message() -> None:
    error = FullconvError("no folder 'x'.", "fullconv check data")
    assert str(error) == "no folder 'x'.\n  try: fullconv check data"
    assert (error.message, error.hint) == ("no folder 'x'.", "fullconv check data")
    assert str(FullconvError("no folder 'x'.")) == "no folder 'x'."


@pytest.mark.parametrize("module", [name for name in FILES if name not in PLAIN])
def test_every_error_has_a_line_to_paste(module: str) -> None:
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "FullconvError":
            where = f"src/fullconv/{module}:{node.lineno}"
            assert len(node.args) == 2, f"{where}: no hint"
            ends = [node.args[1]]
            if isinstance(ends[0], ast.IfExp):
                ends = [ends[0].body, ends[0].orelse]
            assert not any(isinstance(e, ast.Constant) and not e.value for e in ends), where


COMMANDS = ("fullconv ", "ls ", "cp ", "mv ", "rm ", "mkdir ", "echo ", "python ", "chmod ")


@pytest.mark.parametrize("module", FILES)
def test_commands_to_paste_are_quoted(module: str) -> None:
    """Folders have spaces in their names: `shell_command` writes such lines, no f-string does."""
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            names = [ast.unparse(v.value) for v in node.values if isinstance(v, ast.FormattedValue)]
            loose = [name for name in names if not name.startswith("shell_command(")]
            line = str(node.values[0].value).startswith(COMMANDS)
            assert not (line and loose), f"src/fullconv/{module}:{node.lineno}: {loose}"
