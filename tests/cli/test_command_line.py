"""Help, imports, options of train, exit codes and streams; test_golden.py has the messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, TrainRecorder

import fullconv
from fullconv.cli.app import app
from fullconv.cli.help import TRAIN_SECTIONS
from fullconv.cli.main import BUG, FIXABLE, INTERRUPTED, USAGE, main
from fullconv.cli.train import typed_options
from fullconv.core.config_file import to_toml
from fullconv.core.errors import StoppedError
from fullconv.core.foreign_words import COMMANDS, OPTIONS
from fullconv.core.settings import Settings

HEAVY = ("torch", "torchvision", "timm", "lightning", "numpy", "PIL", "matplotlib")
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
NAMES = sorted(name for name in app if not name.startswith("-"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", ["80", "120"])
def test_help_of_a_command(
    cli: Cli, name: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    code, out, err = cli(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: fullconv {name} ")
    assert "--quiet" not in out  # only in `fullconv --help`
    assert not any(noise in out for noise in ("[default: False]", "STR", '""', "--empty"))
    assert all(len(line) <= int(width) for line in out.splitlines())
    assert ("--json" in out) == (name != "demo")


def test_help_of_train_has_every_option_in_one_section(cli: Cli) -> None:
    listed = [name for names in TRAIN_SECTIONS.values() for name in names.split()]
    settings = {name.replace("_", "-") for name in Settings.__dataclass_fields__}
    assert sorted(listed) == sorted({*settings, "config", "resume", "out", "json"})
    out = cli("train", "--help")[1]
    assert out.startswith("Usage: fullconv train [DATA] [OPTIONS]\n")
    positions = [out.index(f"\n{title}\n") for title in TRAIN_SECTIONS]
    assert positions == sorted(positions)
    assert all(f"--{name}" in out or f"--[no-]{name}" in out for name in listed)


def test_words_of_other_tools_are_not_ours() -> None:
    assert not set(COMMANDS) & set(NAMES)
    names = {argument.name for name in NAMES for argument in _arguments(name)}
    for forms in OPTIONS.values():
        for form in forms:
            option = form.split()[0]
            known = option in names or option in ("DATA", "MODEL", "IMAGES", "--quiet", "--lang")
            assert known, form


def _arguments(name: str) -> Any:
    return app[name].assemble_argument_collection(parse_docstring=False)


def _renamed_options() -> Iterator[tuple[str, str, str]]:
    """Yield (command, old option, new option) of the table in CHANGELOG.md."""
    for line in CHANGELOG.read_text(encoding="utf-8").splitlines():
        cells = line.strip("|").split("|")
        if len(cells) != 3 or "--" not in cells[2]:
            continue
        old, new = (re.findall(r"--[a-z-]{2,}", cell) for cell in cells[1:])
        commands = re.findall("`([a-z]+)`", cells[0] + cells[2])
        for before, now in zip(old, new, strict=True):
            for command in commands or _commands_with(now):
                yield command, before, now


def _commands_with(option: str) -> list[str]:
    return [name for name in NAMES if any(option in a.names for a in _arguments(name))]


@pytest.mark.parametrize(("command", "old", "new"), list(_renamed_options()))
def test_old_options_are_refused_with_the_new_ones(
    cli: Cli, command: str, old: str, new: str
) -> None:
    code, _, err = cli(command, "A", "B", old, "1")
    assert code == USAGE
    assert f"error: {command} has no option {old}; use {new}.\n" in err
    assert re.search(rf"\n  try: fullconv {command} .*{new}( 1)?\n", err)


@pytest.mark.parametrize(
    "lines",
    [
        "import fullconv; assert fullconv.Grid is fullconv.geometry.Grid",
        "from fullconv.cli.main import run; assert run(['--help']) == 0",
        "from fullconv.cli.main import run; assert run(['train', '--help']) == 0",
        "from fullconv.cli.main import run; assert run(['train']) == 2",
        "from fullconv.cli.main import run; assert run(['train', 'gone']) == 1",
        "from fullconv.cli.main import run; assert run(['predict', 'gone', 'x']) == 1",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(lines: str) -> None:
    code = f"import sys; {lines}; print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.endswith("[]\n")


def test_public_names_load_on_first_use() -> None:
    assert set(fullconv.__all__) <= {*dir(fullconv)}
    for name in fullconv.__all__:
        if name not in ("train", "__version__"):
            assert getattr(fullconv, name).__name__.rpartition(".")[2].lower() == name.lower()
    with pytest.raises(AttributeError, match="module 'fullconv' has no attribute 'trian'"):
        fullconv.trian  # noqa: B018


def test_training_prints_its_result_and_the_next_command(
    cli: Cli, training: TrainRecorder, scenes: Path
) -> None:
    words = ["--stride=16", "--no-flip", "--scale", 1, 1.5, "--label-smoothing", 0]
    code, out, _ = cli("train", scenes, *words)
    assert (code, training.data) == (0, scenes)
    expected = {"stride": 16, "flip": False, "scale": (1.0, 1.5), "label_smoothing": 0.0}
    assert training.options == {**expected, "out": None, "resume": None}
    assert out.splitlines() == [
        "mean IoU 50.0% on val (4 images), epoch 3",
        "model: my run/model",
        "report: my run/report.html",
        f"next: fullconv evaluate 'my run' {scenes} --split test",
    ]
    training.splits = ("train", "val")
    training.metrics["per_class_iou"] = {"ground": 0.98, "object": 0.0}
    training.metrics["confusion"] = [[98, 0], [2, 0]]
    lines = cli("train", "--resume", "run")[1].splitlines()
    assert lines[1] == "never predicted: object"
    assert lines[-1] == "next: fullconv predict 'my run' IMAGES"  # no split is left to evaluate
    facts = json.loads(cli("train", scenes, "--json")[1])
    assert (facts["run"], facts["model"], facts["mean_iou"]) == ("my run", "my run/model", 0.5)


def test_options_override_a_configuration(
    cli: Cli, training: TrainRecorder, scenes: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    train = Settings(epochs=7, flip=False, crop=(64, 96)).to_dict()
    config.write_text(to_toml({"data": {"root": str(scenes)}, "train": train}))
    # --epochs 50 is the default, but it was typed.
    assert cli("train", "--config", config, "--stride", "16", "--epochs", "50")[0] == 0
    assert training.data == scenes
    expected = {**train, "crop": [64, 96], "stride": 16, "epochs": 50}
    assert training.options == {**expected, "out": None, "resume": None}
    config.write_text("[train]\nepochs = 3\n")
    assert cli("train", "--config", config)[0] == USAGE  # not the current folder
    config.write_text("[train]\nrate = 0.1\nbatch = 4\n")
    code, _, err = cli("train", scenes, "--config", config)
    assert (code, "rate is now lr, batch is now batch_size" in err) == (FIXABLE, True)
    assert err.endswith("try: lr = 0.1\nbatch_size = 4\n")


def test_other_processes_of_a_run_print_nothing(
    cli: Cli, training: TrainRecorder, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli("train", scenes)[:2] == (0, "")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], set()),
        (["DATA", "--out", "x", "--json", "--resume", "y"], set()),
        (["--epochs", "3"], {"epochs"}),
        (["--stride=16"], {"stride"}),
        (["--no-flip", "--pretrained"], {"flip", "pretrained"}),
        (["--backbone-lr", "1", "--weight_decay=2"], {"backbone_lr", "weight_decay"}),
        (["epochs", "-e", "--epoch", "--no-epoch"], set()),
    ],
)
def test_typed_options(words: list[str], names: set[str]) -> None:
    assert typed_options(["train", *words]) == names


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (RuntimeError("the sky fell"), BUG, "error: this is a bug in Fullconv"),
        (KeyboardInterrupt(), INTERRUPTED, "Stopped.\n"),
        (StoppedError("stopped.", "fullconv x"), INTERRUPTED, "stopped.\nnext: fullconv x\n"),
        (OSError(28, "No space left on device", "/disk"), FIXABLE, "try: df -h"),
        (ModuleNotFoundError("no", name="timm"), FIXABLE, "error: timm is not installed"),
        (ModuleNotFoundError("no", name="PIL"), FIXABLE, "error: pillow is not installed, which"),
        (ModuleNotFoundError("no", name="tomli_w"), FIXABLE, "try: pip install tomli-w\n"),
        (ModuleNotFoundError("no", name="skimage"), FIXABLE, "try: pip install scikit-image\n"),
        (ModuleNotFoundError("no", name="packaging"), FIXABLE, "try: pip install packaging\n"),
        (ModuleNotFoundError("no", name="av"), BUG, "ModuleNotFoundError: no"),
    ],
)
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_exceptions_become_exit_codes(
    cli: Cli,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    message: str,
    quiet: list[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("fullconv.data.check.check.check", fail)
    got, out, err = cli("check", scenes, *quiet)
    assert (got, out) == (code, "")
    assert message in err
    assert ("Traceback" in err) == (code == BUG)


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fullconv", "--version"])
    for argv, code in ((["bogus"], USAGE), (None, 0)):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        *(("check DATA", 0), ("check DATA --json", 0), ("--help", 0), ("train --help", 0)),
        *(("--version", 0), ("check gone", 1), ("check", 2), ("train", 2)),
    ],
)
def test_a_reader_that_goes_away_changes_no_exit_code(scenes: Path, typed: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(scenes) if word == "DATA" else word for word in typed.split()]
    errors = writer if code else subprocess.PIPE
    argv = [sys.executable, "-m", "fullconv", *words]
    done = subprocess.run(argv, stdout=writer, stderr=errors, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr or b"") == (code, b"")
