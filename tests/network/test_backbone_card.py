"""Backbone cards: reading, errors, and the weights that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from fullconv.core.errors import FullconvError
from fullconv.network.backbone import build
from fullconv.network.backbone_card import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneCard,
    read_card,
    unreachable_weights_error,
)
from fullconv.network.paper.weight_files import load_card_weights

SHORT = 'source = "timm"\nname = "a"\n'
SMALL = 'source = "timm"\nname = "test_resnet"\nweights = "w.safetensors"\n'


def write_card(folder: Path, text: str) -> Path:
    path = folder / "card.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights of a small network, saved as w.safetensors; a copy to change and save again."""
    state = dict(timm.create_model("test_resnet").state_dict())
    generator = torch.Generator().manual_seed(5)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = torch.rand(tensor.shape, generator=generator)
    save_file(state, tmp_path / "w.safetensors")
    return state


def test_reading_a_card_and_storing_it_in_a_model(tmp_path: Path) -> None:
    short = read_card(write_card(tmp_path, 'source = "timm"\nname = "resnet18"\n'))
    assert short == BackboneCard("timm", "resnet18")
    assert (short.mean, short.std) == (IMAGENET_MEAN, IMAGENET_STD)
    (tmp_path / "w.safetensors").touch()
    text = SMALL + (
        'options = { pad_type = "same" }\nmissing = ["head"]\nmean = [0.5, 0.4, 0.3]\n'
        'std = [1, 1, 1]\npretrained_on = "ImageNet-1k"\nlicense = "MIT"\n'
    )
    card = read_card(str(write_card(tmp_path, text)))
    assert (card.options, card.missing) == ({"pad_type": "same"}, ("head",))
    assert card.weights == tmp_path / "w.safetensors"
    assert (card.mean, card.std) == ((0.5, 0.4, 0.3), (1, 1, 1))
    assert (card.pretrained_on, card.license) == ("ImageNet-1k", "MIT")
    # A model keeps everything but the weights' path.
    table = json.loads(json.dumps(card.to_dict()))
    assert str(tmp_path) not in json.dumps(table)
    restored = BackboneCard.from_dict(table)
    assert (restored.weights, restored.missing) == (None, ())
    assert restored.to_dict() == card.to_dict()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("source = timm", "is not a TOML file: ", "source = "),
        ('name = "resnet18"', "lacks source", "source = "),
        ("mean = [0, 0, 0]", "lacks name, source", "source = "),
        ('name = "a"\nweight = "b"', r"unknown keys: weight\. .*weights", "source = "),
        (f"{SHORT}mean = [0.5]", "mean has 1 numbers, expected 3", "mean = [0.5, 0.5, 0.5]"),
        (f"{SHORT}std = [1, 1, 1, 1]", "std has 4 numbers, expected 3", "std = [0.5, 0.5, 0.5]"),
        (f"{SHORT}mean = 0.5", "mean is 0.5, expected a list", "mean = [0.5, 0.5, 0.5]"),
        (f"{SHORT}missing = 'fc'", "missing is 'fc', expected a list", 'missing = ["fc"]'),
        (f"{SHORT}weights = 'b.safetensors'", "b.safetensors, which do not exist", "weights = "),
    ],
)
def test_mistakes_in_a_card_are_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write_card(tmp_path, text)
    with pytest.raises(FullconvError, match=message) as caught:
        read_card(path)
    assert str(path) in caught.value.message
    assert caught.value.hint.startswith(hint)


def test_unreadable_cards(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    for name, message, hint in (
        ("deep/none.toml", r"no backbone card at .*none\.toml", f"ls {tmp_path}"),
        ("bytes.toml", "is not a TOML file", "source = "),
        ("folder.toml", "cannot be read: Is a dir", f"ls -ld {tmp_path / 'folder.toml'}"),
    ):
        with pytest.raises(FullconvError, match=message) as caught:
            read_card(tmp_path / name)
        assert caught.value.hint.startswith(hint)


def test_weights_are_loaded_into_the_pyramid(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    import torchvision

    pyramid = build(write_card(tmp_path, SMALL), stride=8).pyramid.state_dict()
    assert len(pyramid) > 20
    assert all(torch.equal(tensor, weights[name]) for name, tensor in pyramid.items())
    state = torchvision.models.squeezenet1_1().state_dict()
    saved = {name: tensor + 1 for name, tensor in state.items()}
    save_file(saved, tmp_path / "w.safetensors")
    text = 'source = "torchvision"\nname = "squeezenet1_1"\nweights = "w.safetensors"\n'
    pyramid = build(str(write_card(tmp_path, text)), stride=16).pyramid.state_dict()
    assert len(pyramid) > 20
    assert all(torch.equal(tensor, saved[name]) for name, tensor in pyramid.items())
    module = torch.nn.Conv2d(3, 4, 1)
    before = module.weight.clone()
    load_card_weights(module, BackboneCard("timm", "x"))  # a card without weights
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, r"1 tensor is missing: layer1\.0\.conv1\.weight"),
        ({"layer9.weight": torch.ones(1)}, r"1 tensor is not part of the network: layer9\.weight"),
        ({"fc.bias": torch.ones(7)}, r"1 tensor has the wrong shape: fc\.bias \(7,\), exp.*1000,"),
        (
            {"fc.bias": None, "fc.weight": None, "x": torch.ones(1)},
            r"2 tensors are missing: fc\.weight .*, fc\.bias .*; 1 tensor is not part of .*: x",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, weights: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    weights.update(change)
    save_file({n: t for n, t in weights.items() if t is not None}, tmp_path / "w.safetensors")
    with pytest.raises(FullconvError, match=message) as caught:
        build(write_card(tmp_path, SMALL), stride=8)
    assert caught.value.message.startswith("w.safetensors does not fit timm test_resnet")
    assert ("missing = [" in caught.value.hint) == ("missing:" in message)


def test_listed_modules_may_be_missing(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    saved = {n: t for n, t in weights.items() if not n.startswith(("fc.", "layer4.0.conv1."))}
    save_file(saved, tmp_path / "w.safetensors")
    path = write_card(tmp_path, SMALL + 'missing = ["fc", "layer4.0.conv1"]')
    for name, tensor in build(path, stride=8).pyramid.state_dict().items():
        assert torch.equal(tensor, weights[name]) == (name in saved), name
    # A prefix is a module, not the beginning of a name.
    with pytest.raises(FullconvError, match=r"missing: .*layer4\.0\.conv1\.weight"):
        build(write_card(tmp_path, SMALL + 'missing = ["fc", "layer4.0.conv"]'), stride=8)


def test_pickles_and_unknown_options_are_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(FullconvError, match=r"test_resnet cannot be built: .*hue"):
        build(write_card(tmp_path, SMALL + 'options = { hue = "red" }'), stride=8)
    torch.save(weights, tmp_path / "w.pth")
    path = write_card(tmp_path, SMALL.replace("w.safetensors", "w.pth"))
    with pytest.raises(FullconvError, match=r"w\.pth is not a \.safetensors file") as caught:
        build(path, stride=8)
    assert "save_file" in caught.value.hint
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.pth").read_bytes())
    with pytest.raises(FullconvError, match=r"w\.safetensors cannot be read"):
        build(write_card(tmp_path, SMALL), stride=8)


def test_real_cards(shared: Path) -> None:
    path = shared / "weights" / "mobilenetv2_100_tf_quant_in1k.toml"
    card, backbone = read_card(path), build(path, stride=8)
    assert (card.source, card.name, card.license) == ("timm", "mobilenetv2_100", "Apache-2.0")
    assert card.options == {"pad_type": "same", "bn_eps": 1e-3}
    assert card.mean == card.std == (0.5, 0.5, 0.5)
    saved, loaded = load_file(card.weights), backbone.pyramid.state_dict()
    assert len(loaded) > 200
    for name, tensor in loaded.items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, saved[name]), name
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert backbone.size_phase == 1
    assert [(g.stride, g.offset) for g in backbone.grids] == [(8, 0), (16, 0), (32, 0)]
    # The other card lacks layer4, which is initialized.
    path = shared / "weights" / "resnet18_tv_in1k_stages123.toml"
    card, state = read_card(path), build(path, stride=8).pyramid.state_dict()
    saved = load_file(card.weights)
    assert all(torch.equal(tensor, saved[n]) for n, tensor in state.items() if n in saved)
    fresh = [n for n in state if n not in saved and not n.endswith("num_batches_tracked")]
    assert {".".join(name.split(".")[:3]) for name in fresh} == set(card.missing)
    convolutions = [name for name in fresh if ".conv" in name]
    assert len(convolutions) == 4
    assert all(state[name].std() > 0.01 for name in convolutions)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("no route"), "there is no network, or the host does not answer."),
        (ConnectionResetError(104, "reset"), "there is no network, or the host does not answer."),
        (OSError("disk on fire.\nTraceback ..."), "disk on fire."),
        (RuntimeError(), "RuntimeError."),
    ],
)
def test_why_weights_are_unreachable(error: Exception, reason: str) -> None:
    assert unreachable_weights_error(BackboneCard("timm", "resnet18"), error).message == (
        "the pretrained weights of resnet18 are not on this machine and could not be downloaded: "
        + reason
    )
