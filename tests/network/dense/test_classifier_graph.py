"""Which modules of a classifier stay closed, which are opened, and where its feature maps end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sliding import CHANNELS, WINDOW, Small, trunk
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.dense.classifier_graph import (
    ClassifierGraph,
    Recorder,
    trace_classifier,
    trace_output,
)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Branching(nn.Module):
    """Control flow that depends on tensors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) if x.sum() > -1e9 else x


class Written(Small):
    """A gate in the classifier's own forward."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x * torch.sigmoid(x.mean((2, 3), keepdim=True)))


class OwnTensors(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.ones(1, 3, 1, 1))


def average(channels: int = CHANNELS) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


def flat(cells: int) -> Small:
    return Small(nn.Sequential(nn.Flatten(), nn.Linear(cells * CHANNELS, 3)))


def graph_of(classifier: nn.Module, features: nn.Module | None = None) -> ClassifierGraph:
    if features is not None:
        classifier.features = features
    return trace_classifier(classifier, WINDOW, "it")


def nodes(graph: ClassifierGraph) -> list[str]:
    return [str(n.target) if n.op == "call_module" else n.op for n in graph.network.graph.nodes]


def test_modules_that_return_maps_stay_closed_and_the_classifier_is_unchanged() -> None:
    classifier = Small(average())
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    graph = graph_of(classifier)
    pooling, flatten = "call_function", "call_method"
    assert nodes(graph) == ["placeholder", "features", pooling, flatten, "head.2", "output"]
    assert (graph.borders, graph.backbone) == (["features"], {"x", "features"})
    assert graph.values["features"].shape == (1, CHANNELS, 5, 5)
    assert all(torch.equal(t, before[name]) for name, t in classifier.state_dict().items())
    assert not any(module._forward_hooks for module in classifier.modules())


@pytest.mark.parametrize(
    ("classifier", "features", "borders", "node"),
    [
        (Small(nn.Sequential(Gate(), average())), None, "head_0", "head.0"),
        (Written(average()), None, "mul", "features"),
        (Small(average()), Branching(trunk()), "features", "features"),
        (Small(Branching(average())), None, "features", "head"),
        (OwnTensors(average()), None, "features", "features"),
        # Pooling of a fixed size belongs to the head if it pools the whole map.
        (flat(1), nn.Sequential(trunk(), nn.AvgPool2d(5)), "features_0", "features.0"),
        (flat(4), nn.Sequential(trunk(), nn.AvgPool2d(2)), "features", "features"),
    ],
)
def test_where_the_trunk_ends(
    classifier: nn.Module, features: nn.Module | None, borders: str, node: str
) -> None:
    graph = graph_of(classifier, features)
    assert graph.borders == [borders]
    assert node in nodes(graph)
    if isinstance(classifier, Written):
        assert {"mean", "sigmoid", "mul"} <= graph.backbone
    assert trace_output(classifier, (WINDOW, WINDOW), "it").shape == (1, 3)


def test_modules_that_change_their_list_argument() -> None:
    class Pair(nn.Module):
        def forward(self, x: list[Tensor]) -> list[Tensor]:
            x[0] = x[0] + 1
            return x

    class Branches(Small):
        def __init__(self) -> None:
            super().__init__(average())
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            return self.head(self.pair([x, x * 2])[0])

    classifier = Branches().eval()
    graph = graph_of(classifier)
    image = torch.randn(1, 3, WINDOW, WINDOW)
    values: dict[str, Any] = {}
    scores = Recorder(graph.network, values, ["features"]).run(image)
    assert torch.equal(scores, classifier(image))
    assert list(values) == ["features"]
    assert torch.equal(values["features"], classifier.features(image))


class Named(Small):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


@pytest.mark.parametrize(
    ("classifier", "message", "hint"),
    [
        (trunk(), "it returns (1, 6, 5, 5) for one image; a classifier returns scores", "fc."),
        (Named(average()), "it returns dict for one image", "fc."),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
            "it does not run on an image of 21 x 21 pixels",
            "fc.",
        ),
        (
            Branching(Small(average())),
            "it cannot be convolutionalized: the control flow of its forward depends on tensors",
            "move `if`",
        ),
    ],
)
def test_errors(classifier: nn.Module, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        graph_of(classifier)
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)
