"""The context ablation finds out models that rely on one thing only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluated import write_dataset

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.evaluation import masking_probe
from fullconv.evaluation.masking_probe import CONTENTS, hide, probe, probe_table
from fullconv.evaluation.metrics import Metrics
from fullconv.inference.predictor import Predictor
from fullconv.models.model import Model

LABELS = Labels(("background", "cat", "dog"))
GRAY, RED, BLUE = (120, 110, 100), (250, 10, 10), (10, 10, 250)
FLOORS = {1: (20, 200, 20), 2: (200, 200, 20)}  # under a cat, under a dog
MakeModel = Callable[..., Model]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cats are red squares on green floors, dogs blue on yellow, with an ignored seam."""
    pairs = []
    for number in range(6):
        kind = 1 + number % 2
        image, ids = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
        image[:] = FLOORS[kind]
        place = slice(8 + number, 24 + number), slice(10 + number, 30 + number)
        ids[6 + number : 26 + number, 8 + number : 32 + number] = 255
        ids[place], image[place] = kind, (RED if kind == 1 else BLUE)
        pairs.append((image, ids))
    root = tmp_path_factory.mktemp("animals")
    return write_dataset(root, LABELS.names, val=pairs[:4], train=pairs[4:])


class RulePredictor(Predictor):
    """Predicts by a rule instead of a network."""

    rule: Callable[[np.ndarray], np.ndarray]

    def label_maps(self, image: np.ndarray, extra_inputs: Any = ()) -> list[np.ndarray]:
        return [self.rule(np.asarray(image).astype(int))]


def predictor(make_model: MakeModel, rule: Callable[[np.ndarray], np.ndarray]) -> RulePredictor:
    model = RulePredictor(make_model(LABELS.names), device="cpu", precision="float32")
    model.rule = rule
    return model


def by_color(image: np.ndarray) -> np.ndarray:
    red, blue = (np.abs(image - color).sum(axis=-1) < 30 for color in (RED, BLUE))
    return np.where(red, 1, np.where(blue, 2, 0))


def by_floor(image: np.ndarray) -> np.ndarray:
    """Whatever is no floor is the animal of that floor."""
    on = {k: (np.abs(image - color).sum(axis=-1) < 30) for k, color in FLOORS.items()}
    kind = 1 if on[1].sum() > on[2].sum() else 2 if on[2].any() else 0
    return np.where(on[1] | on[2], 0, kind)


@pytest.mark.parametrize(
    ("rule", "expected"), [(by_color, (1.0, 1.0, 0.0, 0.0)), (by_floor, (1.0, 0.0, 1.0, 0.0))]
)
def test_what_a_model_relies_on(
    make_model: MakeModel,
    data: Path,
    rule: Callable[[np.ndarray], np.ndarray],
    expected: tuple[float, ...],
) -> None:
    steps: list[tuple[int, int]] = []
    result = probe(predictor(make_model, rule), data, progress=lambda *step: steps.append(step))
    assert tuple(result.mean_iou(content) for content in CONTENTS) == expected
    assert steps == [(k + 1, 16) for k in range(16)]
    facts = result.to_dict()
    assert facts["things"] == ["cat", "dog"]
    assert tuple(facts[content]["foreground_mean_iou"] for content in CONTENTS) == expected


def test_hidden_pixels_have_the_mean_color_and_shapes_are_black() -> None:
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    truth = np.array([[0, 1, 2, 255], [0, 0, 2, np.iinfo(np.int32).max]])
    is_object = np.array([False, True, True])
    shown = {s: hide(image, truth, is_object=is_object, content=s, color=GRAY) for s in CONTENTS}
    objects = (truth == 1) | (truth == 2)
    for content, visible, inside in (
        ("everything", np.ones_like(objects), image),
        ("foreground", objects, image),
        ("background", truth == 0, image),
        ("shape", objects, np.zeros_like(image)),
    ):
        assert (shown[content][visible] == inside[visible]).all()
        assert (shown[content][~visible] == GRAY).all()
    assert image.max() == 23  # unchanged


def test_the_mean_is_over_the_objects_that_occur(make_model: MakeModel, data: Path) -> None:
    result = probe(predictor(make_model, by_color), data, foreground=["cat"])
    assert result.foreground == ("cat",)
    confusion = np.asarray(result.evaluations["background"].metrics.confusion)
    assert confusion[2, 0] == 0  # dogs are background now, and visible there
    everything = result.evaluations["everything"]
    no_dog = np.zeros((3, 3), int)
    no_dog[0, 0] = no_dog[0, 2] = no_dog[1, 1] = 10  # but some predicted as dog
    object.__setattr__(everything, "metrics", Metrics(LABELS.names, no_dog))
    object.__setattr__(result, "foreground", ("cat", "dog"))
    assert result.mean_iou("everything") == 1.0


def test_the_table(make_model: MakeModel, data: Path) -> None:
    lines = probe_table(probe(predictor(make_model, by_floor), data)).splitlines()
    assert lines[1].split() == ["whole", "images", "100.0%", "100%"]
    assert lines[3].split() == ["context", "only", "100.0%", "100%"]
    assert lines[-1].split() == ["dog", "100.0%", "0.0%", "100.0%", "0.0%"]


@pytest.mark.parametrize(
    ("foreground", "message"),
    [
        ([], "all of sky, road, tree would be foreground; none is named background"),
        (["car"], "no class 'car'; it has sky, road, tree"),
        (["sky", "road", "tree"], "would be foreground"),
    ],
)
def test_object_classes_that_cannot_be(
    make_model: MakeModel, data: Path, foreground: list[str], message: str
) -> None:
    model = make_model(("sky", "road", "tree"))
    with pytest.raises(FullconvError, match=message) as caught:
        probe(Predictor(model), data, foreground=foreground)
    assert caught.value.hint.startswith("--foreground tree")


def test_models_that_cannot_be_probed(
    make_model: MakeModel, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_depth = predictor(make_model, by_color)
    object.__setattr__(with_depth.model, "extra_inputs", [SimpleNamespace(name="depth")])
    with pytest.raises(FullconvError, match="needs depth in addition to images"):
        probe(with_depth, data)
    monkeypatch.setattr(masking_probe, "load", lambda *_, **__: object())
    with pytest.raises(FullconvError, match=r"model.onnx is an exported model") as caught:
        probe("model.onnx", data)
    assert "with the model that was exported" in caught.value.hint
