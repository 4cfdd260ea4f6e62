"""The command line: parse, call, print. The only module that knows argv.

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 the user can fix it,
2 a bug of ours. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from inspect import Parameter as Place
from inspect import signature
from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import CycloptsError, Group, MissingArgumentError, Parameter, UnusedCliTokensError

import fullconv.cli.data
import fullconv.cli.doctor
import fullconv.cli.evaluate
import fullconv.cli.export
import fullconv.cli.paper
import fullconv.cli.predict
import fullconv.cli.serve  # these ten join their commands to the application
from fullconv.cli.app import (
    Json,
    app,
    detach_stream,
    print_result,
    say,
    silence_native_stderr,
    silence_stderr,
)
from fullconv.cli.train import _options_in, train
from fullconv.core.errors import DownloadError, FullconvError, StoppedError
from fullconv.core.hardware import use_huge_pages
from fullconv.core.i18n import format_error, requested_language, set_language, translate
from fullconv.core.packages import __version__
from fullconv.core.text import shell_command

# What the machine refuses: no space, no permission, a read-only disk.
OUTSIDE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)


@app.command(sort_key=1)
def demo(*, out: Path = Path("demo"), epochs: int = 28, seed: int = 0) -> None:
    """Drawn street scenes, trained, evaluated, and a sheet to look at; no download.

    Parameters
    ----------
    out
        Folder for the scenes, the run and the sheet.
    epochs
        Passes over the scenes; 20 take about four minutes on two cores.
    seed
        Of the training; the scenes are always the same.
    """
    from fullconv.cli.demo import run_demo, text_of

    result = run_demo(out, epochs=epochs, seed=seed, say=say)
    ahead = shell_command("fullconv", "predict", out / "run", out / "scenes/images/test")
    print_result(result, text_of(result, out), False, ahead=ahead)


app.meta.group_parameters = Group("Of every command")


@app.meta.default
def launch(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(negative=())] = False,
    lang: Literal["en", "zh"] | None = None,
) -> int:
    """Runs the command that the words name; returns the exit code.

    Parameters
    ----------
    words
        The command and what it takes.
    quiet
        No progress and no notes: results and errors alone.
    lang
        Messages in English or Chinese. Default: as LC_ALL, LC_MESSAGES or LANG says.
    """
    chosen, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    if chosen is train:
        bound.arguments["given"] = _options_in(words)
    if chosen in (train, fullconv.cli.evaluate.evaluate, demo):
        use_huge_pages()
    # Those about data sets open what comes, and say themselves what is wrong with it.
    about_data = chosen.__module__ == fullconv.cli.data.__name__
    with (
        silence_stderr() if quiet else nullcontext(),
        silence_native_stderr() if about_data else nullcontext(),
    ):
        result = chosen(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else 0


def main(argv: list[str] | None = None) -> None:
    """Runs a command and exits."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Runs a command; returns the exit code."""
    set_language(
        requested_language(argv)
    )  # before anything can go wrong, the words themselves included
    try:
        # The parser takes a word that begins with a dash for an option, even where that is all.
        argv = ["@-" if word == "-" else word for word in argv]
        chosen, bound, _ = app.meta.parse_args(argv, exit_on_error=False, print_error=False)
        result = chosen(*bound.args, **bound.kwargs)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except DownloadError as error:
        return _failed(error.typed(shell_command("fullconv", *argv)))
    except StoppedError as stopped:
        return _end(translate(f"{stopped.message}\nnext: {stopped.hint}"), 1)
    except FullconvError as error:
        return _failed(error)
    except CycloptsError as error:
        return _failed(FullconvError(_sentence(error), _usage(_own_words(argv), error)))
    except KeyboardInterrupt:
        return _end(translate("stopped."), 1)
    except BrokenPipeError:  # nobody reads how it goes: `fullconv demo 2>&1 | head`
        detach_stream(sys.stdout)
        detach_stream(sys.stderr)
        return 1
    except SystemExit as ended:  # rich's, where nobody reads --help or --version
        if isinstance(ended.__context__, BrokenPipeError):
            return 0
        raise
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision", "timm", "lightning", "torchmetrics"):
            return _bug()
        return _failed(
            FullconvError(
                f"this needs {error.name}, which is not installed; without it, exported files are "
                "predicted with and served.",
                "pip install torch torchvision timm lightning torchmetrics",
            )
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OUTSIDE:
            where = f": {error.filename}" if error.filename else ""
            what = f"{error.strerror}{where}"
            return _failed(FullconvError(what, "df -h   # or --out another folder"))
        return _bug()


def _bug() -> int:
    head = f"This is a bug of fullconv {__version__}; please report these lines:"
    return _end(f"{translate(head)}\n{traceback.format_exc().rstrip()}", 2)


def _failed(error: FullconvError) -> int:
    return _end(format_error(error.message, error.hint), 1)


def _own_words(argv: Sequence[str]) -> list[str]:
    """A command line without what stands before the command: --quiet, --lang zh."""
    skipped = {at + 1 for at, word in enumerate(argv) if word == "--lang"}
    return [
        word
        for at, word in enumerate(argv)
        if at not in skipped and word.partition("=")[0] not in ("--quiet", "--lang")
    ]


def _usage(argv: list[str], error: CycloptsError) -> str:
    """The words that a command wants where one is missing, else where they stand."""
    if not argv or argv[0] not in app:
        return "fullconv --help"
    wanted = signature(app[argv[0]].default_command).parameters.values()  # type: ignore[arg-type]
    places = (Place.POSITIONAL_OR_KEYWORD, Place.VAR_POSITIONAL)
    named = [one.name.upper() for one in wanted if one.kind in places]
    if _missing_word(error):
        return " ".join(["fullconv", argv[0], *named])
    return shell_command("fullconv", argv[0], "--help")


def _missing_word(error: CycloptsError) -> str:
    """DATA, of an argument that needs no option before it; else ""."""
    if not isinstance(error, MissingArgumentError) or error.argument is None:
        return ""
    if error.keyword or error.argument.tokens or not error.argument.field_info.is_positional:
        return ""
    return error.argument.name.removeprefix("--").upper()


def _sentence(error: CycloptsError) -> str:
    if word := _missing_word(error):
        return f"{word} is missing."
    if isinstance(error, UnusedCliTokensError):
        return f"too many words: {' '.join(error.unused_tokens or [])}."
    error.verbose = False
    return str(error)


def _end(text: str, code: int) -> int:
    """The last message, whether or not somebody reads it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        detach_stream(sys.stderr)
    return code


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
            shell_command("ls", "-ld", Path(error.filename or ".").parent),
        ) from error
    facts = {"shell": shell, "script": str(path)}
    ahead = f"exec {shell}   # or open a new terminal"
    print_result(facts, f"completion for {shell}: {path}", json, ahead=ahead)


def _shell() -> Shell:
    named = Path(os.environ.get("SHELL", "")).name
    for shell in get_args(Shell):
        if shell == named:
            return shell
    said = f"SHELL is {named!r}" if named else "SHELL is not set"
    raise FullconvError(
        f"{said}; words are completed in {', '.join(get_args(Shell))}.", "fullconv completion bash"
    )
