"""Run the network for a server: one thread, a bounded queue, and batches of images of one size.

Images are batched only if batching is faster and gives bit-identical scores. Both are measured when
a batch of this size first occurs. That is enough: the order in which sums are computed depends on
shapes, not on values.

Shapes: N images · H, W image.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.uploads import RequestError
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import Segmenter

MAX_BATCH = 8
_MAX_PIXELS = 1 << 21  # of a batch
_FASTER = 0.8  # of the time that its images take one by one; less may be chance
_MAX_SHAPES = 4096  # that are remembered
_QUEUE_PIXELS = 4  # times the largest image: pixels that wait together

Result = tuple[Segmentation, np.ndarray | None]


class BatchRunner:
    """Runs a model on single images, or on batches that are proven to give the same scores.

    Raises:
        FullconvError: the model needs extra inputs.
    """

    def __init__(self, model: Segmenter) -> None:
        if model.extra_inputs:
            message = msg(
                "the model takes the extra inputs {names}; only models of images alone are served.",
                names=", ".join(extra.name for extra in model.extra_inputs),
            )
            raise FullconvError(message, "fullconv predict MODEL IMAGES --extra-inputs FOLDER")
        self.model = model
        self.faster: dict[tuple[int, ...], bool] = {}  # by image shape
        self.identical: dict[tuple[int, ...], bool] = {}  # by number of images and image shape

    def can_batch(self, images: Sequence[np.ndarray]) -> bool:
        """Return whether images of one size may run in one batch."""
        shape = images[0].shape
        if len(images) * shape[0] * shape[1] > _MAX_PIXELS or not self.faster.get(shape, True):
            return False
        return not (self.model.labels_only or self.model.needs_tiling(shape[:2]))

    def predict(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        """Segment images, (H, W, 3) uint8 RGB each, with the results of `Segmenter.segment`."""
        shape = images[0].shape
        key = (len(images), *shape)
        differs = self.identical.get(key) is False
        if len(images) == 1 or differs or not self.can_batch(images):
            return [self.model.segment(image) for image in images]
        scores, batched = self._run(images)
        if key in self.identical:
            return batched

        # The first batch of this size: compare it with its images one by one.
        if len(self.identical) >= _MAX_SHAPES:
            self.faster.clear()
            self.identical.clear()
        started = time.perf_counter()
        single = [self._run([image]) for image in images]
        seconds = time.perf_counter() - started
        single_scores = np.concatenate([values for values, _ in single])
        self.identical[key] = np.array_equal(scores, single_scores)
        if shape not in self.faster:
            started = time.perf_counter()
            self._run(images)  # again: the first run of a shape is slower
            self.faster[shape] = time.perf_counter() - started < _FASTER * seconds
        return batched if self.identical[key] else [result for _, (result,) in single]

    def predict_with_confidence(
        self, image: np.ndarray, head: int
    ) -> tuple[Segmentation, np.ndarray]:
        """Segment an image, and return the confidence of one head, (H, W) float32."""
        probabilities = self.model.probabilities(image)  # of one run of the network
        result = self._segmentation(image, probabilities.label_maps())
        return result, probabilities.confidence(head)

    def _run(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Segmentation]]:
        """Return the scores (N, K, h, w) and the results."""
        scores, maps = self.model.predict_batch(np.stack(images))
        return scores, [
            self._segmentation(image, [ids[n] for ids in maps]) for n, image in enumerate(images)
        ]

    def _segmentation(self, image: np.ndarray, maps: Sequence[np.ndarray]) -> Segmentation:
        heads = {
            name: Segmentation(ids, labels, image)
            for (name, labels), ids in zip(self.model.heads.items(), maps[1:], strict=True)
        }
        return Segmentation(maps[0], self.model.labels, image, None, heads)


@dataclass(eq=False)
class _Job:
    image: np.ndarray
    confidence_head: int | None
    result: Future[Result] = field(default_factory=Future)


class Queue:
    """At most `waiting` images, the largest of `pixels` pixels, and the thread that runs the
    network."""

    def __init__(self, runner: BatchRunner, waiting: int, pixels: int, metrics: Metrics) -> None:
        self.runner, self.waiting, self.metrics = runner, waiting, metrics
        self.pixels = _QUEUE_PIXELS * pixels
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        metrics.queue_length.set_function(self.__len__)
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    async def predict(self, image: np.ndarray, confidence_head: int | None = None) -> Result:
        """Segment an image, (H, W, 3) uint8 RGB, with the confidence of one head if requested.

        Raises:
            RequestError: 503, the queue is full.
        """
        job = _Job(image, confidence_head)
        with self._changed:
            self.require_room(image[..., 0].size)
            self._jobs.append(job)
            self._changed.notify()
        # A request that is cancelled (timeout, disconnect) cancels its future, and is not run.
        return await asyncio.wrap_future(job.result)

    def require_room(self, pixels: int = 0) -> None:
        """Raise 503 if there is no room for an image of `pixels` pixels."""
        count = len(self._jobs)
        held = sum(job.image[..., 0].size for job in list(self._jobs))
        if self._closed or count >= self.waiting or (count and held + pixels > self.pixels):
            message = nmsg(
                "the queue is full: {count} image is waiting.",
                "the queue is full: {count} images are waiting.",
                count=count,
            )
            raise RequestError(503, message, msg("send the request again"))

    def close(self) -> None:
        """Finish the waiting images, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                batch = self._take_batch()
            batch = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if batch:
                self.metrics.batches.observe(len(batch))
                self._run(batch)
            del batch  # or its images would be held until the next ones arrive

    def _take_batch(self) -> list[_Job]:
        """Take the first job, and others of its size that may run with it."""
        batch = [self._jobs.popleft()]
        for job in list(self._jobs):
            if len(batch) == MAX_BATCH or batch[0].confidence_head is not None:
                break
            same_size = job.image.shape == batch[0].image.shape and job.confidence_head is None
            if same_size and self.runner.can_batch([each.image for each in [*batch, job]]):
                batch.append(job)
                self._jobs.remove(job)
        return batch

    def _run(self, batch: list[_Job]) -> None:
        images, head = [job.image for job in batch], batch[0].confidence_head
        results: list[Result]
        try:
            if head is None:
                results = [(result, None) for result in self.runner.predict(images)]
            else:
                results = [self.runner.predict_with_confidence(images[0], head)]
        except BaseException as error:  # goes to the requests that wait for it
            for job in batch:
                job.result.set_exception(error)
            return
        for job, result in zip(batch, results, strict=True):
            job.result.set_result(result)
