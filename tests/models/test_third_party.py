"""Models of others: released FCNs, and networks of torchvision."""

from __future__ import annotations

import re
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


def assert_labels(labels: np.ndarray, scores: Tensor) -> None:
    """Compare the labels with the highest scores, except where two scores are nearly equal."""
    best = scores[0].topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4 * scores.abs().max()).numpy()
    assert clear.mean() > 0.9
    assert len(np.unique(labels)) > 1
    assert (labels == scores[0].argmax(0).numpy())[clear].all()


def write_caffe(folder: Path, net: str, **changes: Any) -> Path:
    return write_caffemodel(folder / f"{net}.caffemodel", blobs_of_file(net, **changes))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("net", ["32s", "16s", "8s", "8s-atonce", "alexnet"])
def test_a_released_caffemodel_gives_the_labels_of_caffe(
    tmp_path: Path, net: str, legacy: bool
) -> None:
    blobs, image = blobs_of_file(net), photo(59, 77)
    model = fc.load(write_caffemodel(tmp_path / "heavy.caffemodel", blobs, legacy=legacy))
    assert_labels(model.label_map(image), scores_of(as_caffe(image), blobs, net))
    assert model.labels.names[:2] == ("background", "aeroplane")
    assert model.labels.colors[15] == (192, 128, 128)  # person
    network, card = model.model.network, model.model.card
    name = {"alexnet": "FCN-32s", "8s-atonce": "FCN-8s"}.get(net, f"FCN-{net}")
    assert (network.upsampling, network.border, network.name) == ("bilinear", "zeros", name)
    assert card.pretrained_on == "heavy.caffemodel"
    saved = open_model(model.save(tmp_path / "model"))
    assert saved.network.border == "zeros"
    assert saved.card.options == card.options
    at_once = {"at_once": True} if net == "8s-atonce" else {}
    assert saved.card.options == {"form": "original", "width": WIDTH, **at_once}
    assert saved.card.mean == pytest.approx([m / 255 for m in reversed(MEAN_BGR)])


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("net", ["32s", "16s", "8s", "8s-atonce"])
def test_weights_of_pytorch_fcn(tmp_path: Path, net: str, checkpoint: bool) -> None:
    """The checkpoint or the name of the file tells whether it is at once."""
    blobs = {n: b for n, b in blobs_of_file(net).items() if not n.startswith("scale")}
    content: dict[str, Any] = {
        f"{name}.{part}": blob
        for name, parts in blobs.items()
        for part, blob in zip(("weight", "bias"), parts, strict=False)
    }
    path = tmp_path / f"fcn{net}_from_caffe.pth"
    if checkpoint:
        path = tmp_path / "model_best.pth.tar"
        arch = {"32s": "FCN32s", "16s": "FCN16s", "8s": "FCN8s", "8s-atonce": "FCN8sAtOnce"}[net]
        content = {"arch": arch, "model_state_dict": content, "best_mean_iu": np.float64(0.6)}
    torch.save(content, path)
    image = photo(40, 61)
    assert_labels(fc.load(path).label_map(image), scores_of(as_caffe(image), blobs, net))


def test_the_aligned_form_on_request(tmp_path: Path) -> None:
    path = write_caffe(tmp_path, "8s-atonce")
    model = open_model(path, backbone="paper:vgg16-aligned")
    assert [g.offset for g in model.network.backbone.grids] == [3.5, 7.5, 15.5]
    assert model.network.border == "replicate"
    assert model.card.options == {"form": "aligned", "at_once": True, "width": WIDTH}
    tensors = (m.network.state_dict().values() for m in (model, open_model(path)))
    assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def test_learned_upsampling_is_kept(tmp_path: Path) -> None:
    weight = bilinear(21, 4) + 0.05 * torch.randn(21, 21, 4, 4)
    plain = open_model(write_caffe(tmp_path, "16s")).network
    model = open_model(write_caffe(tmp_path, "16s", upscore2=[weight]))
    assert model.network.upsampling == "learned"
    image = model.normalize(torch.from_numpy(photo(40, 61)).permute(2, 0, 1)[None])
    with torch.no_grad():
        scores = model.network(image)
        features = plain.backbone(image)
        coarse, fine = plain.score["stride32"](features[1]), plain.score["stride16"](features[0])
        up = nn.functional.conv_transpose2d(coarse, weight, stride=2)
        fused = up + fine[:, :, 5 : 5 + up.shape[2], 5 : 5 + up.shape[3]]
        full = upsampled(fused, 32, 16)[:, :, 27 : 27 + 40, 27 : 27 + 61]
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
    path = write_caffe(tmp_path, "8s", **changes)
    with pytest.raises(FullconvError) as caught:
        open_model(path)
    assert message in caught.value.message
    assert caught.value.hint


def test_other_classes(tmp_path: Path) -> None:
    path = write_caffe(tmp_path, "32s", classes=3)
    assert open_model(path).labels.names == ("class 0", "class 1", "class 2")
    labels = Labels(("sky", "road", "tree"))
    assert fc.load(path, labels=labels).labels == labels


@pytest.fixture(scope="module")
def tv_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    network = torchvision_network(21)
    path = tmp_path_factory.mktemp("tv") / "fcn_resnet50_coco.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_torchvisions_model_gives_its_labels(
    tv_file: tuple[nn.Module, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By name with a file, saved by Fullconv, and by the content of the file."""
    network, path = tv_file
    monkeypatch.setattr(torchvision_fcn, "SIDE", 64)  # of the shorter side, to be quick
    image = photo(41, 60)
    preset = torchvision.transforms._presets.SemanticSegmentation(resize_size=64)
    with torch.no_grad():
        tensor = preset(torch.from_numpy(image).permute(2, 0, 1))
        cells = network.classifier(network.backbone(tensor[None])["out"])  # type: ignore
    model = fc.load("torchvision:fcn_resnet50", weights=path)
    labels = model.label_map(image)
    assert_labels(labels, nn.functional.interpolate(cells, (41, 60), mode="bilinear"))
    assert model.model.card.pretrained_on == "fcn_resnet50_coco.pth"
    names = torchvision.models.segmentation.FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    assert (names[0], model.labels.names[0]) == ("__background__", "background")
    assert model.labels.names[1:] == tuple(names[1:])
    assert np.array_equal(fc.load(model.save(tmp_path / "model")).label_map(image), labels)
    assert np.array_equal(predict_mask(path, image, tmp_path), labels)
    assert "1 of 1 image" in capfd.readouterr().out


def predict_mask(model: Path, image: np.ndarray, folder: Path) -> np.ndarray:
    """Return the mask that the command line writes."""
    Image.fromarray(image).save(folder / "photo.png")
    assert run(["predict", str(model), str(folder / "photo.png"), "--out", str(folder)]) == 0
    with Image.open(folder / "photo_mask.png") as mask:
        return np.asarray(mask)


def test_images_are_resized_as_by_torchvision() -> None:
    for weights in ("FCN_ResNet50_Weights", "FCN_ResNet101_Weights"):
        preset = getattr(torchvision.models.segmentation, weights).DEFAULT.transforms()
        assert preset.resize_size == [torchvision_fcn.SIDE]
        assert preset.mean == [0.485, 0.456, 0.406]
        assert preset.std == [0.229, 0.224, 0.225]


def test_a_caffemodel_on_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, image = write_caffe(tmp_path, "8s"), photo(40, 60)
    saved = save_model(open_model(path), tmp_path / "model")
    assert np.array_equal(predict_mask(path, image, tmp_path), fc.load(saved).label_map(image))
    assert run(["inspect", str(path)]) == 0
    printed = capfd.readouterr().out
    assert "background, aeroplane" in printed
    assert "pretrained on 8s.caffemodel" in printed


def test_evaluating_a_third_party_model(tmp_path: Path) -> None:
    """Its own labels are the ground truth; the classes are found by the names of PASCAL VOC."""
    path = write_caffe(tmp_path, "8s")
    model = fc.load(path)
    for split, width in (("train", 60), ("val", 48)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        image = photo(40, width)
        Image.fromarray(image).save(tmp_path / f"data/images/{split}/{split}.png")
        model(image).save_mask(tmp_path / f"data/masks/{split}/{split}.png")
    names = ", ".join(f'"{name}"' for name in model.labels.names)
    (tmp_path / "data/dataset.toml").write_text(f"classes = [{names}]\n")
    rules = "small-image"
    result = fc.evaluate(str(path), tmp_path / "data", split="val", ignore_rules=rules).to_dict()
    assert result["pixel_accuracy"] == 1
    assert result["protocol"]["pretrained_on"] == "8s.caffemodel"


def test_weights_that_cannot_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(**_options: Any) -> Any:
        raise urllib.error.URLError("no route to host")

    weights = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=fail))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
    assert run(["predict", "torchvision:fcn_resnet50", __file__]) == 1
    printed = capfd.readouterr().err
    assert "the pretrained weights of fcn_resnet50 are not on this machine" in printed
    assert "try: fullconv predict fcn_resnet50.pth IMAGE" in printed


def test_files_and_names_that_are_no_model(
    tv_file: tuple[nn.Module, Path], tmp_path: Path, model_folder: Path
) -> None:
    resnet, gone = tmp_path / "resnet.pth", tmp_path / "gone.pth"
    torch.save({"conv1.weight": torch.zeros(2, 3, 7, 7), "fc.bias": torch.zeros(3)}, resnet)
    cases: list[tuple[Any, Any, str]] = [
        ("torchvision:resnet50", None, "torchvision:resnet50 is not a segmentation network"),
        ("paper:vgg16", None, "paper:vgg16 is a network without trained scores"),
        ("torchvision:fcn_resnet101", tv_file[1], "weights of fcn_resnet50, not of fcn_resnet101"),
        (resnet, None, "its layers are conv1, fc; expected those of a released FCN"),
        ("torchvision:fcn_resnet50", resnet, "contains no weights of fcn_resnet50"),
        ("torchvision:fcn_resnet50", gone, "gone.pth cannot be read: No such file"),
        (model_folder, "a.pth", "has its own weights and classes"),
    ]
    for source, weights, message in cases:
        with pytest.raises(FullconvError, match=re.escape(message)):
            open_model(source, weights=weights)
    with pytest.raises(FullconvError, match=r"gone\.pth cannot be read: No such file"):
        load_third_party(gone)


def test_third_party_files_are_recognized_by_their_content(
    tmp_path: Path, model_folder: Path
) -> None:
    assert not is_third_party(model_folder)
    assert not is_third_party(model_folder / "model.safetensors")
    heads = {b"PK": True, b"\x80\x02": True, b"\x80\x04": True, b"\x80\x02\0\0\0\0\0\0{": False}
    for head, is_recognized in heads.items():
        (tmp_path / "weights").write_bytes(head)
        assert is_third_party(tmp_path / "weights") == is_recognized
