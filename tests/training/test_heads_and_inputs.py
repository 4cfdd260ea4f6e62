"""Training runs with additional heads and extra inputs."""

import shutil
from dataclasses import replace

import cards
import numpy as np
import pytest
import torch

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.core.settings import Settings
from fullconv.data.check.check import check
from fullconv.data.layouts.extra_folders import with_channel_statistics, with_extra_inputs
from fullconv.evaluation.masking_probe import probe
from fullconv.models.model import Model, load_model, save_model
from fullconv.training.initial_model import build_initial_model
from fullconv.training.train import train


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Cards with materials, order and depth."""
    return cards.write(tmp_path_factory.mktemp("cards") / "cards", sized=True, train=8, val=3)


@pytest.fixture(scope="module", params=["early", "late"])
def fused(request, both, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("fused") / "run"
    options = {**small, "epochs": 2, "heads": "order", "extra_inputs": "depth"}
    return train(both, out=out, fusion=request.param, **options)


def tensor(image, depth):
    colors = torch.from_numpy(image).permute(2, 0, 1).float()
    return torch.cat([colors, torch.from_numpy(depth.astype(np.float32))[None]])[None]


def test_they_are_trained_evaluated_and_resumed(fused, both):
    assert fused.metrics["heads"]["order"]["per_class_iou"].keys() == {"wall", "far", "near"}
    model = fc.load(fused.model, device="cpu")
    assert model.model.heads["order"].names == cards.ORDER.names
    again = fc.evaluate(model, both, split="val").to_dict()
    assert again == {name: value for name, value in fused.metrics.items() if name != "epoch"}
    assert train(resume=fused.folder, quiet=True).metrics == fused.metrics
    sheets = {path.stem for path in (fused.folder / "images").glob("*.png")}
    assert sheets == {"batches", "epoch_0001", "epoch_0002"}
    # Each head is scored against its own masks, by definition.
    exact = fc.load(fused.model, device="cpu", precision="float32")
    counts = np.zeros((3, 3), int)
    for k in range(3):
        _, _, order, _ = cards.scene(100_000 + k, sized=True)
        name = f"val/card_{k:03}.png"
        result = exact(both / "images" / name, extra_inputs=[both / "depth" / name])
        np.add.at(counts, (order, result.heads["order"].mask), 1)
    assert counts.tolist() == fused.metrics["heads"]["order"]["confusion"]


def test_the_depth_matters_and_must_be_there(fused, both, tmp_path):
    model = fc.load(fused.model, device="cpu")
    image, _, _, depth = cards.scene(3, sized=True)
    near, far = (model.runtime.scores(tensor(image, z)).values for z in (depth, depth * 3))
    assert not torch.equal(near, far)
    photo = both / "images/val/card_000.png"
    bare = shutil.copytree(both, tmp_path / "bare")
    shutil.rmtree(bare / "depth")
    for call in (
        lambda: model(photo),
        lambda: model(photo, extra_inputs=[np.zeros((96, 96), np.uint16)]),
        lambda: model([np.zeros((9, 9, 3), np.uint8)], extra_inputs=[tmp_path]),
        lambda: fc.evaluate(model, bare, split="val"),
        lambda: probe(model, both),
    ):
        with pytest.raises(FullconvError):
            call()
    # Heads without masks are not scored; the folder of the depth may have another name.
    shutil.rmtree(bare / "order")
    shutil.copytree(both / "depth", bare / "d")
    result = fc.evaluate(model, bare, split="val", extra_inputs="d")
    assert (result.heads, result.left_out) == ({}, ("order",))
    assert result.to_dict()["confusion"] == fused.metrics["confusion"]


def test_a_model_of_images_can_be_extended_by_depth(both, fit):
    plain = fit(both, epochs=1)
    report = check(both)
    dataset = with_channel_statistics(with_extra_inputs(report.dataset, ["depth"]))
    options = {"backbone": "test_resnet", "pretrained": False, "fusion": "late"}
    settings = Settings(init_from=str(plain.model), **options)
    late = build_initial_model(replace(report, dataset=dataset), settings)
    earlier = load_model(plain.model)
    image, _, _, depth = cards.scene(0, sized=True)
    batch = late.normalize(tensor(image, depth))
    scores = late.network.eval()(batch).values
    gray = batch[:, 3:].expand(-1, 3, -1, -1)
    expected = (earlier.network(batch[:, :3]).values + earlier.network(gray).values) / 2
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_a_model_with_extra_inputs_keeps_them(fused, both, fit):
    fusion = load_model(fused.model).fusion
    options = {"heads": "order", "init_from": str(fused.model), "epochs": 1}
    with pytest.raises(FullconvError, match=f"extra inputs depth, by {fusion} fusion") as caught:
        fit(both, "no", **options)
    assert caught.value.hint == f"--extra-inputs depth --fusion {fusion}"
    run = fit(both, extra_inputs="depth", fusion=fusion, stride=4, **options)
    facts = load_model(run.model).training
    assert facts["unchanged_at_start"] > 0.95  # finer strides are padded less, at the border


@pytest.mark.parametrize("option", [{"placement": "half_pixel"}, {"border": "zeros"}])
def test_cells_stay_where_they_are_in_the_model_to_start_from(option, both, tmp_path):
    torch.manual_seed(0)
    network = fc.FCN("test_resnet", len(cards.MATERIALS), stride=16, **option).eval()
    torch.nn.init.normal_(network.score["stride16"].weight)
    earlier = Model(network, cards.MATERIALS, network.backbone.card)
    start = str(save_model(earlier, tmp_path / "model"))
    settings = Settings(backbone="test_resnet", pretrained=False, stride=16, init_from=start)
    model = build_initial_model(check(both), settings)
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        ours, expected = (net.eval()(images).full() for net in (model.network, network))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
