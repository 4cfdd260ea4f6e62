"""Errors of a command line, in whole sentences, with the command that was meant.

Words of other tools are answered with ours, by the table of meanings in core/foreign_words.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from fullconv.cli.app import app
from fullconv.cli.help import usage_line
from fullconv.core.errors import FullconvError
from fullconv.core.foreign_words import COMMANDS, NEEDLESS, OPTIONS
from fullconv.core.i18n import Message, join, msg
from fullconv.core.settings import RENAMED, Settings, rename_option
from fullconv.core.text import nearest, shell_command, truncated_list

_KEY_VALUE = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_MODEL_FILES = (".onnx", ".xml", ".safetensors", ".pt2", ".caffemodel", ".pth", ".pt")
_KINDS = {int: msg("a whole number"), float: msg("a number"), bool: msg("true or false")}
_CUTOFF = 0.8  # of the similarity of names, if no table knows a word


class UsageError(FullconvError):
    """The command line is wrong (exit code 2), rather than what it names (exit code 1)."""


def usage_error(error: CycloptsError, argv: Sequence[str]) -> UsageError:
    """Return an error that explains why cyclopts rejected the command line.

    Args:
        argv: the arguments without --quiet and --lang.
    """
    argv = list(argv)
    if isinstance(error, UnknownCommandError) or (argv and argv[0] not in app):
        return _unknown_command(argv)
    command = argv[0] if argv else ""
    help_line = shell_command("fullconv", *argv[:1], "--help")
    argument, token = error.argument, getattr(error, "token", None)

    if isinstance(error, UnknownOptionError):
        typed = (error.token.keyword or error.token.value).partition("=")[0]
        return _unknown_option(command, typed, argv)
    if isinstance(error, UnusedCliTokensError):
        unused = (error.unused_tokens or [""])[0]
        return _with_usage(command, msg("unexpected argument {word!r}.", word=unused))
    if isinstance(error, MissingArgumentError) and argument is not None:
        if argument.field_info.is_positional and not (error.keyword or argument.tokens):
            return missing_argument(command, argument.name.removeprefix("--").upper())
        option, count = error.keyword or argument.name, argument.token_count()[0]
        message = msg("{option} needs a value.", option=option)
        if count > 1:
            message = msg("{option} needs {count} values.", option=option, count=count)
        return UsageError(message, help_line)
    if isinstance(error, RepeatArgumentError):
        message = msg("{option} is given more than once.", option=error.token.keyword)
        return UsageError(message, help_line)
    if isinstance(error, CoercionError) and argument is not None and token is not None:
        option = token.keyword or argument.name.removeprefix("--").upper()
        expected: Message = _KINDS.get(error.target_type or str, msg("another value"))
        line = help_line
        if choices := [choice for choice in get_args(error.target_type) if choice]:
            expected = msg("one of {choices}", choices=truncated_list(choices))
            close = nearest(token.value, map(str, choices), _CUTOFF)
            line = shell_command(option, close or choices[0])
        values = {"option": option, "value": token.value, "expected": expected}
        return UsageError(msg("{option} is {value!r}; it must be {expected}.", **values), line)
    error.verbose = False
    text = str(error).strip()
    return UsageError(text[:1].lower() + text[1:], help_line)


def missing_argument(command: str, name: str) -> UsageError:
    """Return the error of a command without an argument that it needs."""
    return _with_usage(command, msg("missing argument {name}.", name=name))


def _with_usage(command: str, message: Message) -> UsageError:
    usage = msg("  usage: {line}", line=usage_line(command))
    return UsageError(join([message, usage]))


def _unknown_command(argv: list[str]) -> UsageError:
    typed = next((word for word in argv if not word.startswith("-")), argv[0] if argv else "")
    rest = argv[argv.index(typed) + 1 :] if typed in argv else []
    ours = COMMANDS.get(typed.lower(), "")
    message = msg("there is no command {typed!r}.", typed=typed)
    if ours.startswith("-"):  # `fullconv help train`, `fullconv version`
        topic = rest[:1] if ours == "--help" and rest and rest[0] in app else []
        return UsageError(message, shell_command("fullconv", *topic, ours))
    if ours:
        message = msg("there is no command {typed!r}; it is {ours!r} here.", typed=typed, ours=ours)
        return UsageError(message, shell_command("fullconv", ours, *_our_options(ours, rest)))
    if close := nearest(typed, [name for name in app if not name.startswith("-")], _CUTOFF):
        values = {"typed": typed, "name": close}
        message = msg("there is no command {typed!r}; did you mean {name!r}?", **values)
        return UsageError(message, shell_command("fullconv", close, *rest))
    return UsageError(message, "fullconv --help")


def _unknown_option(command: str, typed: str, argv: list[str]) -> UsageError:
    word, values = _plain_name(typed), {"command": command, "typed": typed}
    line = shell_command("fullconv", command, *_our_options(command, argv[1:]))
    if ours := _ours(command, word):
        values["name"] = ours.split()[0]
        if ours.startswith("--"):
            message = msg("{command} has no option {typed}; use {name}.", **values)
        else:
            message = msg(
                "{command} has no option {typed}; {name} is typed without an option.", **values
            )
        return UsageError(message, line)
    if word in NEEDLESS:
        reason = NEEDLESS[word]
        message = msg("{command} has no option {typed}: {reason}.", reason=reason, **values)
        return UsageError(message, line)
    message = msg("{command} has no option {typed}.", **values)
    if close := nearest(f"--{word}", _option_names(command), _CUTOFF):
        message = msg("{command} has no option {typed}; did you mean {name}?", name=close, **values)
    return UsageError(message, shell_command("fullconv", command, "--help"))


def _plain_name(typed: str) -> str:
    return typed.lstrip("-").lower().replace("_", "-")


def _option_names(command: str) -> list[str]:
    collection = app[command].assemble_argument_collection(parse_docstring=False)
    return [name for argument in collection if argument.parse for name in argument.names]


def _arguments(command: str) -> list[str]:
    return re.findall(r"[A-Z]{2,}", usage_line(command).replace("OPTIONS", ""))


def _ours(command: str, word: str) -> str:
    """Return our form of another or an earlier name, like those in `OPTIONS`; "" without one."""
    forms = OPTIONS.get(word, ())
    if renamed := RENAMED.get(word.replace("-", "_")):
        flag = f"--{renamed.replace('_', '-')}"
        form = flag if isinstance(getattr(Settings, renamed), bool) else f"{flag} {{value}}"
        forms = (form, *forms)
    known = {*_option_names(command), *_arguments(command), "--quiet", "--lang"}
    return next((form for form in forms if form.split()[0] in known), "")


def _our_options(command: str, words: Sequence[str]) -> list[str]:
    """Return the words after a command with other tools' options replaced by ours."""
    names = _option_names(command)
    positional: dict[str, str] = {}
    plain: list[str] = []
    replaced: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        typed, equals, value = word.partition("=")
        name = _plain_name(typed)
        if not word.startswith("--") or f"--{name}" in names:
            plain.append(word)
            continue
        form = _ours(command, name)
        takes_value = "{value}" in form or (bool(form) and not form.startswith("--"))
        drops_value = name in NEEDLESS and not form
        if not equals and (takes_value or drops_value) and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        value = rename_option(name.replace("-", "_"), value)[1]
        if form.startswith("--"):
            replaced += [part.replace("{value}", value or "VALUE") for part in form.split()]
        elif form:
            positional[form] = value
        elif not drops_value:
            plain.append(word)
    front = [positional[name] for name in _arguments(command) if name in positional]
    return [*front, *plain, *replaced]


def key_value_error(argv: Sequence[str]) -> UsageError | None:
    """Return the translation of Ultralytics' name=value words, if any of them names an option.

    A file may be named like such a word: `frame=7.png`.

    >>> key_value_error(["train", "data=street", "epochs=3"]).hint
    'fullconv train street --epochs 3'
    """
    pairs = [word for word in argv if _KEY_VALUE.fullmatch(word) and not Path(word).exists()]
    if not pairs or any(word.startswith("-") for word in argv):
        return None
    ours = [
        COMMANDS.get(word, word) for word in argv if word not in (*pairs, "segment", "semantic")
    ]
    usual = "predict" if any(pair.startswith("source=") for pair in pairs) else "train"
    command = next((word for word in ours if word in app and not word.startswith("-")), usual)
    if not any(_is_known(command, pair.partition("=")[0]) for pair in pairs):
        return None
    options = [word for word in ours if word != command]
    for pair in pairs:
        name, _, value = pair.partition("=")
        flag = f"--{name.replace('_', '-')}"
        if value.lower() in ("true", "false") and flag in _option_names(command):
            options.append(flag if value.lower() == "true" else flag.replace("--", "--no-"))
        elif value.lower() != "false":
            options += [flag] if value.lower() == "true" else [flag, value]
    line = shell_command("fullconv", command, *_our_options(command, options))
    return UsageError(msg("options are typed as --name value, not as name=value."), line)


def _is_known(command: str, name: str) -> bool:
    """Return whether a name is an option of a command, or has a meaning in another tool."""
    word = _plain_name(name)
    known = word in OPTIONS or word in NEEDLESS or word.replace("-", "_") in RENAMED
    return known or f"--{word}" in _option_names(command)


def looks_like_model(path: str | Path) -> bool:
    """Return whether a path is surely a model or a run, without importing torch."""
    path = Path(path)
    if path.is_dir():
        weights = ("model.safetensors", "model/model.safetensors", "model.onnx", "model.xml")
        return any((path / name).is_file() for name in weights)
    return path.suffix.lower() in _MODEL_FILES and path.is_file()


def check_model(command: str, model: Path, *others: Path) -> None:
    """Refuse a model that does not exist, or whose place another argument has taken."""
    if looks_like_model(model):
        return
    last = others[-1] if others else model
    if model.exists() and looks_like_model(last):
        message = msg(
            "{model} is no model, but {last} is one: the model comes first.", model=model, last=last
        )
        swapped = shell_command("fullconv", command, last, model, *others[:-1])
        raise UsageError(message, swapped)
    if model.exists() or ":" in str(model) or str(model).endswith(_MODEL_FILES):
        return
    if runs := sorted(path for path in Path("runs").glob("*") if looks_like_model(path)):
        newest = truncated_list([str(path) for path in reversed(runs)], 5)
        message = msg(
            "there is no model at {model}; there are the runs {runs}.", model=model, runs=newest
        )
        raise FullconvError(message, shell_command("fullconv", command, runs[-1], *others))
    message = msg("there is no model at {model}.", model=model)
    raise FullconvError(message, msg("fullconv train DATA   # or: fullconv demo"))


def check_dataset(command: str, data: Path) -> None:
    """Refuse a model in the place of a dataset, and a folder that does not exist."""
    if looks_like_model(data):
        line = shell_command("fullconv", "inspect", data)
        if command == "train":
            line = shell_command("fullconv", "train", "DATA", "--init-from", data)
        raise UsageError(msg("{data} is a model, not a dataset.", data=data), line)
    from fullconv.data.download.download import data_root
    from fullconv.data.download.registry import ELSEWHERE, SOURCES

    published = [*SOURCES, *ELSEWHERE]
    name = str(data).casefold().replace("_", "-")
    if data.exists() or name in published or data.parent == data_root():
        return
    folders = [str(path) for path in Path().glob("*/") if path.is_dir()]
    close = nearest(name, [*published, *folders], 0.7)
    line = shell_command("fullconv", command, close) if close else "fullconv demo"
    raise FullconvError(msg("there is no dataset at {data}.", data=data), line)
