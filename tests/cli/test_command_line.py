"""The command line as one table: what is typed, the exit code, and what is printed where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, TrainRecorder, damage_dataset

import fullconv
from fullconv.cli.app import app
from fullconv.cli.help import TRAIN_SECTIONS
from fullconv.cli.main import BUG, FIXABLE, INTERRUPTED, USAGE, main, run
from fullconv.cli.train import typed_options
from fullconv.core.config_file import to_toml
from fullconv.core.errors import StoppedError
from fullconv.core.foreign_words import COMMANDS, OPTIONS
from fullconv.core.settings import Settings

HEAVY = ("torch", "torchvision", "timm", "lightning", "numpy", "PIL", "matplotlib")
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
NAMES = sorted(name for name in app if not name.startswith("-"))


@dataclass
class Case:
    """A command line with placeholders, and fragments of its output; stderr is empty without any.

    The placeholders DATA, MODEL, IMAGE, IMAGES, EMPTY, FILE, OUT, FAULTY are paths.
    """

    argv: str
    code: int = 0
    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()


def usage(argv: str, message: str, hint: str = "") -> Case:
    return Case(argv, USAGE, (), (f"error: {message}", hint))


def fixable(argv: str, message: str, hint: str) -> Case:
    return Case(argv, FIXABLE, (), (f"error: {message}", f"\n  try: {hint}"))


CASES = [
    Case("--version", 0, (f"{fullconv.__version__}\n",)),
    Case("--help", 0, ("Usage: fullconv COMMAND [OPTIONS]\n", *(f"  {n} " for n in NAMES))),
    Case("", 0, ("Usage: fullconv COMMAND [OPTIONS]\n", "--quiet", "--lang NAME")),
    # datasets
    Case("check DATA", 0, ("images: train 3, val 2, test 2", "next: fullconv train DATA --stride")),
    Case("check DATA --json", 0, ('"recommended_stride": 4',)),
    Case("check DATA --layout folders", 0, ("layout folders",)),
    Case("check FAULTY", 1, ("ERROR ", "street_0000", "fix: ")),
    Case("check FAULTY --json", 1, ('"errors": 1', '"recommended_stride": null')),
    Case("check DATA --preview OUT.png", 0, ("recommended: ",), ("preview: OUT.png\n",)),
    Case(
        "check DATA --preview OUT.jpg", 1, ("recommended: --stride",), ("is written as PNG",)
    ),
    Case("ceiling DATA", 0, ("DATA, split val, 2 images", "(measured on 2 masks of val)\nnext: ")),
    Case("ceiling DATA --json --split train", 0, ('"split": "train"',)),
    Case("inspect DATA", 0, ("images: train 3", "\nnext: fullconv check DATA\n")),
    Case("inspect DATA --json", 0, ('"train": 3',)),
    Case("inspect MODEL", 0, ("classes: sky", "\nnext: fullconv predict MODEL IMAGES\n")),
    Case("inspect MODEL --json", 0, ('"engine"', '"tiles"')),
    Case("inspect test_resnet", 0, ("next: fullconv train DATA --backbone test_resnet\n",)),
    # models
    Case(
        "evaluate MODEL DATA --split val",
        0,
        (
            "MODEL on DATA, split val, 2 images, original size\n\nmean IoU ",
            "\nnext: fullconv predict MODEL IMAGES\n",
        ),
    ),
    Case("evaluate MODEL DATA --json", 0, ('"frequency_weighted_iou"', '"split": "test"')),
    Case("evaluate MODEL DATA --device cpu --report none", 0, ("mean IoU ",)),
    Case(
        "predict MODEL IMAGES --out OUT",
        0,
        ("IMAGE: ", "%", "2 of 2 images -> OUT\nnext: fullconv serve MODEL\n"),
    ),
    Case("predict MODEL IMAGE --out OUT --json --device cpu", 0, ("_mask.png", '"failed": []')),
    Case("predict MODEL IMAGES --out OUT --quiet", 0, ("2 of 2 images -> OUT\n",)),
    Case(
        "probe MODEL DATA --foreground car,person",
        0,
        ("split val, 2 images", "next: fullconv predict MODEL IMAGES\n"),
    ),
    # wrong usage
    usage("bogus", "there is no command 'bogus'.", "\n  try: fullconv --help\n"),
    usage("--bogus", "there is no command '--bogus'."),
    usage(
        "chekc DATA",
        "there is no command 'chekc'; did you mean 'check'?",
        "fullconv check DATA",
    ),
    usage("check", "missing argument DATA.", "\n  usage: fullconv check DATA [OPTIONS]\n"),
    usage("train", "missing argument DATA.", "usage: fullconv train [DATA] [OPTIONS]\n"),
    usage(
        "evaluate m",
        "missing argument DATA.",
        "usage: fullconv evaluate MODEL DATA [OPTIONS]\n",
    ),
    usage(
        "predict",
        "missing argument MODEL.",
        "usage: fullconv predict MODEL IMAGES... [OPTIONS]",
    ),
    usage("predict MODEL", "missing argument IMAGES.", "predict MODEL IMAGES... [OPTIONS]\n"),
    usage("compare", "missing argument RUNS.", "usage: fullconv compare RUNS... [OPTIONS]\n"),
    usage("check DATA --fix", "--fix needs a value.", "fullconv check --help"),
    usage("check DATA more words", "unexpected argument 'more'.", "usage: fullconv check DATA"),
    usage("check DATA --jsn", "check has no option --jsn; did you mean --json?", "check --help"),
    usage("check DATA --no-quiet", "check has no option --no-quiet."),
    usage("check DATA --json=maybe", "--json is 'maybe'; it must be true or false."),
    usage("evaluate m DATA --split all", "--split is 'all'; it must be one of train, val, test."),
    usage("train DATA --epochs x", "--epochs is 'x'; it must be a whole number.", "train --help"),
    usage("train DATA --crop 3", "--crop needs 2 values.", "fullconv train --help"),
    usage("train DATA --lr 1 --lr 2", "--lr is given more than once."),
    usage("train DATA --colour 1", "train has no option --colour.", "fullconv train --help"),
    usage("--lang", "--lang needs a value."),
    # what is named is wrong
    fixable("train DATA --stride 7", "stride is 7; it must be one of 4, 8, 16, 32.", "--stride 8"),
    fixable("train DATA --lr nan", "lr is nan; it must be a number.", "--lr 0.002"),
    fixable("train DATA --epochs 0", "epochs is 0; it must be 1 or more.", "--epochs 50"),
    fixable("train --config gone", "there is no configuration at gone.", "fullconv train DATA"),
    fixable("train FAULTY --backbone resnet1", "timm has no network", "--backbone resnet18"),
    fixable("train gone", "there is no dataset at gone.", "fullconv demo"),
    fixable("train camvd", "there is no dataset at camvd.", "fullconv train camvid"),
    fixable("evaluate gone DATA", "there is no model at gone.", "fullconv train DATA"),
    fixable("evaluate MODEL gone", "there is no dataset at gone.", "fullconv demo"),
    fixable("predict gone IMAGE", "there is no model at gone.", "fullconv train DATA"),
    fixable("predict MODEL IMAGE --save heat", "there is no output 'heat'; --save", "--save mask,"),
    fixable(
        "predict MODEL IMAGE --save ,",
        "there is no output ','; --save",
        "--save mask,overlay",
    ),
    fixable("evaluate MODEL FAULTY", "", "fullconv check FAULTY"),
    fixable("ceiling FAULTY --split test", "", "fullconv check FAULTY"),
    fixable("check EMPTY", "EMPTY", ""),
    fixable("predict MODEL gone.jpg --out OUT", "", "fullconv predict MODEL"),
    fixable("predict MODEL EMPTY --out OUT", "", "fullconv predict MODEL"),
    fixable("predict MODEL IMAGE --out FILE", "", "--out ANOTHER"),
    fixable("predict MODEL IMAGE --tile 0 --out OUT", "", "--tile"),
    fixable("evaluate EMPTY DATA", "", "fullconv train"),
    fixable("export MODEL --format web --with-labels", "the web page needs logits", "--format web"),
    fixable("export MODEL --ort DATA", "--ort is for --format web, not for onnx.", "--format web"),
    fixable("inspect gone/away", "there is no gone/away. Expected a back", "fullconv inspect res"),
    fixable("inspect FILE", "FILE is a file of another kind.", "fullconv inspect resnet18"),
    fixable("heatmap test_resnet IMAGE --top 0", "--top is 0; it must be 1", "--top 5"),
    fixable("serve MODEL --queue 0", "--queue is 0; it must be 1 or more.", "--queue 32"),
    fixable("serve MODEL --port 70000", "--port is 70000; it must be from 0", "--port 8000"),
    # words of other tools
    usage("val MODEL DATA", "there is no command 'val'; it is 'evaluate' here.", "evaluate MODEL"),
    usage("info MODEL", "there is no command 'info'; it is 'inspect' here.", "fullconv inspect"),
    usage("help train", "there is no command 'help'.", "try: fullconv train --help\n"),
    usage("version", "there is no command 'version'.", "try: fullconv --version\n"),
    usage("train D --learning-rate 0.1", "train has no option --learning-rate; use --lr.",
          "try: fullconv train D --lr 0.1\n"),
    usage("train D --lr0=0.1 --imgsz 640 --device cpu",
          "train has no option --lr0; use --lr.",
          "try: fullconv train D --device cpu --lr 0.1 --crop 640 640\n"),
    usage("train D --name first", "train has no option --name; use --out.", "--out runs/first\n"),
    usage("train D --weights w.pt", "train has no option --weights", "D --init-from w.pt\n"),
    usage("train D --freeze", "train has no option --freeze;", "train D --freeze-backbone\n"),
    usage("train --data D", "train has no option --data; DATA is typed without", "train D\n"),
    usage("train D --num-classes 3", "train has no option --num-classes: the classes come from",
          "try: fullconv train D\n"),
    usage("predict --weights M --source P --conf 0.5", "predict has no option --weights; MODEL is",
          "try: fullconv predict M P --min-confidence 0.5\n"),
    usage("predict M P --gpu", "predict has no option --gpu; use --device.", "M P --device cuda\n"),
    usage("export M --to onnx", "export has no option --to; use --format.", "M --format onnx\n"),
    usage("train data=D epochs=3", "options are typed as --name value", "train D --epochs 3\n"),
    usage("segment train data=D model=resnet50 flip=False", "options are typed as",
          "try: fullconv train D --no-flip --backbone resnet50\n"),
    usage("segment predict model=M source=P save=True", "options are typed as", "predict M P"),
    usage("predict M P --accelerator gpu", "predict has no option --accelerator; use --device.",
          "try: fullconv predict M P --device cuda\n"),
    usage("train D --frozen --rate 0.1", "train has no option --frozen; use --freeze-backbone.",
          "try: fullconv train D --freeze-backbone --lr 0.1\n"),
    usage("train data=D accelerator=gpu frozen=True", "options are typed as --name value",
          "try: fullconv train D --device cuda --freeze-backbone\n"),
    usage("train data=D box=7.5", "options are typed as --name value", "train D --box 7.5\n"),
    fixable("predict MODEL frame=*.gone", "no image in frame=*.gone", "ls ."),
    fixable("predict MODEL id=7.gone", "", "fullconv predict MODEL"),
    usage("predict IMAGES MODEL", "IMAGES is no model, but MODEL is one",
          "try: fullconv predict MODEL IMAGES\n"),
    usage("evaluate DATA MODEL", "DATA is no model, but MODEL is one",
          "try: fullconv evaluate MODEL DATA\n"),
    usage("train MODEL", "MODEL is a model, not a dataset.",
          "try: fullconv train DATA --init-from MODEL\n"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.argv)
def test_command(
    case: Case, cli: Cli, model_folder: Path, scenes: Path, data: Path, tmp_path: Path
) -> None:
    damage_dataset(data, "mask")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {
        "IMAGES": scenes / "images/test",
        "IMAGE": scenes / "images/test/street_0000.jpg",
        "DATA": scenes,
        "MODEL": model_folder,
        "EMPTY": tmp_path / "empty",
        "FILE": tmp_path / "file",
        "FAULTY": data,
        "OUT": tmp_path / "out",
    }
    words = [
        f"{places[stem]}{dot}{suffix}" if (stem := word.partition(".")[0]) in places else word
        for word in case.argv.split()
        for _, dot, suffix in [word.partition(".")]
    ]
    code, out, err = cli(*words)
    for name, place in sorted(places.items(), key=lambda item: -len(str(item[1]))):
        out, err = (text.replace(str(place), name) for text in (out, err))
    assert (code, bool(case.err) or err == "") == (case.code, True), err
    for fragment in case.out:
        assert fragment in out
    for fragment in case.err:
        assert fragment in err
    assert "Traceback" not in err
    if code and not case.out:
        assert out == ""
    if "--json" in words and not case.err:
        json.loads(out)


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
        "import fullconv",
        "import fullconv.cli.main",
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


def test_grid_needs_no_torch() -> None:
    code = "import sys, fullconv; assert fullconv.Grid is fullconv.geometry.Grid; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_load_on_first_use() -> None:
    assert set(fullconv.__all__) <= {*dir(fullconv)}
    for name in fullconv.__all__:
        if name not in ("train", "__version__"):
            assert getattr(fullconv, name).__name__.rpartition(".")[2].lower() == name.lower()
    with pytest.raises(AttributeError, match="module 'fullconv' has no attribute 'trian'"):
        fullconv.trian  # noqa: B018


# train


def test_training_prints_its_result_and_the_next_command(
    cli: Cli, training: TrainRecorder, scenes: Path
) -> None:
    words = ["--stride=16", "--no-flip", "--scale", 1, 1.5, "--label-smoothing", 0]
    code, out, _ = cli("train", scenes, *words)
    assert (code, training.data) == (0, scenes)
    assert training.options == {
        "out": None,
        "resume": None,
        "stride": 16,
        "flip": False,
        "scale": (1.0, 1.5),
        "label_smoothing": 0.0,
    }
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


def test_a_run_is_not_overwritten(cli: Cli, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    code, _, err = cli("train", scenes, "--out", tmp_path)
    assert (code, err) == (
        FIXABLE,
        f"error: {tmp_path} already contains a run.\n"
        f"  try: fullconv train --resume {tmp_path}   # or --out NEW\n",
    )


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


# exit codes, streams and languages


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
    with pytest.raises(SystemExit) as caught:
        main(["bogus"])
    assert caught.value.code == USAGE
    monkeypatch.setattr(sys, "argv", ["fullconv", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0


@pytest.mark.parametrize(
    ("words", "stderr", "code"),
    [
        (["check", "DATA"], False, 0),
        (["check", "DATA", "--json"], False, 0),
        (["--help"], False, 0),
        (["train", "--help"], False, 0),
        (["--version"], False, 0),
        (["check", "gone"], True, 1),
        (["check"], True, 2),
        (["train"], True, 2),
    ],
)
def test_a_reader_that_goes_away_changes_no_exit_code(
    scenes: Path, words: list[str], stderr: bool, code: int
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [str(scenes) if word == "DATA" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "fullconv", *argv],
        stdout=writer,
        stderr=writer if stderr else subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr or b"") == (code, b"")


@pytest.mark.usefixtures("chinese")
def test_chinese(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--lang", "zh"]) == USAGE
    assert (
        capfd.readouterr().err == "错误：缺少参数 DATA。\n  用法：fullconv train [DATA] [OPTIONS]\n"
    )
    assert run(["train", "--help", "--lang", "zh"]) == 0
    out = capfd.readouterr().out
    assert "用法：fullconv train [DATA] [OPTIONS]" in out
    assert "分割头的学习率" in out
