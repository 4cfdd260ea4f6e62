from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from others import torchvision_fcn as torchvision_network
from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.network.backbone_card import BackboneCard, read_card
from fullconv.network.fcn import FCN
from fullconv.network.paper import torchvision_fcn
from fullconv.network.paper.weight_files import Weights, download_torchvision_weights

CARD = BackboneCard("torchvision", "fcn_resnet50")


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return torchvision_network(6)


def test_scores_and_labels_are_torchvisions(theirs: nn.Module) -> None:
    net = FCN(CARD, 6, stride=8).eval()
    weights = Weights(Path("file.pth"), theirs.state_dict(), "torch")
    torchvision_fcn.fill_pyramid(net.backbone.pyramid, weights)
    torchvision_fcn.fill_score(net.score["stride8"], weights)
    assert net.backbone.placement == "stretched"
    for size in ((48, 64), (49, 83), (33, 20)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            raw = theirs.classifier(theirs.backbone(images)["out"])
            expected, scores = theirs(images)["out"], net(images)
        scale = float(raw.abs().max())
        torch.testing.assert_close(scores.values, raw, rtol=0, atol=1e-5 * scale)
        torch.testing.assert_close(scores.full(), expected, rtol=0, atol=1e-5 * scale)
        best = expected.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 1e-4 * scale
        assert clear.float().mean() > 0.9
        assert (scores.labels() == expected.argmax(1))[clear].all()
        assert len(scores.labels().unique()) > 1


def test_which_network_weights_are_of(theirs: nn.Module) -> None:
    with torch.device("meta"):
        deeper = torchvision.models.get_model("fcn_resnet101", weights_backbone=None)
        resnet = torchvision.models.resnet50()
    for network, name in ((theirs, "fcn_resnet50"), (deeper, "fcn_resnet101"), (resnet, "")):
        weights = Weights(Path("a"), network.state_dict(), "torch")
        assert torchvision_fcn.identify_architecture(weights) == name
    assert torchvision_fcn.count_classes(Weights(Path("a"), deeper.state_dict(), "torch")) == 21


def test_a_card_with_weights(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save(dict(theirs.state_dict()), tmp_path / "fcn.pth")
    (tmp_path / "card.toml").write_text(
        'source = "torchvision"\nname = "fcn_resnet50"\nweights = "fcn.pth"\n'
    )
    pyramid, _ = torchvision_fcn.build_pyramid(read_card(tmp_path / "card.toml"))
    state = theirs.state_dict()
    for name, tensor in pyramid.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_published_weights_come_with_their_checksum(theirs: nn.Module, publish: Any) -> None:
    requests = publish(theirs.state_dict())
    _, card = torchvision_fcn.build_pyramid(CARD, pretrained=True)
    assert requests == [{"progress": True, "check_hash": True}]
    assert card.pretrained_on == "COCO train2017, the classes of PASCAL VOC"


@pytest.mark.parametrize("problem", [OSError("no route to host"), RuntimeError("invalid hash")])
def test_weights_out_of_reach(problem: Exception, publish: Any) -> None:
    publish(problem)
    with pytest.raises(FullconvError, match="weights of fcn_resnet50 are not on this") as error:
        download_torchvision_weights(CARD, CARD.name)
    assert str(problem) in error.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.conv1.weight": None}, "is missing: backbone.conv1.weight"),
        ({"backbone.conv9.weight": torch.zeros(1)}, "not part of the network: backbone.conv9"),
        ({"classifier.0.weight": torch.zeros(2, 2)}, r"shape: classifier.0.weight \(2, 2\), exp"),
    ],
)
def test_weights_that_do_not_fit(theirs: nn.Module, change: Any, message: str) -> None:
    state = {**theirs.state_dict(), **change}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    pyramid = torchvision_fcn.DilatedPyramid(theirs)
    with pytest.raises(FullconvError, match=message) as error:
        torchvision_fcn.fill_pyramid(pyramid, Weights(Path("dir/file.pth"), state, "torch"))
    assert error.value.message.startswith("file.pth does not fit torchvision's network")


def test_options_that_there_are_not() -> None:
    with pytest.raises(FullconvError, match="fcn_resnet50 has no options; found"):
        FCN(replace(CARD, options={"depth": 3}), 2)
