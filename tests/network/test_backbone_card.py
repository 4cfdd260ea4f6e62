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


def written(folder: Path, text: str) -> Path:
    path = folder / "card.toml"
    path.write_text(text, encoding="utf-8")
    return path


SHORT = 'source = "timm"\nname = "a"\n'
SMALL = 'source = "timm"\nname = "test_resnet"\nweights = "w.safetensors"\n'


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Those of a small network, in w.safetensors; a copy to change and save again."""
    state = timm.create_model("test_resnet").state_dict()
    generator = torch.Generator().manual_seed(5)
    state = {
        name: torch.rand(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in state.items()
    }
    save_file(state, tmp_path / "w.safetensors")
    return dict(state)


def test_a_short_card_has_the_usual_rest(tmp_path: Path) -> None:
    card = read_card(written(tmp_path, 'source = "timm"\nname = "resnet18"\n'))
    assert card == BackboneCard("timm", "resnet18")
    assert (card.mean, card.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (card.weights, card.missing, card.options) == (None, (), {})


def test_a_full_card(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    text = SMALL + (
        'options = { pad_type = "same" }\nmissing = ["head"]\nmean = [0.5, 0.4, 0.3]\n'
        'std = [1, 1, 1]\npretrained_on = "ImageNet-1k"\nlicense = "MIT"\n'
    )
    card = read_card(str(written(tmp_path, text)))
    assert card.options == {"pad_type": "same"}
    assert card.weights == tmp_path / "w.safetensors"
    assert card.missing == ("head",)
    assert (card.mean, card.std) == ((0.5, 0.4, 0.3), (1, 1, 1))
    assert (card.pretrained_on, card.license) == ("ImageNet-1k", "MIT")


def test_a_model_keeps_the_card_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    card = read_card(written(tmp_path, SMALL + 'missing = ["fc"]\noptions = { a = 1 }'))
    table = json.loads(json.dumps(card.to_dict()))
    assert str(tmp_path) not in json.dumps(table)
    again = BackboneCard.from_dict(table)
    assert again == BackboneCard("timm", "test_resnet", {"a": 1})


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
    path = written(tmp_path, text)
    with pytest.raises(FullconvError, match=message) as caught:
        read_card(path)
    assert str(path) in caught.value.message
    assert caught.value.hint.startswith(hint)


def test_cards_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FullconvError, match=r"no backbone card at .*none\.toml") as caught:
        read_card(tmp_path / "deep" / "none.toml")
    assert caught.value.hint == f"ls {tmp_path}"
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FullconvError, match="is not a TOML file"):
        read_card(tmp_path / "bytes.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(FullconvError, match=r"folder\.toml cannot be read: Is a dir") as caught:
        read_card(tmp_path / "folder.toml")
    assert caught.value.hint == f"ls -ld {tmp_path / 'folder.toml'}"


def test_weights_go_into_the_pyramid(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    backbone = build(written(tmp_path, SMALL), stride=8)
    state = backbone.pyramid.state_dict()
    assert len(state) > 20
    for name, tensor in state.items():
        assert torch.equal(tensor, weights[name]), name


def test_weights_go_into_a_torchvision_network(tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.squeezenet1_1().state_dict()
    save_file({name: t + 1 for name, t in state.items()}, tmp_path / "w.safetensors")
    text = 'source = "torchvision"\nname = "squeezenet1_1"\nweights = "w.safetensors"\n'
    backbone = build(str(written(tmp_path, text)), stride=16)
    loaded = backbone.pyramid.state_dict()
    saved = load_file(tmp_path / "w.safetensors")
    assert len(loaded) > 20
    assert all(torch.equal(t, saved[name]) for name, t in loaded.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, r"1 tensor is missing: layer1\.0\.conv1\.weight"),
        ({"layer9.weight": torch.ones(1)}, r"1 tensor is not part of the network: layer9\.weight"),
        (
            {"fc.bias": torch.ones(7)},
            r"1 tensor has the wrong shape: fc\.bias \(7,\), expected \(1000,\)",
        ),
        (
            {"fc.bias": None, "fc.weight": None, "x": torch.ones(1)},
            r"2 tensors are missing: fc\.weight .*, fc\.bias .*; 1 tensor is not part of the network: x",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, weights: dict[str, torch.Tensor], change: dict[str, Any], message: str
) -> None:
    weights.update(change)
    save_file({n: t for n, t in weights.items() if t is not None}, tmp_path / "w.safetensors")
    with pytest.raises(FullconvError, match=message) as caught:
        build(written(tmp_path, SMALL), stride=8)
    assert caught.value.message.startswith("w.safetensors does not fit timm test_resnet")
    assert ("missing = [" in caught.value.hint) == ("missing:" in message)


def test_what_the_card_lists_may_be_missing(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    kept = {n: t for n, t in weights.items() if not n.startswith(("fc.", "layer4.0.conv1."))}
    save_file(kept, tmp_path / "w.safetensors")
    path = written(tmp_path, SMALL + 'missing = ["fc", "layer4.0.conv1"]')
    state = build(path, stride=8).pyramid.state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor, weights[name]) == (name in kept), name
    # A prefix is a module, not a beginning of a name.
    with pytest.raises(FullconvError, match=r"missing: .*layer4\.0\.conv1\.weight"):
        build(written(tmp_path, SMALL + 'missing = ["fc", "layer4.0.conv"]'), stride=8)


def test_pickles_are_not_read(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, tmp_path / "w.pth")
    path = written(tmp_path, SMALL.replace("w.safetensors", "w.pth"))
    with pytest.raises(FullconvError, match=r"w\.pth is not a \.safetensors file") as caught:
        build(path, stride=8)
    assert "save_file" in caught.value.hint
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.pth").read_bytes())
    with pytest.raises(FullconvError, match=r"w\.safetensors cannot be read"):
        build(written(tmp_path, SMALL), stride=8)


def test_options_that_the_network_does_not_know(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(FullconvError, match=r"test_resnet cannot be built: .*colour"):
        build(written(tmp_path, SMALL + 'options = { colour = "red" }'), stride=8)


def test_no_weights_change_nothing() -> None:
    module = torch.nn.Conv2d(3, 4, 1)
    before = module.weight.clone()
    load_card_weights(module, BackboneCard("timm", "x"))
    assert torch.equal(module.weight, before)


def test_the_mobilenet_card(shared: Path) -> None:
    path = shared / "weights" / "mobilenetv2_100_tf_quant_in1k.toml"
    card = read_card(path)
    assert (card.source, card.name) == ("timm", "mobilenetv2_100")
    assert card.options == {"pad_type": "same", "bn_eps": 1e-3}
    assert card.mean == card.std == (0.5, 0.5, 0.5)
    assert card.license == "Apache-2.0"
    backbone = build(path, stride=8)
    assert card.weights is not None
    saved = load_file(card.weights)
    loaded = backbone.pyramid.state_dict()
    assert len(loaded) > 200
    for name, tensor in loaded.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, saved[name]), name
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert backbone.size_phase == 1
    assert [(g.stride, g.offset) for g in backbone.grids] == [(8, 0), (16, 0), (32, 0)]


def test_the_resnet_card_starts_layer4_fresh(shared: Path) -> None:
    path = shared / "weights" / "resnet18_tv_in1k_stages123.toml"
    card = read_card(path)
    backbone = build(path, stride=8)
    assert card.weights is not None
    saved = load_file(card.weights)
    fresh = []
    for name, tensor in backbone.pyramid.state_dict().items():
        if name in saved:
            assert torch.equal(tensor, saved[name]), name
        elif not name.endswith("num_batches_tracked"):
            fresh.append(name)
    assert fresh
    assert {".".join(name.split(".")[:3]) for name in fresh} == set(card.missing)
    convolutions = [n for n in fresh if ".conv" in n]
    assert len(convolutions) == 4
    state = backbone.pyramid.state_dict()
    assert all(state[name].std() > 0.01 for name in convolutions)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (URLError("no route"), "there is no network, or the host does not answer."),
        (ConnectionResetError(104, "reset"), "there is no network, or the host does not answer."),
        (OSError("disk on fire.\nTraceback ..."), "disk on fire."),
        (RuntimeError(), "RuntimeError."),
    ],
)
def test_weights_out_of_reach_say_why_in_words(error: Exception, said: str) -> None:
    found = unreachable_weights_error(BackboneCard("timm", "resnet18"), error)
    assert found.message == (
        "the pretrained weights of resnet18 are not on this machine and could not be downloaded: "
        + said
    )
