"""`fullconv heatmap` and `probe`: what they print and write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Cli
from photos import photo, written
from PIL import Image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return written(tmp_path / "photo.png", photo(200, 260))


def test_heatmap(cli: Cli, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "heat.png"
    words = ("--no-pretrained", "--scales", "1,1.5", "--out", out)
    code, text, err = cli("heatmap", "test_resnet", image, *words, "--class", "tabby", "--top", 3)
    assert code == 0
    lines = text.splitlines()
    head = "timm test_resnet, 200 x 260 pixels; the dense form differs from the cl"
    assert lines[0].startswith(head)
    assert lines[1].split() == ["probability", "x", "y", "scale", "class"]
    assert len(lines) == 8  # three classes, the requested one, where the image is, and what next
    assert any(line.endswith("  tabby, tabby cat") for line in lines)
    ahead = "next: fullconv train DATA --backbone test_resnet"
    assert lines[-2:] == [f"heat map: {out}", ahead]
    assert err.startswith("note: timm test_resnet: because of padding, cells see up to 323 pixels")
    with Image.open(out) as sheet:
        assert (sheet.format, sheet.width > 3 * 240) == ("PNG", True)


def test_heatmap_as_json(
    cli: Cli, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "heat.png"
    words = ("--no-pretrained", "--out", out, "--class", "tabby", "--class", 207, "--json")
    code, text, _ = cli("heatmap", "test_resnet", image, *words)
    assert code == 0
    facts = json.loads(text)
    assert (facts["classifier"], facts["height"], facts["width"]) == ("timm test_resnet", 200, 260)
    assert facts["difference"] < 1e-5
    assert facts["grid"]["stride"] == 32
    assert [s["scale"] for s in facts["scales"]] == [1, 1.5, 2]
    assert facts["scales"][0] == {"scale": 1, "size": [200, 260], "cells": [2, 4]}
    best = [place["probability"] for place in facts["top"]]
    assert (len(best), best) == (5, sorted(best, reverse=True))
    assert [c["class"] for c in facts["classes"]] == ["tabby, tabby cat", "golden retriever"]
    for peak in facts["classes"]:
        assert peak["probability"] == max(s["probability"] for s in peak["scales"])
        assert 0 <= peak["row"] < 200
        assert 0 <= peak["column"] < 260
    assert facts["out"] == str(out)
    # Without a class, the most probable one is drawn.
    words = ("--no-pretrained", "--scales", "1", "--json")
    facts = json.loads(cli("heatmap", "test_resnet", image, *words)[1])
    assert [c["id"] for c in facts["classes"]] == [facts["top"][0]["id"]]
    assert (tmp_path / "heatmap.png").is_file()


def test_a_dog_is_where_it_is_annotated(cli: Cli, shared: Path, tmp_path: Path) -> None:
    """A photo of a collie, with weights of ImageNet."""
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


def test_probe(cli: Cli, scenes: Path, model_folder: Path) -> None:
    words = ["probe", str(model_folder), str(scenes), "--foreground", "car, person"]
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][-2:] == ["2", "images"]
    assert "split val, 2 images" in out
    kinds = [["whole", "images"], ["objects", "only"], ["context", "only"]]
    assert [line[:2] for line in lines[3:7]] == [*kinds, ["shapes", "only"]]
    assert out.endswith(f"\nnext: fullconv predict {model_folder} IMAGES\n")
    result = json.loads(cli(*words, "--json")[1])
    assert result["things"] == ["car", "person"]
    assert result["everything"]["confusion"] != result["shape"]["confusion"]
    share = 100 * result["everything"]["foreground_mean_iou"]
    assert float(lines[3][2].rstrip("%")) == pytest.approx(share, abs=0.051)
