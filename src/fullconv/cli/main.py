"""The command line: parse, call, print, and exit codes. The only module that reads argv.

Exit codes: 0 done, 1 the user can fix it, 2 wrong usage, 70 a bug in Fullconv, 130 after Ctrl-C
(128 + n for other signals). Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

from cyclopts import CycloptsError, Group, Parameter

import fullconv.cli.data
import fullconv.cli.demo
import fullconv.cli.doctor
import fullconv.cli.evaluate
import fullconv.cli.export
import fullconv.cli.paper
import fullconv.cli.predict
import fullconv.cli.serve
import fullconv.cli.train  # each of these joins its commands to the application
from fullconv.cli.app import (
    ANALYSIS,
    Flag,
    Json,
    app,
    detach_stream,
    print_result,
    silence_native_stderr,
    silence_stderr,
)
from fullconv.cli.help import GLOBAL_OPTIONS, HelpFormatter
from fullconv.cli.usage import UsageError, key_value_error, usage_error
from fullconv.core.errors import DownloadError, FullconvError, StoppedError
from fullconv.core.hardware import use_huge_pages
from fullconv.core.i18n import format_error, join, msg, requested_language, set_language, translate
from fullconv.core.packages import __version__, required_package
from fullconv.core.progress import hide_stage, print_text, show_stages
from fullconv.core.text import shell_command, truncated_list

FIXABLE, USAGE, BUG, INTERRUPTED = 1, 2, 70, 128 + signal.SIGINT
# What the operating system refuses: no space, no permission, a read-only disk.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_NETWORK_PACKAGES = ("torch", "torchvision", "timm", "lightning", "torchmetrics")
Shell = Literal["bash", "zsh", "fish"]

app.help_formatter = HelpFormatter()
app.meta.group_parameters = Group(GLOBAL_OPTIONS)


@app.meta.default
def launch(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Flag = False,
    lang: Literal["en", "zh"] | None = None,
) -> int:
    """Run the command that the words name, and return the exit code.

    Args:
        words: The command and its arguments.
        quiet: Hide progress and notes; print only results and errors.
        lang: Language of messages. Default: set by LC_ALL, LC_MESSAGES or LANG.
    """
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    name = command.__name__
    if name == "train":
        bound.arguments["typed"] = fullconv.cli.train.typed_options(words)
    if name in ("train", "demo", "evaluate"):
        use_huge_pages()
    # The data commands check files themselves: what C libraries say about them is noise.
    reads_data = command.__module__ == fullconv.cli.data.__name__
    with (
        silence_stderr() if quiet else nullcontext(),
        silence_native_stderr() if reads_data else nullcontext(),
        show_stages(lines=name in ("train", "demo", "export")),
    ):
        result = command(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else 0


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run a command, and return the exit code."""
    set_language(requested_language(argv))  # before anything can go wrong
    try:
        if problem := key_value_error(_own_words(argv)):
            raise problem
        # The parser takes any word with a leading dash for an option, even a single dash.
        words = ["@-" if word == "-" else word for word in argv]
        command, bound, _ = app.meta.parse_args(words, exit_on_error=False, print_error=False)
        result = command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _fail(usage_error(error, _own_words(argv)), USAGE)
    except UsageError as error:
        return _fail(error, USAGE)
    except DownloadError as error:
        return _fail(error.typed(shell_command("fullconv", *argv)))
    except StoppedError as stopped:
        following = msg("next: {command}", command=stopped.hint)
        return _end(translate(join([stopped.message, following])), INTERRUPTED)
    except FullconvError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _end(translate(msg("Stopped.")), INTERRUPTED)
    except BrokenPipeError:  # the reader went away: `fullconv demo 2>&1 | head`
        detach_stream(sys.stdout)
        detach_stream(sys.stderr)
        return FIXABLE
    except SystemExit as ended:  # rich's, if the reader of --help goes away
        if isinstance(ended.__context__, BrokenPipeError):
            return 0
        raise
    except ModuleNotFoundError as error:
        missing = _missing_package(error.name or "")
        return _fail(missing) if missing else _report_bug()
    except Exception as error:
        if not isinstance(error, OSError) or error.errno not in _REFUSED:
            return _report_bug()
        message = msg("{reason}: {file}", reason=error.strerror, file=error.filename or "-")
        return _fail(FullconvError(message, msg("df -h   # or --out another folder")))


def _missing_package(module: str) -> FullconvError | None:
    """Return the error of a module that Fullconv requires and that is not installed."""
    if module in _NETWORK_PACKAGES:
        message = msg(
            "{name} is not installed, which this command needs. Without it, Fullconv can only "
            "predict with exported files and serve them.",
            name=module,
        )
        return FullconvError(message, shell_command("pip", "install", *_NETWORK_PACKAGES))
    package = required_package(module)
    message = msg("{name} is not installed, which Fullconv needs.", name=package)
    return FullconvError(message, shell_command("pip", "install", package)) if package else None


def _report_bug() -> int:
    version = __version__
    head = msg("this is a bug in Fullconv {version}; please report these lines:", version=version)
    return _end(f"{format_error(head)}\n{traceback.format_exc().rstrip()}", BUG)


def _fail(error: FullconvError, code: int = FIXABLE) -> int:
    return _end(format_error(error.message, error.hint), code)


def _end(text: str, code: int) -> int:
    """Print the last message, whether or not it is read."""
    hide_stage()
    try:
        print_text(text, sys.stderr)
    except BrokenPipeError:
        detach_stream(sys.stderr)
    return code


def _own_words(argv: Sequence[str]) -> list[str]:
    """Return the words of a command without the options of every command: --quiet, --lang zh."""
    values = {index + 1 for index, word in enumerate(argv) if word == "--lang"}
    return [
        word
        for index, word in enumerate(argv)
        if index not in values and word.partition("=")[0] not in ("--quiet", "--lang")
    ]


@app.command(group=ANALYSIS, sort_key=33)
def completion(shell: Shell | None = None, /, *, json: Json = False) -> None:
    """Install Tab completion of commands and options in your shell.

    The script goes to the shell's own folder; a line that reads it is added to ~/.bashrc or
    ~/.zshrc.

    Args:
        shell: The shell. Default: the one that $SHELL names.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in get_args(Shell):
        shells = truncated_list(get_args(Shell))
        message = msg("SHELL is {name!r}; completion supports {shells}.", name=name, shells=shells)
        raise FullconvError(message, "fullconv completion bash")
    shell = cast(Shell, name)
    try:
        path = app.install_completion(shell=shell)
    except OSError as error:
        values = {"shell": shell, "file": error.filename, "reason": error.strerror or str(error)}
        message = msg(
            "the completion script for {shell} could not be written to {file}: {reason}.", **values
        )
        folder = Path(error.filename or ".").parent
        raise FullconvError(message, shell_command("ls", "-ld", folder)) from error
    text = msg("completion for {shell}: {path}", shell=shell, path=path)
    ahead = msg("exec {shell}   # or open a new terminal", shell=shell)
    print_result({"shell": shell, "script": str(path)}, text, json, ahead=ahead)
