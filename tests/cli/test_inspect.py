"""Facts and text about backbones, models and datasets; test_golden.py has the errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fullconv.cli.inspect import inspect
from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN
from fullconv.network.multi_input import fuse

MakeModel = Callable[..., Model]


def test_a_backbone_has_a_grid_per_stride() -> None:
    facts, text = inspect("resnet18")
    keys = ("stride", "offset", "field", "channels")
    grids = [tuple(grid[key] for key in keys) for grid in facts["grids"]]
    assert grids == [(4, 0, 43, 64), (8, 0, 99, 128), (16, 0, 211, 256), (32, 0, 435, 512)]
    assert facts["backbone"]["source"] == "timm"
    assert facts["parameters"] == pytest.approx(11.2e6, rel=0.01)
    assert facts["size_phase"] is None
    lines = text.splitlines()
    assert lines[0] == "timm resnet18"
    assert lines[1].split() == ["stride", "offset", "field", "channels"]
    assert lines[2].split() == ["4", "0", "43", "64"]
    assert len(lines) == 6
    assert len({len(line) for line in lines[1:]}) == 1  # the columns are straight
    assert json.loads(json.dumps(facts)) == facts


def test_a_backbone_that_depends_on_the_whole_image() -> None:
    facts, text = inspect("test_efficientnet")
    assert None in {grid["field"] for grid in facts["grids"]}
    assert " whole " in text
    assert "depends on the whole image: " in text
    assert "Infinity" not in json.dumps(facts)


def test_a_backbone_whose_padding_depends_on_the_size(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('source = "timm"\nname = "mobilenetv2_035"\noptions = { pad_type = "same" }')
    facts, text = inspect(str(card))
    assert facts["size_phase"] == 1
    assert text.endswith("images are padded to one more than a multiple of 32 pixels")


def test_a_backbone_without_stride_4_starts_at_the_finest_that_it_has() -> None:
    facts, _ = inspect("test_vit")
    assert [grid["stride"] for grid in facts["grids"]] == [16]


def test_a_model(make_model: MakeModel, tmp_path: Path) -> None:
    metrics = {
        "mean_iou": 0.625,
        "pixel_accuracy": 0.75,
        "mean_accuracy": 0.7,
        "frequency_weighted_iou": 0.65,
        "protocol": {"images": 4, "split": "val", "data_fingerprint": "0123456789abcdef"},
    }
    folder = save_model(make_model(metrics=metrics), tmp_path / "run" / "model")
    facts, text = inspect(str(folder))
    lines = text.splitlines()
    assert lines[:4] == [
        "FCN-8s on timm test_resnet, 0.4 million parameters",
        "classes: sky, road, tree",
        "pretrained on nothing",
        "mean IoU 62.5% on val (4 images) of data 0123456789ab",
    ]
    assert lines[4].startswith("runs in float32 (")
    assert facts["engine"] in lines[4]
    assert lines[5].split()[0] == "stride"
    assert facts["classes"] == ["sky", "road", "tree"]
    assert facts["metrics"] == metrics
    assert facts["stride"] == 8
    assert len(facts["grids"]) == 3
    assert json.loads(json.dumps(facts)) == facts
    for other in (folder.parent, folder / "model.safetensors"):
        assert inspect(str(other)) == (facts, text)


def test_stretched_logits_are_noted(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    model.network = FCN("test_resnet", 3, stride=8, placement="stretched")
    facts, text = inspect(str(save_model(model, tmp_path / "model")))
    assert facts["placement"] == "stretched"
    assert "logits are stretched over the image" in text


def test_a_dataset_is_checked_and_drawn(scenes: Path, tmp_path: Path) -> None:
    report, path = check(scenes), tmp_path / "sheet.png"
    assert inspect(str(scenes)) == (report.to_dict(), report.text())
    assert inspect(str(scenes), preview=path)[1] == f"{report.text()}\npreview: {path}"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_model_with_a_file_missing_is_still_taken_for_a_model(
    model_folder: Path, tmp_path: Path, lost: str
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (folder / lost).unlink()
    with pytest.raises(FullconvError, match=r"config\.json") as caught:
        inspect(str(folder))
    assert "dataset" not in caught.value.message


def test_a_model_whose_saving_was_interrupted_is_pointed_to(
    model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "model.old")
    for thing in (tmp_path, tmp_path / "model"):
        with pytest.raises(FullconvError, match="interrupted") as caught:
            inspect(str(thing))
        assert caught.value.hint == f"mv {tmp_path / 'model.old'} {tmp_path / 'model'}"


def test_exact_tiles(model_folder: Path) -> None:
    facts, text = inspect(str(model_folder))
    tiles = facts["tiles"]
    assert "mean IoU" not in text  # the model was not evaluated
    assert (tiles["exact"], tiles["reasons"]) == (True, [])
    assert tiles["measured"]["scores"] < 1e-4 * tiles["measured"]["spread"]
    assert tiles["measured"]["size"][1] > 2 * tiles["halo"] + tiles["measured"]["tile"]
    assert f"tiles with a halo of {tiles['halo']} pixels give the labels of the whole" in text
    assert "(proven by the receptive field)\nmeasured on a synthetic image of 97 x " in text
    assert "pixels get another label, logits differ by up to" in text


def test_blended_tiles(make_model: MakeModel, tmp_path: Path) -> None:
    network = FCN("test_efficientnet", 3)
    for score in network.score.values():
        torch.nn.init.normal_(score.weight)
    model = Model(network.eval(), make_model().labels, network.backbone.card)
    facts, text = inspect(str(save_model(model, tmp_path / "model")))
    tiles = facts["tiles"]
    assert not tiles["exact"]
    assert tiles["measured"]["scores"] > 0
    assert f"tiles are not exact, because of {tiles['reasons'][0]}" in text
    measured = "measured on a synthetic image of 384 x 640 in tiles of 256: "
    assert f": seams are blended\n{measured}" in text
    assert f"{tiles['measured']['labels']} of 245760 pixels get another label" in text


def test_a_model_of_resized_images_has_no_tiles(make_model: MakeModel, tmp_path: Path) -> None:
    plain = make_model()
    model = Model(plain.network, plain.labels, plain.card, short_side=64)
    facts, text = inspect(str(save_model(model, tmp_path / "model")))
    assert "tiles: none, images are resized as a whole, to 64 pixels" in text
    assert not facts["tiles"]["exact"]


def test_tiles_of_a_model_with_extra_inputs(make_model: MakeModel, tmp_path: Path) -> None:
    plain = make_model()
    fuse(plain.network, [1], "late")
    depth = ExtraInput("depth", 1, (5.0,), (2.0,))
    model = Model(plain.network, plain.labels, plain.card, extra_inputs=(depth,), fusion="late")
    tiles = inspect(str(save_model(model, tmp_path / "model")))[0]["tiles"]
    assert tiles["exact"]
    assert tiles["measured"]["scores"] < 1e-4 * tiles["measured"]["spread"]
