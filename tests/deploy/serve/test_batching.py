"""Batches give the results of single images; the queue bounds what waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lively import lively
from photos import photo

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.synthetic import scenes
from fullconv.deploy.serve import batching
from fullconv.deploy.serve.batching import MAX_BATCH, BatchRunner, Queue
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.uploads import RequestError
from fullconv.inference.exported import load_exported
from fullconv.inference.predictor import Predictor
from fullconv.inference.segmentation import Segmentation

SCENES = [scenes.scene(seed, size=(64, 96))[0] for seed in range(3)]
LABELS = Labels(("dark", "light"))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    heads = {"material": Labels(("hard", "soft", "wet"))}
    return Predictor(lively(heads=heads, head="things"), device="cpu", precision="float32")


def test_a_batch_gives_the_results_of_single_images(predictor: Predictor) -> None:
    runner = BatchRunner(predictor)
    for _ in range(2):  # first compared, then known
        for result, image in zip(runner.predict(SCENES), SCENES, strict=True):
            single = predictor.segment(image)
            assert np.array_equal(result.mask, single.mask)
            assert result.labels == single.labels
            assert np.array_equal(result.heads["material"].mask, single.heads["material"].mask)
            assert np.array_equal(result.image, image)
        assert list(runner.identical) == [(3, 64, 96, 3)]
        runner.faster = {(64, 96, 3): True}  # whatever was measured
    assert len(np.unique(result.mask)) > 2


class Measured:
    """A model that counts batches, which take `seconds` of its clock (single images: half a
    second) and are identical but for `noise`."""

    def __init__(self, model: Predictor, *, noise: bool, seconds: float) -> None:
        self.model, self.noise, self.seconds = model, noise, seconds
        self.sizes: list[int] = []
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict_batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        self.sizes.append(len(images))
        self.now += self.seconds if len(images) > 1 else 0.5
        parts = [self.model.predict_batch(image[None]) for image in images]
        values = np.concatenate([values for values, _ in parts])
        maps = [np.concatenate(ids) for ids in zip(*(maps for _, maps in parts), strict=True)]
        if len(images) > 1 and self.noise:  # the last bit, and labels that must not be returned
            return np.nextafter(values, np.float32(np.inf)), [ids * 0 for ids in maps]
        return values, maps


@pytest.mark.parametrize(
    ("noise", "seconds", "sizes", "can_batch"),
    [
        (True, 0.0, [3, 1, 1, 1, 3], True),  # other numbers of images may be identical
        (False, 0.0, [3, 1, 1, 1, 3, 3], True),
        (False, 1.3, [3, 1, 1, 1, 3], False),
    ],
    ids=["other scores", "faster", "slower"],
)
def test_batches_are_used_if_they_are_identical_and_faster(
    predictor: Predictor,
    noise: bool,
    seconds: float,
    sizes: list[int],
    can_batch: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Measured(predictor, noise=noise, seconds=seconds)
    monkeypatch.setattr(batching, "time", model)
    runner = BatchRunner(model)  # type: ignore[arg-type]
    for _ in range(2):
        for result, image in zip(runner.predict(SCENES), SCENES, strict=True):
            assert np.array_equal(result.mask, predictor.segment(image).mask)
    assert model.sizes == sizes
    assert runner.identical == {(3, 64, 96, 3): not noise}
    assert runner.can_batch(SCENES) == can_batch


def test_large_and_tiled_images_run_alone(predictor: Predictor) -> None:
    large = np.broadcast_to(np.uint8(7), (1100, 1000, 3))
    assert BatchRunner(predictor).can_batch([large])
    assert not BatchRunner(predictor).can_batch([large, large])
    tiled = Predictor(lively(), device="cpu", precision="float32", tile=64)
    assert not BatchRunner(tiled).can_batch(SCENES)


def test_an_exported_file_and_confidence(exported: Path, predictor: Predictor) -> None:
    model = load_exported(exported)
    for result, image in zip(BatchRunner(model).predict(SCENES), SCENES, strict=True):
        assert np.array_equal(result.mask, model.segment(image).mask)
    image = photo(40, 56)
    single = predictor.segment(image)
    for number, head in enumerate((single, single.heads["material"])):
        result, confidence = BatchRunner(predictor).predict_with_confidence(image, number)
        assert np.array_equal(result.mask, single.mask)
        probability = head.probability
        axis = 0 if probability.shape[1:] == confidence.shape else -1
        assert np.allclose(confidence, probability.max(axis=axis))


def test_a_model_with_extra_inputs_is_refused() -> None:
    model = lively(extra_inputs=(ExtraInput("depth", 1, (0.0,), (1.0,)),))
    with pytest.raises(FullconvError, match=r"takes the extra inputs depth; only models of"):
        BatchRunner(Predictor(model, device="cpu"))


class Work:
    """Predicts light where red is high, after `may` is set; an image of 13 rows fails."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, ...]]] = []
        self.started, self.may = threading.Event(), threading.Event()

    def can_batch(self, images: Sequence[np.ndarray]) -> bool:
        return len({image.shape for image in images}) == 1

    def predict(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        self.batches.append([image.shape[:2] for image in images])
        self.started.set()
        assert self.may.wait(30)
        if images[0].shape[0] == 13:
            raise ArithmeticError("13 rows bring bad luck")
        return [Segmentation((i[..., 0] > 127).astype(np.uint8), LABELS, i) for i in images]

    def predict_with_confidence(
        self, image: np.ndarray, head: int
    ) -> tuple[Segmentation, np.ndarray]:
        (result,) = self.predict([image])
        return result, np.full(image.shape[:2], head, np.float32)


class Waiting:
    """A queue whose first image is being segmented, so that all others wait."""

    def __init__(self, waiting: int = 100, pixels: int = 10**6) -> None:
        self.work = Work()
        self.queue = Queue(self.work, waiting, pixels, Metrics())  # type: ignore[arg-type]

    async def send(self, *images: np.ndarray, confidence: int | None = None) -> list[Any]:
        if not self.work.started.is_set():
            self.first: Awaitable[Any] = asyncio.ensure_future(self.queue.predict(photo(9, 9)))
            await asyncio.sleep(0)
            await asyncio.to_thread(self.work.started.wait, 30)
        tasks = [asyncio.ensure_future(self.queue.predict(i, confidence)) for i in images]
        await asyncio.sleep(0)
        return tasks

    async def finish(self, tasks: list[Any]) -> list[Any]:
        self.work.may.set()
        await self.first
        return list(await asyncio.gather(*tasks))

    def run(self, flow: Callable[[], Any]) -> Any:
        result = asyncio.run(flow())
        self.queue.close()
        return result


def test_images_of_one_size_run_together() -> None:
    line = Waiting()
    small = [photo(10, 12, seed=seed) for seed in range(MAX_BATCH + 1)]
    large = [photo(20, 12, seed=seed) for seed in range(2)]
    images = [small[0], large[0], *small[1:], large[1]]

    async def flow() -> list[Any]:
        tasks = await line.send(*images)
        assert len(line.queue) == MAX_BATCH + 3
        return await line.finish(tasks)

    results = line.run(flow)
    sizes = [[(9, 9)], [(10, 12)] * MAX_BATCH, [(20, 12)] * 2, [(10, 12)]]
    assert line.work.batches == sizes
    for (result, confidence), image in zip(results, images, strict=True):
        assert np.array_equal(result.mask, image[..., 0] > 127)
        assert confidence is None
    assert 'fullconv_batch_size_bucket{le="1.0"} 2' in line.queue.metrics.text()


def test_confidence_runs_alone() -> None:
    line = Waiting()

    async def flow() -> list[Any]:
        tasks = await line.send(photo(10, 12))
        tasks += await line.send(photo(10, 12, seed=1), confidence=3)
        tasks += await line.send(photo(10, 12))
        return await line.finish(tasks)

    results = line.run(flow)
    assert [c if c is None else c[0, 0] for _, c in results] == [None, 3, None]
    assert line.work.batches == [[(9, 9)], [(10, 12)] * 2, [(10, 12)]]


@pytest.mark.parametrize(
    ("limits", "waiting", "refused"),
    [
        ({"waiting": 2}, [(10, 12), (11, 12)], (12, 12)),
        ({"pixels": 1000}, [(50, 70)], (50, 11)),  # 4 times the largest image
    ],
    ids=["images", "pixels"],
)
def test_a_full_queue_refuses_and_continues(
    limits: dict[str, int], waiting: list[tuple[int, int]], refused: tuple[int, int]
) -> None:
    line = Waiting(**limits)

    async def flow() -> None:
        tasks = await line.send(*(photo(*size) for size in waiting))
        with pytest.raises(RequestError, match="the queue is full: ") as caught:
            await line.queue.predict(photo(*refused))
        assert (caught.value.status, caught.value.hint) == (503, "send the request again")
        await line.finish(tasks)
        await line.queue.predict(photo(*refused))

    line.run(flow)


def test_cancelled_requests_and_errors() -> None:
    """A cancelled request is not run; an error reaches its own request only."""
    line = Waiting()

    async def flow() -> None:
        cancelled, failing, stays = await line.send(photo(10, 12), photo(13, 9), photo(11, 12))
        cancelled.cancel()
        await asyncio.sleep(0)
        line.work.may.set()
        with pytest.raises(ArithmeticError, match="bad luck"):
            await failing
        await asyncio.gather(line.first, stays)

    line.run(flow)
    assert line.work.batches == [[(9, 9)], [(13, 9)], [(11, 12)]]


def test_closing_finishes_what_waits() -> None:
    line = Waiting()

    async def flow() -> list[Any]:
        tasks = await line.send(photo(10, 12), photo(11, 12))
        closing = asyncio.ensure_future(asyncio.to_thread(line.queue.close))
        await asyncio.sleep(0.05)
        assert not closing.done()
        with pytest.raises(RequestError, match="the queue is full"):
            await line.queue.predict(photo(12, 12))
        results = await line.finish(tasks)
        await closing
        return results

    assert len(asyncio.run(flow())) == 2
