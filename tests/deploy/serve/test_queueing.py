"""Who waits, who runs together, and who is told to come again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np
import pytest
from photos import photo

from fullconv.core.labels import Labels
from fullconv.deploy.serve.batching import MAX_BATCH as MOST
from fullconv.deploy.serve.batching import Queue
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.uploads import RequestError
from fullconv.inference.segmentation import Segmentation

LABELS = Labels(("dark", "light"))


class Work:
    """Calls a pixel light where its red is, when it may; an image of 13 rows is a fault."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, ...]]] = []
        self.began, self.may = threading.Event(), threading.Event()

    def can_batch(self, images: Sequence[np.ndarray]) -> bool:
        return len({one.shape for one in images}) == 1

    def predict(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        self.batches.append([one.shape[:2] for one in images])
        self.began.set()
        assert self.may.wait(30)
        if images[0].shape[0] == 13:
            raise ArithmeticError("13 rows bring bad luck")
        return [Segmentation((one[..., 0] > 127).astype(np.uint8), LABELS, one) for one in images]

    def predict_with_confidence(
        self, image: np.ndarray, number: int
    ) -> tuple[Segmentation, np.ndarray]:
        (found,) = self.predict([image])
        return found, np.full(image.shape[:2], number, np.float32)


def queue(work: Any, waiting: int = 100, pixels: int = 10**6) -> Queue:
    return Queue(work, waiting, pixels, Metrics())


async def begun(line: Queue, work: Work, rows: int = 9) -> Awaitable[Any]:
    """The first image is at work, and holds up all others."""
    first = asyncio.ensure_future(line.predict(photo(rows, 9)))
    await asyncio.sleep(0)
    await asyncio.to_thread(work.began.wait, 30)
    return first


async def sent(line: Queue, *images: np.ndarray, sure: int | None = None) -> list[Any]:
    """They wait, in this order."""
    tasks = [asyncio.ensure_future(line.predict(one, sure)) for one in images]
    await asyncio.sleep(0)
    return tasks


def test_those_of_a_size_run_together_and_get_their_own() -> None:
    work = Work()
    line = queue(work)
    small = [photo(10, 12, seed=seed) for seed in range(MOST + 1)]
    large = [photo(20, 12, seed=seed) for seed in range(2)]

    async def go() -> list[Any]:
        first = await begun(line, work)
        tasks = await sent(line, small[0], large[0], *small[1:], large[1])
        assert len(line) == MOST + 3
        work.may.set()
        await first
        return await asyncio.gather(*tasks)

    results = asyncio.run(go())
    line.close()
    assert work.batches == [[(9, 9)], [(10, 12)] * MOST, [(20, 12)] * 2, [(10, 12)]]
    given = [small[0], large[0], *small[1:], large[1]]
    for (found, sure), image in zip(results, given, strict=True):
        assert np.array_equal(found.mask, image[..., 0] > 127)
        assert sure is None
    assert 'fullconv_batch_size_bucket{le="1.0"} 2' in line.metrics.text()


def test_confidence_runs_alone() -> None:
    work = Work()
    line = queue(work)

    async def go() -> list[Any]:
        first = await begun(line, work)
        tasks = [
            *await sent(line, photo(10, 12)),
            *await sent(line, photo(10, 12, seed=1), sure=3),
            *await sent(line, photo(10, 12)),
        ]
        work.may.set()
        await first
        return await asyncio.gather(*tasks)

    results = asyncio.run(go())
    line.close()
    assert [None if sure is None else sure[0, 0] for _, sure in results] == [None, 3, None]
    assert work.batches == [[(9, 9)], [(10, 12)] * 2, [(10, 12)]]


def test_a_full_queue_refuses_and_goes_on() -> None:
    work = Work()
    line = queue(work, waiting=2)

    async def go() -> None:
        first = await begun(line, work)
        tasks = await sent(line, photo(10, 12), photo(11, 12))
        with pytest.raises(RequestError, match="the queue is full: 2 images are waiting") as caught:
            await line.predict(photo(12, 12))
        assert (caught.value.status, caught.value.hint) == (503, "send the request again")
        work.may.set()
        await asyncio.gather(first, *tasks)
        await line.predict(photo(12, 12))

    asyncio.run(go())
    line.close()


def test_pixels_that_wait_are_bounded() -> None:
    work = Work()
    line = queue(work, pixels=1000)

    async def go() -> None:
        first = await begun(line, work)
        tasks = await sent(line, photo(50, 70))
        with pytest.raises(RequestError, match="the queue is full: 1 image is waiting"):
            await line.predict(photo(50, 11))
        tasks += await sent(line, photo(50, 10))
        work.may.set()
        await asyncio.gather(first, *tasks)

    asyncio.run(go())
    line.close()


def test_what_nobody_waits_for_is_not_run() -> None:
    work = Work()
    line = queue(work)

    async def go() -> None:
        first = await begun(line, work)
        left, stays = await sent(line, photo(10, 12), photo(11, 12))
        left.cancel()
        await asyncio.sleep(0)
        work.may.set()
        await asyncio.gather(first, stays)

    asyncio.run(go())
    line.close()
    assert work.batches == [[(9, 9)], [(11, 12)]]


def test_a_fault_reaches_those_who_wait_and_nobody_else() -> None:
    work = Work()
    line = queue(work)
    work.may.set()

    async def go() -> None:
        with pytest.raises(ArithmeticError, match="bad luck"):
            await line.predict(photo(13, 9))
        await line.predict(photo(14, 9))

    asyncio.run(go())
    line.close()


def test_closing_finishes_what_waits() -> None:
    work = Work()
    line = queue(work)

    async def go() -> list[Any]:
        first = await begun(line, work)
        tasks = await sent(line, photo(10, 12), photo(11, 12))
        closing = asyncio.ensure_future(asyncio.to_thread(line.close))
        await asyncio.sleep(0.05)
        assert not closing.done()
        with pytest.raises(RequestError, match="the queue is full"):
            await line.predict(photo(12, 12))
        work.may.set()
        await closing
        return await asyncio.gather(first, *tasks)

    assert len(asyncio.run(go())) == 3
