"""The command that teaches a shell the names of commands and options: completion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from fullconv.cli.app import Json, app, emit
from fullconv.core.errors import FullconvError, command

Shell = Literal["bash", "zsh", "fish"]


@app.command(sort_key=12)
def completion(shell: Shell | None = None, *, json: Json = False) -> None:
    """Let the Tab key complete commands and options in your shell.

    The script goes to the shell's own place for such; a line that reads it is added to ~/.bashrc
    or ~/.zshrc.

    Parameters
    ----------
    shell
        Default: the one that $SHELL names.
    json
        Print one JSON object and nothing else.
    """
    shell = shell or _shell()
    try:
        path = app.install_completion(shell=shell)
    except OSError as error:
        raise FullconvError(
            f"the script for {shell} could not be written: {error.strerror or error}: "
            f"{error.filename}.",
            command("ls", "-ld", Path(error.filename or ".").parent),
        ) from error
    facts = {"shell": shell, "script": str(path)}
    ahead = f"exec {shell}   # or open a new terminal"
    emit(facts, f"completion for {shell}: {path}", json, ahead=ahead)


def _shell() -> Shell:
    named = Path(os.environ.get("SHELL", "")).name
    for shell in get_args(Shell):
        if shell == named:
            return shell
    said = f"SHELL is {named!r}" if named else "SHELL is not set"
    raise FullconvError(
        f"{said}; words are completed in {', '.join(get_args(Shell))}.", "fullconv completion bash"
    )
