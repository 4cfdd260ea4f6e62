"""What a model lives on: models that live on one thing only must be found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.evaluation.masking_probe import SHOWN, hide, probe, probe_table
from fullconv.evaluation.metrics import Metrics
from fullconv.inference.predictor import Predictor

LABELS = Labels(("background", "cat", "dog"))
THING = np.array([False, True, True])
GREY, RED, BLUE = (120, 110, 100), (250, 10, 10), (10, 10, 250)
FLOORS = {1: (20, 200, 20), 2: (200, 200, 20)}  # under a cat, under a dog


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Cats are red squares on green floors, dogs blue ones on yellow floors, with an unlabelled
    seam around them."""
    for folder in ("images/val", "masks/val", "images/train", "masks/train"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(6):
        kind = 1 + number % 2
        photo, ids = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
        photo[:] = FLOORS[kind]
        place = slice(8 + number, 24 + number), slice(10 + number, 30 + number)
        ids[6 + number : 26 + number, 8 + number : 32 + number] = 255
        ids[place], photo[place] = kind, (RED if kind == 1 else BLUE)
        split = "val" if number < 4 else "train"
        Image.fromarray(photo).save(tmp_path / f"images/{split}/{number}.png")
        Image.fromarray(ids).save(tmp_path / f"masks/{split}/{number}.png")
    (tmp_path / "dataset.toml").write_text('classes = ["background", "cat", "dog"]\n')
    return tmp_path


class Seer(Predictor):
    """Labels by a rule in place of a network."""

    def label_maps(self, image: np.ndarray, extra_inputs: Any = ()) -> list[np.ndarray]:
        return [self.rule(np.asarray(image).astype(int))]  # type: ignore[attr-defined]


def seer(make_model, rule) -> Seer:
    made = Seer(make_model(LABELS.names), device="cpu", precision="float32")
    made.rule = rule  # type: ignore[attr-defined]
    return made


def by_colour(image: np.ndarray) -> np.ndarray:
    red, blue = (np.abs(image - color).sum(axis=-1) < 30 for color in (RED, BLUE))
    return np.where(red, 1, np.where(blue, 2, 0))


def by_floor(image: np.ndarray) -> np.ndarray:
    """Whatever is no floor is what stands on such a floor."""
    on = {k: (np.abs(image - color).sum(axis=-1) < 30) for k, color in FLOORS.items()}
    kind = 1 if on[1].sum() > on[2].sum() else 2 if on[2].any() else 0
    return np.where(on[1] | on[2], 0, kind)


def test_one_that_knows_things_by_their_colour_needs_no_background(make_model, data) -> None:
    result = probe(seer(make_model, by_colour), data)
    values = {shown: result.mean_iou(shown) for shown in SHOWN}
    assert values == {"everything": 1.0, "foreground": 1.0, "background": 0.0, "shape": 0.0}


def test_one_that_lives_on_context_is_found_out(make_model, data) -> None:
    result = probe(seer(make_model, by_floor), data)
    values = {shown: result.mean_iou(shown) for shown in SHOWN}
    assert values["background"] == values["everything"] == 1.0
    assert values["foreground"] == values["shape"] == 0.0


def test_what_is_hidden_has_the_mean_colour_and_things_become_black() -> None:
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    truth = np.array([[0, 1, 2, 255], [0, 0, 2, np.iinfo(np.int32).max]])
    show = {shown: hide(image, truth, is_object=THING, shown=shown, color=GREY) for shown in SHOWN}
    things, unlabelled = (truth == 1) | (truth == 2), truth > 2
    assert (show["everything"] == image).all()
    assert (show["foreground"][things] == image[things]).all()
    assert (show["foreground"][~things] == GREY).all()
    assert (show["background"][truth == 0] == image[truth == 0]).all()
    assert (show["background"][truth != 0] == GREY).all()
    assert (show["shape"][things] == 0).all()
    assert (show["shape"][~things] == GREY).all()
    assert (show["background"][unlabelled] == GREY).all()
    assert image.max() == 23  # untouched


def test_the_mean_is_over_the_foreground_that_occurs(make_model, data) -> None:
    result = probe(seer(make_model, by_colour), data, foreground=["cat"])
    assert result.foreground == ("cat",)
    confusion = np.asarray(result.evaluations["background"].metrics.confusion)
    assert confusion[2, 0] == 0  # dogs count as background now, and are seen there
    one = result.evaluations["everything"]
    lacking = np.zeros((3, 3), int)
    lacking[0, 0] = lacking[0, 2] = lacking[1, 1] = 10  # no dog, but some called so
    object.__setattr__(one, "metrics", Metrics(LABELS.names, lacking))
    object.__setattr__(result, "foreground", ("cat", "dog"))
    assert result.mean_iou("everything") == 1.0


def test_the_table_names_the_four(make_model, data) -> None:
    lines = probe_table(probe(seer(make_model, by_floor), data)).splitlines()
    assert lines[1].split() == ["whole", "images", "100.0", "100%"]
    assert lines[3].split() == ["background", "alone", "100.0", "100%"]
    assert lines[-1].split() == ["dog", "100.0", "0.0", "100.0", "0.0"]


def test_progress_goes_over_all_four(make_model, data) -> None:
    seen: list[tuple[int, int]] = []
    probe(seer(make_model, by_colour), data, progress=lambda *step: seen.append(step))
    assert seen == [(k + 1, 16) for k in range(16)]


def test_without_a_background_one_must_say_what_things_are(make_model, data) -> None:
    model = make_model(("sky", "road", "tree"))
    with pytest.raises(FullconvError, match="none is called background") as caught:
        probe(Predictor(model), data)
    assert caught.value.hint.startswith("--foreground tree")
    with pytest.raises(FullconvError, match="no class 'car'; it has sky, road, tree"):
        probe(Predictor(model), data, foreground=["car"])
    with pytest.raises(FullconvError, match="would be foreground"):
        probe(Predictor(model), data, foreground=["sky", "road", "tree"])
