"""The command `heatmap`: what it prints and writes, and what a person's mistakes become."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.cli.main import run

Out = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Out:
    def call(*words: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(word) for word in words])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (20, 26, 3), np.uint8)
    Image.fromarray(pixels).resize((260, 200), Image.Resampling.BICUBIC).save(path)
    return path


def test_a_heat_map_of_an_untrained_network(cli: Out, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "heat.png"
    words = ("--no-pretrained", "--scales", "1,1.5", "--out", out)
    code, text, err = cli("heatmap", "test_resnet", photo, *words, "--class", "tabby", "--top", 3)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith(
        "timm test_resnet, 200 x 260 pixels; the dense form differs from the cl"
    )
    assert lines[1].split() == ["probability", "x", "y", "scale", "class"]
    assert len(lines) == 8  # three classes, the one asked for, where the image is, and what next
    assert any(line.endswith("  tabby, tabby cat") for line in lines)
    assert lines[-2:] == [
        f"heat map: {out}",
        "next: fullconv train DATA --backbone test_resnet",
    ]
    assert err.startswith("note: timm test_resnet: because of padding, cells see up to 323 pixels")
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.width > 3 * 240


def test_as_json(cli: Out, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "heat.png"
    words = ("--no-pretrained", "--out", out, "--class", "tabby", "--class", 207, "--json")
    code, text, _ = cli("heatmap", "test_resnet", photo, *words)
    assert code == 0
    facts = json.loads(text)
    assert (facts["classifier"], facts["height"], facts["width"]) == ("timm test_resnet", 200, 260)
    assert facts["difference"] < 1e-5
    assert facts["grid"]["stride"] == 32
    assert [s["scale"] for s in facts["scales"]] == [1, 1.5, 2]
    assert facts["scales"][0] == {"scale": 1, "size": [200, 260], "cells": [2, 4]}
    assert len(facts["top"]) == 5
    best = [place["probability"] for place in facts["top"]]
    assert best == sorted(best, reverse=True)
    assert [c["class"] for c in facts["classes"]] == ["tabby, tabby cat", "golden retriever"]
    for found in facts["classes"]:
        assert found["probability"] == max(s["probability"] for s in found["scales"])
        assert 0 <= found["row"] < 200
        assert 0 <= found["column"] < 260
    assert facts["out"] == str(out)


def test_without_a_class_the_most_probable_is_drawn(
    cli: Out, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--no-pretrained", "--scales", "1", "--json")
    facts = json.loads(cli("heatmap", "test_resnet", photo, *words)[1])
    assert [c["id"] for c in facts["classes"]] == [facts["top"][0]["id"]]
    assert (tmp_path / "heatmap.png").is_file()


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("test_resnet", "none.jpg"), "no image none.jpg: there is no such file.", "ls"),
        (("test_resnet", "{folder}"), "is a folder; expected", "ls"),
        (("test_resnet", "{photo}", "--out", "a.jpg"), "as PNG, not as 'a.jpg'", "--out a.png"),
        (
            ("test_resnet", "{png}", "--out", "{png}"),
            "which the heat map would replace",
            "--out heatmap",
        ),
        (
            ("test_resnet", "{photo}", "--scales", "big"),
            "scales 'big'; expected comma-separated numbers.",
            "--scales 0.75,1,1.25",
        ),
        (
            ("test_resnet", "{photo}", "--scales", "0.5"),
            "has 100 x 130 pixels at scale 0.5",
            "--sc",
        ),
        (("test_resnet", "{photo}", "--top", "0"), "--top is 0; it must be 1 or more", "--top 5"),
        (
            ("test_resnet", "{photo}", "--class", "tabbie"),
            "Similar names: 'tabby' (281)",
            "--class",
        ),
        (("test_resnet", "{text}"), "cannot be read: it is not in an image format", "copy"),
        (("test_vit", "{photo}"), "timm test_vit cannot be convolutionalized", "move"),
        (("resnet81", "{photo}"), "timm has no network 'resnet81'", "resnet18   # or"),
        (("none.toml", "{photo}"), "no backbone card at none.toml", "ls"),
        (("test_resnet", "{png}", "--out", "{text}/heat.png"), "could not be written to", "--out"),
    ],
)
def test_mistakes(
    cli: Out, photo: Path, tmp_path: Path, words: tuple[str, ...], message: str, hint: str
) -> None:
    text, png = tmp_path / "text.jpg", tmp_path / "photo.png"
    text.write_text("not an image")
    Image.open(photo).save(png)
    places = {"photo": photo, "text": text, "png": png, "folder": tmp_path}
    named = [word.format(**places) for word in words]
    if "--out" not in named:
        named += ["--out", str(tmp_path / "heat.png")]
    code, out, err = cli("heatmap", *named, "--no-pretrained")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert f"\n  try: {hint}" in err
    assert "Traceback" not in err


def test_cats_and_dogs_are_found_where_they_are(cli: Out, shared: Path, tmp_path: Path) -> None:
    """A photo of a collie, with weights of ImageNet: the best place lies on the dog."""
    card = shared / "weights/mobilenetv2_100_tf_quant_in1k.toml"
    voc = shared / "data/voc2012_sample"
    path = voc / "JPEGImages/2008_002160.jpg"
    out = tmp_path / "heat.png"
    facts = json.loads(cli("heatmap", card, path, "--out", out, "--json")[1])
    best = facts["top"][0]
    assert best["class"] == "Border collie"
    assert best["probability"] > 0.5
    mask = np.asarray(Image.open(voc / "SegmentationClass/2008_002160.png"))
    assert mask[best["row"], best["column"]] == 12  # VOC's dog


def test_a_probe_prints_the_four_scores(cli: Out, scenes: Path, model_folder: Path) -> None:
    words = ["probe", str(model_folder), str(scenes), "--foreground", "car, person"]
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][-2:] == ["2", "images"]
    kinds = [["whole", "images"], ["objects", "only"], ["context", "only"]]
    assert [line[:2] for line in lines[3:7]] == [*kinds, ["shapes", "only"]]
    assert out.endswith(f"\nnext: fullconv predict {model_folder} IMAGES\n")
    code, out, err = cli(*words, "--json")
    result = json.loads(out)
    assert result["things"] == ["car", "person"]
    assert result["everything"]["confusion"] != result["shape"]["confusion"]
    assert float(lines[3][2].rstrip("%")) == pytest.approx(
        100 * result["everything"]["foreground_mean_iou"], abs=0.051
    )


def test_a_probe_asks_what_things_are(cli: Out, scenes: Path, model_folder: Path) -> None:
    code, _, err = cli("probe", model_folder, scenes)
    assert code == 1
    assert "none is named background" in err
    assert "try: --foreground" in err
