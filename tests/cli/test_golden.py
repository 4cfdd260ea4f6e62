"""The command line as one table: what is typed, the exit code, and what is printed.

Words in capitals are paths (see `places`) or, before the command, environment
variables. Of a command that succeeds, all fragments are in stdout, and stderr is empty unless `err`
names a fragment of it. A command that fails prints nothing to stdout unless `out` names fragments.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Cli, damage_dataset
from photos import photo, written

import fullconv
from fullconv.cli.app import app
from fullconv.cli.main import FIXABLE, USAGE

NAMES = sorted(name for name in app if not name.startswith("-"))


@dataclass
class Case:
    argv: str
    code: int
    out: tuple[str, ...]
    err: tuple[str, ...]


def ok(argv: str, *out: str, err: tuple[str, ...] = ()) -> Case:
    return Case(argv, 0, out, err)


def usage(argv: str, message: str, hint: str = "") -> Case:
    return Case(argv, USAGE, (), (f"error: {message}", hint))


def fixable(argv: str, message: str, hint: str = "", *, out: tuple[str, ...] = ()) -> Case:
    return Case(argv, FIXABLE, out, ("error: ", message, f"\n  try: {hint}"))


FAULTS = ("ERROR ", "street_0000", "fix: ")
CHINESE_HELP = ("用法：fullconv train [DATA] [OPTIONS]", "分割头的学习率")
CASES = [
    ok("--version", f"{fullconv.__version__}\n"),
    ok("--help", "Usage: fullconv COMMAND [OPTIONS]\n", *(f"  {name} " for name in NAMES)),
    ok("", "Usage: fullconv COMMAND [OPTIONS]\n", "--quiet", "--lang NAME"),
    ok("train --help --lang zh", *CHINESE_HELP),
    # datasets
    ok("check DATA", "images: train 3, val 2, test 2", "next: fullconv train DATA --stride"),
    ok("check DATA --json", '"recommended_stride": 4'),
    ok("check DATA --layout folders", "layout folders"),
    Case("check FAULTY", 1, FAULTS, ()),
    Case("check FAULTY --json", 1, ('"errors": 1', '"recommended_stride": null'), ()),
    ok("check DATA --preview OUT.png", "recommended: ", err=("preview: OUT.png\n",)),
    fixable("check DATA --preview OUT.jpg", "is written as PNG", out=("recommended: --stride",)),
    ok("ceiling DATA", "DATA, split val, 2 images", "(measured on 2 masks of val)\nnext: "),
    ok("ceiling DATA --json --split train", '"split": "train"'),
    ok("inspect DATA", "images: train 3", "\nnext: fullconv check DATA\n"),
    ok("inspect DATA --json", '"train": 3'),
    ok("inspect MODEL", "classes: sky", "\nnext: fullconv predict MODEL IMAGES\n"),
    ok("inspect MODEL --json", '"engine"', '"tiles"'),
    ok("inspect test_resnet", "next: fullconv train DATA --backbone test_resnet\n"),
    # models
    ok("evaluate MODEL DATA --split val",
       "MODEL on DATA, split val, 2 images, original size\n\nmean IoU ",
       "\nnext: fullconv predict MODEL IMAGES\n"),
    ok("evaluate MODEL DATA --json", '"frequency_weighted_iou"', '"split": "test"'),
    ok("evaluate MODEL DATA --device cpu --report none", "mean IoU "),
    ok("predict MODEL IMAGES --out OUT",
       "IMAGE: ", "%", "2 of 2 images -> OUT\nnext: fullconv serve MODEL\n"),
    ok("predict MODEL IMAGE --out OUT --json --device cpu", "_mask.png", '"failed": []'),
    ok("predict MODEL IMAGES --out OUT --quiet", "2 of 2 images -> OUT\n"),
    # wrong usage
    usage("bogus", "there is no command 'bogus'.", "\n  try: fullconv --help\n"),
    usage("--bogus", "there is no command '--bogus'."),
    usage("chekc DATA", "there is no command 'chekc'; did you mean 'check'?",
          "fullconv check DATA"),
    usage("check", "missing argument DATA.", "\n  usage: fullconv check DATA [OPTIONS]\n"),
    usage("train", "missing argument DATA.", "usage: fullconv train [DATA] [OPTIONS]\n"),
    Case("train --lang zh", USAGE, (),
         ("错误：缺少参数 DATA。\n  用法：fullconv train [DATA] [OPTIONS]\n",)),
    usage("evaluate m", "missing argument DATA.",
          "usage: fullconv evaluate MODEL DATA [OPTIONS]\n"),
    usage("predict", "missing argument MODEL.",
          "usage: fullconv predict MODEL IMAGES... [OPTIONS]"),
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
    # words of other tools
    usage("val MODEL DATA", "there is no command 'val'; it is 'evaluate' here.", "evaluate MODEL"),
    usage("info MODEL", "there is no command 'info'; it is 'inspect' here.", "fullconv inspect"),
    usage("help train", "there is no command 'help'.", "try: fullconv train --help\n"),
    usage("version", "there is no command 'version'.", "try: fullconv --version\n"),
    usage("train D --learning-rate 0.1", "train has no option --learning-rate; use --lr.",
          "try: fullconv train D --lr 0.1\n"),
    usage("train D --lr0=0.1 --imgsz 640 --device cpu", "train has no option --lr0; use --lr.",
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
    usage("predict IMAGES MODEL", "IMAGES is no model, but MODEL is one",
          "try: fullconv predict MODEL IMAGES\n"),
    usage("evaluate DATA MODEL", "DATA is no model, but MODEL is one",
          "try: fullconv evaluate MODEL DATA\n"),
    usage("train MODEL", "MODEL is a model, not a dataset.",
          "try: fullconv train DATA --init-from MODEL\n"),
    # what is named is wrong: datasets
    fixable("check EMPTY", "EMPTY"),
    fixable("check DATA --layout voc", "JPEGImages/ and SegmentationClass/"),
    fixable("check DATA --layout vox", "vox", "--layout voc"),
    fixable("convert DATA OUT --layout yolo", "label-studio, ultralytics, class-masks, city"),
    fixable("ceiling FAULTY --split test", "", "fullconv check FAULTY"),
    fixable("inspect gone/away", "there is no gone/away. Expected a back", "fullconv inspect res"),
    fixable("inspect FILE", "FILE is a file of another kind. Expected a backbone name",
            "fullconv inspect resnet18"),
    fixable("inspect IMAGES", "contains 2 images and no masks"),
    fixable("inspect gone.safetensors", "no model at gone.safetensors"),
    fixable("inspect gone.toml", "no backbone card at gone.toml"),
    fixable("inspect resnet1", "timm has no network 'resnet1'; it has ", "--backbone resnet18"),
    fixable("inspect torchvision:nonet", "torchvision has no classifier 'nonet'"),
    fixable("inspect elsewhere:a/b", "unknown backbone source 'elsewhere'"),
    # training
    fixable("train DATA --stride 7", "stride is 7; it must be one of 4, 8, 16, 32.", "--stride 8"),
    fixable("train DATA --lr nan", "lr is nan; it must be a number.", "--lr 0.002"),
    fixable("train DATA --epochs 0", "epochs is 0; it must be 1 or more.", "--epochs 50"),
    fixable("train --config gone", "there is no configuration at gone.", "fullconv train DATA"),
    fixable("train FAULTY --backbone resnet1", "timm has no network", "--backbone resnet18"),
    fixable("train gone", "there is no dataset at gone.", "fullconv demo"),
    fixable("train camvd", "there is no dataset at camvd.", "fullconv train camvid"),
    fixable("train DATA --out RUN", "RUN already contains a run.\n",
            "fullconv train --resume RUN   # or --out NEW\n"),
    # evaluation
    fixable("evaluate gone DATA", "there is no model at gone.", "fullconv train DATA"),
    fixable("evaluate MODEL gone", "there is no dataset at gone.", "fullconv demo"),
    fixable("evaluate EMPTY DATA", "", "fullconv train"),
    fixable("evaluate MODEL FAULTY", "", "fullconv check FAULTY"),
    fixable("evaluate MODEL DATA --counts counts", "", "--counts counts.npz\n"),
    fixable("evaluate MODEL DATA --report 'my report.pdf'", "the report my report.pdf is no HTML "
            "file; expected auto, none or a name that ends in .html.\n",
            "--report 'my report.html'\n"),
    fixable("probe MODEL DATA", "none is named background", "--foreground"),
    # prediction
    fixable("predict gone IMAGE", "there is no model at gone.", "fullconv train DATA"),
    fixable("predict MODEL gone.jpg --out OUT", "", "fullconv predict MODEL"),
    fixable("predict MODEL frame=*.gone", "no image in frame=*.gone", "ls ."),
    fixable("predict MODEL id=7.gone", "", "fullconv predict MODEL"),
    fixable("predict MODEL EMPTY --out OUT", "", "fullconv predict MODEL"),
    fixable("predict MODEL IMAGE --out FILE", "", "--out ANOTHER"),
    fixable("RANK=0 WORLD_SIZE=2 predict MODEL -", "standard input can be read by one process "
            "only, not by 2 processes.", "fullconv predict MODEL @list.txt\n"),
    *(fixable(f"predict MODEL IMAGE --out OUT {options}", message, hint)
      for options, message, hint in (
        ("--tile 0", "", "--tile"),
        ("--save heat", "there is no output 'heat'; --save accepts mask,", "--save mask,overlay"),
        ("--save ,", "there is no output ','; --save accepts mask,", "--save mask,overlay"),
        ("--classes rod", "the model has no class 'rod'; the nearest are road", "--classes road"),
        ("--scales half", "scales 'half'; expected comma-separated", "--scales 0.75,1,1.25"),
        ("--min-confidence 60", "a minimum confidence of 60; expected a fraction",
         "--min-confidence 0.6"),
        ("--min-area -3", "a minimum area of -3 pixels", "--min-area 64"),
        ("--scales 1,2 --tile 64", "cannot be combined", "--tile 64"))),
    # export, serve, heatmap, completion
    fixable("export MODEL --format web --with-labels", "the web page needs logits", "--format web"),
    fixable("export MODEL --ort DATA", "--ort is for --format web, not for onnx.", "--format web"),
    fixable("export MODEL --precision int8 --out OUT", "int8 is calibrated on images like those "
            "that the model will see; none were given.", "--calibrate IMAGES"),
    fixable("serve gone --port 0", "there is no model at gone."),
    *(fixable(f"serve MODEL {options}", message, hint) for options, message, hint in (
        ("--port 70000", "--port is 70000; it must be from 0 to 65535.", "--port 8000"),
        ("--host 'no such host'", "there is no host 'no such host'", "--host 127.0.0.1"),
        ("--host 192.0.2.7 --port 0", "192.0.2.7 is not an address of this machine", "fullconv se"),
        ("--max-bytes 0", "--max-bytes is 0; it must be 1 or more.", "--max-bytes 33554432"),
        ("--max-pixels -3", "--max-pixels is -3; it must be 1 or more.", "--max-pixels 50000000"),
        ("--max-seconds 0", "--max-seconds is 0.0; it must be more than 0.", "--max-seconds 60"),
        ("--queue 0", "--queue is 0; it must be 1 or more.", "--queue 32"),
        ("--key schlüssel", "the key has characters that an HTTP header cannot carry", "--key $("),
        ("--key 'two words'", "the key has characters that an HTTP header cannot", "--key $("))),
    *(fixable(f"heatmap {words} --no-pretrained", message, hint) for words, message, hint in (
        ("test_resnet gone.jpg", "no image gone.jpg: there is no such file.", "ls"),
        ("test_resnet EMPTY", "is a folder; expected", "ls"),
        ("test_resnet PHOTO --out a.jpg", "as PNG, not as 'a.jpg'", "--out a.png"),
        ("test_resnet PHOTO --out PHOTO", "which the heat map would replace", "--out heatmap"),
        ("test_resnet PHOTO --scales big", "scales 'big'; expected comma-separated numbers.",
         "--scales 0.75,1,1.25"),
        ("test_resnet PHOTO --scales 0.5", "has 100 x 130 pixels at scale 0.5", "--sc"),
        ("test_resnet PHOTO --top 0", "--top is 0; it must be 1 or more", "--top 5"),
        ("test_resnet PHOTO --class tabbie", "Similar names: 'tabby' (281)", "--class"),
        ("test_resnet TEXT", "cannot be read: it is not in an image format", "copy"),
        ("test_vit PHOTO", "timm test_vit cannot be convolutionalized", "move"),
        ("resnet81 PHOTO", "timm has no network 'resnet81'", "resnet18   # or"),
        ("gone.toml PHOTO", "no backbone card at gone.toml", "ls"),
        ("test_resnet PHOTO --out TEXT/heat.png", "could not be written to", "--out"))),
    fixable("SHELL=/bin/dash completion", "SHELL is 'dash'; completion supports bash, zsh, fish.",
            "fullconv completion bash\n"),
    fixable("SHELL= completion", "SHELL is ''; completion supports", "fullconv completion bash\n"),
    fixable("HOME=FILE completion bash", "the completion script for bash could not be written",
            "ls -ld "),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(
    scenes: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The paths behind the words in capitals. Nothing changes them."""
    folder = tmp_path_factory.mktemp("places")
    damage_dataset(Path(shutil.copytree(scenes, folder / "faulty")), "mask")
    (folder / "empty").mkdir()
    (folder / "file").touch()
    (folder / "text.jpg").write_text("not an image")
    (folder / "run").mkdir()
    (folder / "run/config.toml").touch()
    return {
        "IMAGES": scenes / "images/test",
        "IMAGE": scenes / "images/test/street_0000.jpg",
        "PHOTO": written(folder / "photo.png", photo(200, 260)),
        "DATA": scenes,
        "MODEL": model_folder,
        "FAULTY": folder / "faulty",
        "EMPTY": folder / "empty",
        "FILE": folder / "file",
        "TEXT": folder / "text.jpg",
        "RUN": folder / "run",
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.argv)
def test_command(
    case: Case,
    cli: Cli,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--lang zh" in case.argv:
        request.getfixturevalue("chinese")
    paths = {**places, "OUT": tmp_path / "out"}
    names = "|".join(sorted(paths, key=len, reverse=True))
    words = shlex.split(re.sub(rf"\b({names})\b", lambda match: str(paths[match[1]]), case.argv))
    while words and (assignment := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
        monkeypatch.setenv(assignment[1], assignment[2])
        words = words[1:]
    code, out, err = cli(*words)
    for name, path in sorted(paths.items(), key=lambda item: -len(str(item[1]))):
        out, err = (text.replace(str(path), name) for text in (out, err))
    assert (code, bool(case.err) or err == "") == (case.code, True), err
    for fragment in case.out:
        assert fragment in out
    for fragment in case.err:
        assert fragment in err
    assert "Traceback" not in err
    if code and not case.out:
        assert out == ""
        assert not (tmp_path / "out").exists()
    if "--json" in words and not case.err:
        json.loads(out)
