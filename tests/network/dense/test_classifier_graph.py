"""What of a classifier stays closed, what is opened, and where its feature maps end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sliding import CHANNELS, WINDOW, Made, trunk
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.dense.classifier_graph import Recorder, trace_classifier, trace_output

SIZE = (WINDOW, WINDOW)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Branching(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(x) if x.sum() > -1e9 else x


def average() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3))


def kinds(classifier: nn.Module) -> list[str]:
    opened = trace_classifier(classifier, WINDOW, "it")
    return [
        str(node.target) if node.op == "call_module" else node.op
        for node in opened.network.graph.nodes
    ]


def test_modules_that_hand_on_maps_stay_closed() -> None:
    made = Made(average())
    assert kinds(made) == [
        "placeholder",
        "features",
        "call_function",  # the pooling
        "call_method",  # flatten
        "end.2",
        "output",
    ]
    opened = trace_classifier(made, WINDOW, "it")
    assert opened.borders == ["features"]
    assert opened.values["features"].shape == (1, CHANNELS, 5, 5)
    assert opened.trunk == {"x", "features"}


def test_a_gate_belongs_to_the_trunk_wherever_it_is_written() -> None:
    closed = Made(nn.Sequential(Gate(), average()))
    assert "end.0" in kinds(closed)
    assert trace_classifier(closed, WINDOW, "it").borders == ["end_0"]

    class Written(Made):
        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
            return self.end(x)  # type: ignore[operator, no-any-return]

    opened = trace_classifier(Written(average()), WINDOW, "it")
    assert opened.borders == ["mul"]
    assert {"mean", "sigmoid", "mul"} <= opened.trunk


def test_a_trunk_that_decides_by_what_it_computes_stays_closed() -> None:
    made = Made(average())
    made.features = Branching(trunk())
    assert "features" in kinds(made)


def test_an_end_that_does_so_stays_closed_too() -> None:
    assert "end" in kinds(Made(Branching(average())))


def test_pooling_of_a_fixed_size_is_opened_where_it_pools_the_whole_map() -> None:
    end = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS, 3))
    made = Made(end)
    made.features = nn.Sequential(trunk(), nn.AvgPool2d(5))
    opened = trace_classifier(made, WINDOW, "it")
    assert opened.borders == ["features_0"]
    halved = Made(nn.Sequential(nn.Flatten(), nn.Linear(4 * CHANNELS, 3)))
    halved.features = nn.Sequential(trunk(), nn.AvgPool2d(2))
    assert trace_classifier(halved, WINDOW, "it").borders == ["features"]


def test_modules_that_change_the_list_that_they_are_given() -> None:
    class Pair(nn.Module):
        def forward(self, x: list[Tensor]) -> list[Tensor]:
            x[0] = x[0] + 1
            return x

    class Branches(Made):
        def __init__(self) -> None:
            super().__init__(average())
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            return self.end(self.pair([x, x * 2])[0])  # type: ignore[operator, no-any-return]

    made = Branches().eval()
    opened = trace_classifier(made, WINDOW, "it")
    image = torch.randn(1, 3, *SIZE)
    noted: dict[str, Any] = {}
    assert torch.equal(Recorder(opened.network, noted, ["features"]).run(image), made(image))
    assert list(noted) == ["features"]
    assert torch.equal(noted["features"], made.features(image))


@pytest.mark.parametrize(
    ("classifier", "message", "hint"),
    [
        (trunk(), "it returns (1, 6, 5, 5) for one image; a classifier returns scores", "fc."),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
            "it does not run on an image of 21 x",
            "fc",
        ),
        (
            Branching(Made(average())),
            "it cannot be convolutionalized: the control flow of its forward depends on tensors",
            "move `if`",
        ),
    ],
)
def test_errors(classifier: nn.Module, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        trace_classifier(classifier, WINDOW, "it")
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)


def test_a_dictionary_is_no_row_of_scores() -> None:
    class Named(Made):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x)}

    with pytest.raises(FullconvError, match="it returns dict for one image"):
        trace_classifier(Named(average()), WINDOW, "it")


def test_networks_that_make_tensors_of_their_own_are_run_for_real() -> None:
    class Ones(Made):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * torch.ones(1, 3, 1, 1))

    assert trace_output(Ones(average()), SIZE, "it").shape == (1, 3)
    assert trace_classifier(Ones(average()), WINDOW, "it").borders == ["features"]


def test_the_classifier_stays_as_it_was() -> None:
    made = Made(average())
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    trace_classifier(made, WINDOW, "it")
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert [type(layer) for layer in made.end] == [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]  # type: ignore[union-attr]
    assert all(not module._forward_hooks for module in made.modules())
