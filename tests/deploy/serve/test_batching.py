"""Several images at once get the labels that each gets alone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from lively import lively
from photos import photo

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.synthetic import scenes as drawn
from fullconv.deploy.serve.batching import BatchRunner
from fullconv.inference.exported import load_exported
from fullconv.inference.predictor import Predictor

SCENES = [drawn.scene(seed, size=(64, 96))[0] for seed in range(3)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    heads = {"material": Labels(("hard", "soft", "wet"))}
    model = lively(heads=heads, head="things")
    return Predictor(model, device="cpu", precision="float32")


def test_a_batch_gives_what_each_gives_alone(predictor: Predictor) -> None:
    labelling = BatchRunner(predictor)
    assert labelling.can_batch(SCENES)
    for _ in range(2):  # found out, and then known
        for found, image in zip(labelling.predict(SCENES), SCENES, strict=True):
            alone = predictor.segment(image)
            assert np.array_equal(found.mask, alone.mask)
            assert found.labels == alone.labels
            assert np.array_equal(found.heads["material"].mask, alone.heads["material"].mask)
            assert np.array_equal(found.image, image)
        assert list(labelling.identical) == [(3, 64, 96, 3)]
        labelling.faster = {(64, 96, 3): True}  # whatever the machine made of it
    assert len(np.unique(found.mask)) > 2


class Watched(BatchRunner):
    """Whose batches are counted, are equal but for `noise`, and take `slow` seconds; single
    images take half a second each."""

    noise = False
    slow = 0.0

    def _predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        self.sizes = [*getattr(self, "sizes", []), len(images)]
        time.sleep(self.slow if len(images) > 1 else 0.5)
        parts = [super(Watched, self)._predict_batch(one[None]) for one in images]
        values = np.concatenate([values for values, _ in parts])
        maps = [np.concatenate(of) for of in zip(*(maps for _, maps in parts), strict=True)]
        if len(images) > 1 and self.noise:  # a last bit, and labels that nobody may see
            return np.nextafter(values, np.float32(np.inf)), [ids * 0 for ids in maps]
        return values, maps


def labelled_twice(labelling: Watched, predictor: Predictor) -> list[int]:
    """The batches that ran; the labels are those of the model."""
    for _ in range(2):
        for found, image in zip(labelling.predict(SCENES), SCENES, strict=True):
            assert np.array_equal(found.mask, predictor.segment(image).mask)
    return labelling.sizes


def test_a_batch_that_gives_other_scores_is_not_used(predictor: Predictor) -> None:
    labelling = Watched(predictor)
    labelling.noise = True
    assert labelled_twice(labelling, predictor) == [3, 1, 1, 1, 3]  # it is not tried again
    assert labelling.identical == {(3, 64, 96, 3): False}
    assert labelling.can_batch(SCENES)  # other numbers may be equal


def test_a_batch_is_used_where_it_is_faster(predictor: Predictor) -> None:
    quick, slow = Watched(predictor), Watched(predictor)
    slow.slow = 5.0
    assert labelled_twice(quick, predictor) == [3, 1, 1, 1, 3, 3]
    assert labelled_twice(slow, predictor) == [3, 1, 1, 1, 3]
    assert quick.can_batch(SCENES)
    assert not slow.can_batch(SCENES)


def test_an_exported_file_in_batches(exported: Path) -> None:
    model = load_exported(exported)
    for found, image in zip(BatchRunner(model).predict(SCENES), SCENES, strict=True):
        assert np.array_equal(found.mask, model.segment(image).mask)
    found, sure = BatchRunner(model).predict_with_confidence(SCENES[0], 0)
    assert np.array_equal(sure, model.probabilities(SCENES[0]).confidence(0))


def test_large_images_go_alone(predictor: Predictor) -> None:
    large = np.broadcast_to(np.uint8(7), (1100, 1000, 3))
    assert BatchRunner(predictor).can_batch([large])
    assert not BatchRunner(predictor).can_batch([large, large])
    tiled = Predictor(lively(), device="cpu", precision="float32", tile=64)
    assert not BatchRunner(tiled).can_batch(SCENES)
    for found, image in zip(BatchRunner(tiled).predict(SCENES), SCENES, strict=True):
        assert np.array_equal(found.mask, tiled.segment(image).mask)


def test_confidence_is_the_probability_of_what_was_found(predictor: Predictor) -> None:
    image = photo(40, 56)
    for number in (0, 1):
        found, sure = BatchRunner(predictor).predict_with_confidence(image, number)
        alone = predictor.segment(image)
        head = [alone, alone.heads["material"]][number]
        every = head.probability.astype(np.float64)
        assert np.array_equal(found.mask, alone.mask)
        assert np.allclose(sure, every.max(axis=0 if every.shape[1:] == sure.shape else -1))


def test_a_model_that_takes_more_than_images_is_refused() -> None:
    model = lively(extra_inputs=(ExtraInput("depth", 1, (0.0,), (1.0,)),))
    with pytest.raises(FullconvError, match=r"takes the extra inputs depth; only models of"):
        BatchRunner(Predictor(model, device="cpu"))
