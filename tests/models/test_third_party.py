from __future__ import annotations

import urllib.error
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from caffe_nets import MEAN_BGR, bilinear, blobs_of_file, scores_of, upsampled
from caffemodel import write_caffemodel
from others import torchvision_fcn as torchvision_network
from PIL import Image
from torch import Tensor, nn

import fullconv as fc
from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.models.model import save_model
from fullconv.models.open import open_model
from fullconv.models.third_party import is_third_party, load_third_party
from fullconv.network.paper import torchvision_fcn

WIDTH = 1 / 16


def photo(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    large = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    noise = rng.integers(-20, 20, large.shape)
    return np.clip(large.astype(int) + noise, 0, 255).astype(np.uint8)


def as_caffe(image: np.ndarray) -> Tensor:
    bgr = image[:, :, ::-1].astype(np.float64) - np.array(MEAN_BGR)
    return torch.from_numpy(bgr.transpose(2, 0, 1).copy())[None]


def assert_labels(found: np.ndarray, wanted: Tensor) -> None:
    """Equal but for near ties; and there is something to see."""
    best = wanted[0].topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4 * wanted.abs().max()).numpy()
    assert clear.mean() > 0.9
    assert len(np.unique(found)) > 1
    assert (found == wanted[0].argmax(0).numpy())[clear].all()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("net", ["32s", "16s", "8s", "8s-atonce", "alexnet"])
def test_a_released_caffemodel_labels_as_caffe_would(
    tmp_path: Path, net: str, legacy: bool
) -> None:
    blobs = blobs_of_file(net)
    path = write_caffemodel(tmp_path / "heavy.caffemodel", blobs, legacy=legacy)
    model = fc.load(path)
    image = photo(59, 77)
    assert_labels(model.label_map(image), scores_of(as_caffe(image), blobs, net))
    assert model.labels.names[:2] == ("background", "aeroplane")
    assert model.labels.colors[15] == (192, 128, 128)  # person
    network = model.model.network
    assert network.upsampling == "bilinear"
    assert (network.border, network.name) == (
        "zeros", {"alexnet": "FCN-32s", "8s-atonce": "FCN-8s"}.get(net, f"FCN-{net}")
    )  # fmt: skip
    assert model.model.card.pretrained_on == "heavy.caffemodel"


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("net", ["32s", "16s", "8s", "8s-atonce"])
def test_pytorch_fcns_weights(tmp_path: Path, net: str, checkpoint: bool) -> None:
    """The same names; whether it is at-once stands in the checkpoint, or in the file's name."""
    blobs = {n: b for n, b in blobs_of_file(net).items() if not n.startswith("scale")}
    state = {
        f"{name}.{part}": blob
        for name, parts in blobs.items()
        for part, blob in zip(("weight", "bias"), parts, strict=False)
    }
    path = tmp_path / f"fcn{net}_from_caffe.pth"
    thing: Any = state
    if checkpoint:
        path = tmp_path / "model_best.pth.tar"
        arch = {"32s": "FCN32s", "16s": "FCN16s", "8s": "FCN8s", "8s-atonce": "FCN8sAtOnce"}[net]
        thing = {"arch": arch, "model_state_dict": state, "best_mean_iu": np.float64(0.6)}
    torch.save(thing, path)
    image = photo(40, 61)
    found = fc.load(path).label_map(image)
    assert_labels(found, scores_of(as_caffe(image), blobs, net))


def test_the_aligned_form_may_be_asked_for(tmp_path: Path) -> None:
    path = write_caffemodel(tmp_path / "a.caffemodel", blobs_of_file("8s-atonce"))
    model = open_model(path, backbone="paper:vgg16-aligned")
    assert [g.offset for g in model.network.backbone.grids] == [3.5, 7.5, 15.5]
    assert model.network.border == "replicate"
    assert model.card.options == {"form": "aligned", "at_once": True, "width": WIDTH}
    original = open_model(path)
    for one, other in zip(
        model.network.state_dict().values(), original.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_learned_upsampling_is_kept(tmp_path: Path) -> None:
    weight = bilinear(21, 4) + 0.05 * torch.randn(21, 21, 4, 4)
    blobs = blobs_of_file("16s", upscore2=[weight])
    model = open_model(write_caffemodel(tmp_path / "a.caffemodel", blobs))
    assert model.network.upsampling == "learned"
    image = as_caffe(photo(40, 61))
    x = nn.functional.conv_transpose2d
    with torch.no_grad():
        scores = model.network(
            model.normalize(torch.from_numpy(photo(40, 61)).permute(2, 0, 1)[None])
        )
        plain = open_model(
            write_caffemodel(tmp_path / "b.caffemodel", blobs_of_file("16s"))
        ).network
        features = plain.backbone(
            model.normalize(torch.from_numpy(photo(40, 61)).permute(2, 0, 1)[None])
        )
        coarse = plain.score["stride32"](features[1])
        up = x(coarse, weight, stride=2)
        fine = plain.score["stride16"](features[0])
        fused = up + fine[:, :, 5 : 5 + up.shape[2], 5 : 5 + up.shape[3]]
        full = upsampled(fused, 32, 16)[:, :, 27 : 27 + 40, 27 : 27 + 61]
    assert image.shape[2:] == full.shape[2:]
    scale = float(full.abs().max())
    torch.testing.assert_close(scores.full(), full, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc7": None}, "missing: fc7.weight (256, 256, 1, 1), fc7.bias (256,)"),
        ({"score_pool4": None}, "missing: score_pool4.weight (21, 32, 1, 1)"),
        (
            {"score_pool3": [torch.zeros(20, 16, 1, 1), torch.zeros(20)]},
            "wrong shape: score_pool3.weight (20, 16, 1, 1), expected (21, 16, 1, 1)",
        ),
        ({"upscore2": [torch.zeros(21, 21, 5, 5)]}, "upscore2.weight (21, 21, 5, 5), expected"),
        ({"upscore99": [torch.zeros(1)]}, "not part of the network: upscore99"),
        ({"score_fr_geo": [torch.zeros(1)]}, "not part of the network: score_fr_geo"),
        ({"scale_pool4": [torch.full((32,), 0.5)]}, "scale_pool4 multiplies by [0.5, 0.5, 0.5]"),
        ({"score_fr": None}, "is not a known segmentation m"),
    ],
)
def test_a_released_file_that_does_not_fit(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_caffemodel(tmp_path / "net.caffemodel", blobs_of_file("8s", **changes))
    with pytest.raises(FullconvError) as caught:
        open_model(path)
    assert message in caught.value.message
    assert caught.value.hint


def test_other_classes(tmp_path: Path) -> None:
    path = write_caffemodel(tmp_path / "a.caffemodel", blobs_of_file("32s", classes=3))
    assert open_model(path).labels.names == ("class 0", "class 1", "class 2")
    labels = Labels(("sky", "road", "tree"))
    assert fc.load(path, labels=labels).labels == labels


@pytest.fixture(scope="module")
def tv_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    network = torchvision_network(21)
    path = tmp_path_factory.mktemp("tv") / "fcn_resnet50_coco.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_torchvisions_model_labels_as_torchvision_does(
    tv_file: tuple[nn.Module, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With its preprocessing (here to a shorter side of 64 pixels, to be quick), read back at the
    image's own size: by name with a file, saved as one of ours, and by the file's content."""
    network, path = tv_file
    monkeypatch.setattr(torchvision_fcn, "SIDE", 64)
    image = photo(41, 60)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    preset = torchvision.transforms._presets.SemanticSegmentation(resize_size=64)
    with torch.no_grad():
        cells = network.classifier(network.backbone(preset(tensor)[None])["out"])  # type: ignore
    wanted = nn.functional.interpolate(cells, (41, 60), mode="bilinear")
    model = fc.load("torchvision:fcn_resnet50", weights=path)
    labels = model.label_map(image)
    assert_labels(labels, wanted)
    assert model.model.card.pretrained_on == "fcn_resnet50_coco.pth"
    names = torchvision.models.segmentation.FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    assert (names[0], model.labels.names[0]) == ("__background__", "background")
    assert model.labels.names[1:] == tuple(names[1:])
    assert np.array_equal(fc.load(model.save(tmp_path / "model")).label_map(image), labels)
    Image.fromarray(image).save(tmp_path / "photo.png")
    words = ["predict", str(path), str(tmp_path / "photo.png"), "--out", str(tmp_path)]
    assert run(words) == 0
    with Image.open(tmp_path / "photo_mask.png") as mask:
        assert np.array_equal(np.asarray(mask), labels)
    assert "1 of 1 image" in capfd.readouterr().out


def test_images_are_resized_as_torchvision_says() -> None:
    for weights in ("FCN_ResNet50_Weights", "FCN_ResNet101_Weights"):
        preset = getattr(torchvision.models.segmentation, weights).DEFAULT.transforms()
        assert preset.resize_size == [torchvision_fcn.SIDE]
        assert preset.mean == [0.485, 0.456, 0.406]
        assert preset.std == [0.229, 0.224, 0.225]


def test_from_the_command_line_and_saved_as_one_of_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo_file = tmp_path / "photo.png"
    Image.fromarray(photo(40, 60)).save(photo_file)
    caffe = write_caffemodel(tmp_path / "fcn8s.caffemodel", blobs_of_file("8s"))
    assert run(["predict", str(caffe), str(photo_file), "--out", str(tmp_path)]) == 0
    saved = save_model(open_model(caffe), tmp_path / "model")
    with Image.open(tmp_path / "photo_mask.png") as mask:
        assert np.array_equal(np.asarray(mask), fc.load(saved).label_map(photo(40, 60)))
    assert run(["inspect", str(caffe)]) == 0
    shown = capfd.readouterr().out
    assert "background, aeroplane" in shown
    assert "pretrained on fcn8s.caffemodel" in shown


def test_evaluating_a_model_of_others(tmp_path: Path) -> None:
    """Against its own labels: 1 exactly; classes by the names of PASCAL VOC."""
    path = write_caffemodel(tmp_path / "fcn8s.caffemodel", blobs_of_file("8s"))
    model = fc.load(path)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        image = photo(40, 60 if split == "train" else 48)
        Image.fromarray(image).save(tmp_path / f"data/images/{split}/{split}.png")
        model(image).save_mask(tmp_path / f"data/masks/{split}/{split}.png")
    names = ", ".join(f'"{name}"' for name in model.labels.names)
    (tmp_path / "data/dataset.toml").write_text(f"classes = [{names}]\n")
    rules = "small-image"
    result = fc.evaluate(str(path), tmp_path / "data", split="val", ignore_rules=rules).to_dict()
    assert result["pixel_accuracy"] == 1
    assert result["protocol"]["pretrained_on"] == "fcn8s.caffemodel"


def test_weights_that_cannot_be_fetched_are_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def get(**_options: Any) -> Any:
        raise urllib.error.URLError("no route to host")

    chosen = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=get))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: chosen)
    assert run(["predict", "torchvision:fcn_resnet50", __file__]) == 1
    said = capfd.readouterr().err
    assert "the pretrained weights of fcn_resnet50 are not on this machine" in said
    assert "try: fullconv predict fcn_resnet50.pth IMAGE" in said


def test_what_is_no_model_is_said(tv_file: tuple[nn.Module, Path], tmp_path: Path) -> None:
    with pytest.raises(FullconvError, match="torchvision:resnet50 is not a segmentation network"):
        open_model("torchvision:resnet50")
    with pytest.raises(FullconvError, match="paper:vgg16 is a network without trained scores"):
        open_model("paper:vgg16")
    with pytest.raises(
        FullconvError, match="contains weights of fcn_resnet50, not of fcn_resnet101"
    ):
        open_model("torchvision:fcn_resnet101", weights=tv_file[1])
    resnet = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(2, 3, 7, 7), "fc.bias": torch.zeros(3)}, resnet)
    with pytest.raises(FullconvError, match="its layers are conv1, fc; expected those of a rel"):
        open_model(resnet)
    with pytest.raises(FullconvError, match="contains no weights of fcn_resnet50"):
        open_model("torchvision:fcn_resnet50", weights=resnet)
    with pytest.raises(FullconvError, match=r"gone\.pth cannot be read: No such file"):
        load_third_party(tmp_path / "gone.pth")


def test_a_model_of_ours_has_its_own_weights(model_folder: Path) -> None:
    assert not is_third_party(model_folder)
    assert not is_third_party(model_folder / "model.safetensors")
    with pytest.raises(FullconvError, match="has its own weights and classes"):
        open_model(model_folder, weights="a.pth")


def test_a_predictor_saves_its_model(tmp_path: Path) -> None:
    path = write_caffemodel(tmp_path / "fcn32s.caffemodel", blobs_of_file("32s"))
    saved = fc.load(path).save(tmp_path / "model")
    found = open_model(saved)
    assert found.card.options == {"form": "original", "width": WIDTH}
    assert found.network.border == "zeros"
    assert found.card.mean == pytest.approx([m / 255 for m in reversed(MEAN_BGR)])


def test_short_side_is_kept(tmp_path: Path, make_model: Any) -> None:
    model = make_model()
    model.short_side = 33
    assert open_model(save_model(model, tmp_path / "model")).short_side == 33
