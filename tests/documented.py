"""Commands and code blocks of README.md and docs/, and a folder in which to run them.

All commands of fullconv and all Python blocks run. `NOT_RUN` lists the exceptions with their
reason; any other command that does not run fails the tests.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from caffe_nets import blobs_of_file
from caffemodel import write_caffemodel
from films import film
from lively import lively
from PIL import Image

from fullconv.cli.main import run
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.synthetic import scenes
from fullconv.models.model import save_model

ROOT = Path(__file__).parents[1]
WALKTHROUGH = {"docs/walkthrough.md", "docs/walkthrough.zh-CN.md"}  # see test_walkthrough.py
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md")))
]
CHINESE = {page for page in PAGES if ".zh-CN." in page or page.startswith("docs/zh/")}
EXPORTED = "fullconv export runs/first"  # `furnish` runs it
NOT_RUN = {
    command: reason
    for reason, commands in {
        "installs packages": (
            "make demo",
            "make install",
            "source .venv/bin/activate",
            "pip install -e .[serve]",
            "pip install -e .[onnx]",
            "pip install --no-deps .",
            "pip install numpy scipy pillow cyclopts rich pyyaml rasterio scikit-image"
            " filelock packaging psutil tomli-w onnxruntime",
            "fullconv export runs/first --format web --out page",
            "fullconv export runs/first --format web --out page --ort package",
        ),
        "needs a second run": (
            "fullconv compare runs/first runs/second",
            "fullconv compare runs/first runs/second runs/third --split val",
            "fullconv compare runs/first runs/second --out compare.html",
            "fullconv compare runs/first runs/second --json",
            "fullconv compare runs/first onnx.npz --split val",
        ),
        "needs an account or a network": (
            "hf auth login",
            "fullconv push runs/first user/streets",
            "fullconv predict hf://user/streets photos/",
            "fullconv train data --backbone paper:vgg16 --stride 32",
            "fullconv train data --init-from torchvision:fcn_resnet50",
            "fullconv predict torchvision:fcn_resnet50 photos/",
            "fullconv evaluate torchvision:fcn_resnet50 voc2012 --split val",
            "fullconv evaluate fcn8s_from_caffe.pth voc2012 --split val",
            "fullconv train sbd --config recipes/paper_vgg16.toml",
        ),
        "takes minutes": (
            "fullconv demo",
            "fullconv train data --backbone paper:vgg16-aligned",
            "fullconv train data --stride 16 --init-from fcn32s-heavy-pascal.caffemodel"
            " --backbone paper:vgg16",
            "fullconv predict runs/first photos/ --compile",
            "fullconv export runs/first --precision int8 --calibrate photos/",
            "fullconv export runs/first --format openvino",
            "fullconv export runs/first --format torch",
        ),
        "repeats the command with seed 0": (
            "fullconv train data --seed 1 --out runs/seed1",
            "fullconv train data --seed 2 --out runs/seed2",
        ),
        "needs several processes, devices or machines": (
            "fullconv train data --devices 4 --out runs/first",
            "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint first:29500"
            " -m fullconv train data --devices 4 --nodes 2 --out runs/large",
            "torchrun --nproc-per-node 4 -m fullconv predict runs/first photos/ --out predictions",
            "srun --ntasks 16 fullconv predict runs/first photos/ --out /shared/predictions",
            "srun fullconv predict runs/first photos/ --out /shared/predictions",
            "find photos -name *.jpg | fullconv predict runs/first - --out predictions",
        ),
        "runs until it is stopped": (
            "python -m http.server --directory page",
            "fullconv serve runs/first",
            "fullconv serve exported/model.onnx",
            "FULLCONV_KEY=... fullconv serve runs/first --host 0.0.0.0",
            "curl --data-binary @street.jpg -H Content-Type: image/jpeg localhost:8000/predict"
            " > street_mask.png",
            "curl -F image=@street.jpg localhost:8000/predict?output=json",
        ),
    }.items()
    for command in commands
}
# Options that make a training run take seconds; the backbone replaces those of timm.
SMALL = "--no-pretrained --epochs 1 --batch-size 2 --crop 33 33 --workers 0"
TINY = "--backbone test_resnet"
# Options added to a single command so that it takes seconds.
ADDED = {
    "fullconv heatmap resnet18 street.jpg --class sports car": "--no-pretrained --scales 5,6",
    "fullconv train --resume runs/first": "",
    "fullconv train --config runs/first/config.toml": "--epochs 1",
    "fullconv train data --init-from runs/first": SMALL,
    "fullconv train data --stride 16 --init-from runs/first": SMALL,
}
# Replacements in Python blocks, for the same reason.
REPLACED = {
    'fc.train("data", backbone="resnet18"': 'fc.train("data", backbone="test_resnet"',
    "epochs=50": ('epochs=1, pretrained=False, batch_size=2, crop=(33, 33), workers=0, out="run"'),
    'fc.load("torchvision:fcn_resnet50")': 'fc.load("fcn8s-heavy-pascal.caffemodel")',
    'fc.FCN("paper:vgg16", ': 'fc.FCN("resnet18", ',  # 134 million parameters
    'timm.create_model("resnet18", pretrained=True)': 'timm.create_model("test_resnet")',
    "num_classes=21, stride=4, pretrained=True)": "num_classes=21, stride=4)",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Return the commands of a shell block, without comments and extra spaces."""
        return [" ".join(words) for words in map(words_of, self.text.splitlines()) if words]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [Block(page, language, text) for language, text in fences]


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def is_known(command: str) -> bool:
    """Tell whether a command runs in the tests or is listed as an exception."""
    return command in NOT_RUN or command.startswith("fullconv ")


def arguments(line: str) -> list[str]:
    """Return the arguments of a fullconv command as the tests run it."""
    words = words_of(line)
    command = " ".join(words)
    if command in ADDED:
        words += ADDED[command].split()
    elif words[1] == "train":
        # SMALL and TINY set these; a backbone that is not timm's is a file or a published network.
        for option in ("--epochs", "--backbone"):
            at = words.index(option) if option in words else None
            if at and (option == "--epochs" or timm.is_model(words[at + 1])):
                del words[at : at + 2]
        words += SMALL.split() + TINY.split() * ("--backbone" not in words)
    return words[1:]


def python_of(text: str) -> str:
    """Return a Python block as the tests run it."""
    for old, new in REPLACED.items():
        text = text.replace(old, new)
    return text


def furnish(folder: Path) -> Path:
    """Create the files and models that the documentation assumes."""
    _write_data(folder)
    _write_third_party_files(folder)
    first = folder / "runs/first"
    train = ["train", str(folder / "data"), "--out", str(first), "--quiet", "--stride", "32"]
    assert run([*train, *SMALL.split(), *TINY.split()]) == 0
    depth = ExtraInput("depth", 1, (0.5,), (0.3,))
    save_model(lively(extra_inputs=(depth,), fusion="early"), folder / "runs/depth/model")
    assert run(["export", str(first), "--out", str(folder / "exported"), "--quiet"]) == 0
    shutil.copytree(first, folder / "demo/run")
    shutil.copytree(folder / "data", folder / "demo/scenes")
    predict = ["predict", str(first), "--out", str(folder / "predictions"), "--quiet", "--save"]
    assert run([*predict, "mask,overlay,probability", str(folder / "street.jpg")]) == 0
    assert run([*predict, "mask,overlay", str(folder / "drive.mp4")]) == 0
    return folder


def _write_data(folder: Path) -> None:
    data = scenes.write(folder / "data", train=6, val=2, test=2, size=(48, 64))
    photos = Path(shutil.copytree(data / "images/test", folder / "photos"))
    shutil.copy(sorted(photos.iterdir())[0], folder / "street.jpg")
    film(folder / "drive.mp4")
    shutil.copytree(data / "masks", data / "geometry")  # an additional head with the same classes
    shutil.copy(data / "dataset.toml", data / "geometry/dataset.toml")
    for photo in sorted((data / "images").rglob("*.jpg")):
        _write_depth(photo, data / "depth" / photo.parent.name)
    for photo in sorted(photos.iterdir()):
        _write_depth(photo, folder / "depth-of-photos")
    page = blocks_of("docs/reference/files.md")
    backbone = next(block for block in page if "source" in block.text)
    text = backbone.text.replace('"resnet18"', '"test_resnet"')
    (folder / "backbone.toml").write_text(text, encoding="utf-8")
    (folder / "list.txt").write_text(
        "".join(f"photos/{path.name}\n" for path in sorted(photos.iterdir()))
    )
    street = Image.open(folder / "street.jpg")
    for name in ("orthophoto.tif", "scan.png", "poster.png"):
        street.save(folder / name)
    for kind in ("images", "masks"):
        shutil.copytree(data / kind / "train", folder / "slides" / kind)


def _write_depth(photo: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    gray = np.asarray(Image.open(photo).convert("L"))
    Image.fromarray(gray).save(folder / f"{photo.stem}.png")


def _write_third_party_files(folder: Path) -> None:
    """Write annotations, and narrow networks in the formats of Caffe and pytorch-fcn."""
    for name in ("labelme", "labelled"):
        copies = Path(shutil.copytree(folder / "photos", folder / name))
        for photo in sorted(copies.iterdir()):
            shape = {"label": "road", "points": [[0, 30], [64, 30], [64, 48]]}
            annotation = {"shapes": [shape], "imagePath": photo.name}
            photo.with_suffix(".json").write_text(json.dumps(annotation))
    for split in ("train", "val"):
        copies = Path(shutil.copytree(folder / "photos", folder / "yolo/images" / split))
        labels = folder / "yolo/labels" / split
        labels.mkdir(parents=True)
        for photo in sorted(copies.iterdir()):
            photo.rename(photo.with_stem(f"{split}_{photo.stem}"))
            polygon = "0 0.0 0.6 1.0 0.6 1.0 1.0 0.0 1.0\n"
            (labels / f"{split}_{photo.stem}.txt").write_text(polygon)
    names = "train: images/train\nval: images/val\nnames:\n  0: road\n"
    (folder / "yolo/data.yaml").write_text(names)
    blobs = blobs_of_file("8s")
    write_caffemodel(folder / "fcn8s-heavy-pascal.caffemodel", blobs)
    state = {
        f"{layer}.{part}": blob
        for layer, layer_blobs in blobs.items()
        for part, blob in zip(("weight", "bias"), layer_blobs, strict=False)
    }
    torch.save(state, folder / "fcn8s_from_caffe.pth")
