"""Queueing: one thread runs the network; what waits stands in a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from fullconv.core.errors import plural
from fullconv.deploy.serve.batching import Labelling
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.uploads import RefusedError
from fullconv.inference.segmentation import Segmentation

MOST = 8  # pictures that run at once
_PIXELS = 4  # times the largest picture: so many pixels wait together


@dataclass(eq=False)  # compared as what it is: arrays have no single answer
class _Job:
    picture: np.ndarray
    sure: int | None  # the head whose confidence is wanted
    done: Future[tuple[Segmentation, np.ndarray | None]] = field(default_factory=Future)


class Queue:
    """Pictures that wait, and the thread that takes them.

    Args:
        labelling: the model.
        waiting: pictures at most.
        pixels: of the largest picture.
        metrics: where batches are counted.
    """

    def __init__(self, labelling: Labelling, waiting: int, pixels: int, metrics: Metrics) -> None:
        self.labelling, self.waiting, self.metrics = labelling, waiting, metrics
        self.pixels = _PIXELS * pixels
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    async def result(
        self, picture: np.ndarray, sure: int | None = None
    ) -> tuple[Segmentation, np.ndarray | None]:
        """What the model finds in (H, W, 3) uint8 RGB, and the confidence of the head with the
        number `sure`.

        Raises:
            RefusedError: 503 where the queue is full.
        """
        job = _Job(picture, sure)
        with self._change:
            self.require_room(picture[..., 0].size)
            self._jobs.append(job)
            self._change.notify()
        # Given up on (time is over, nobody listens), its future is cancelled, and it is not run.
        return await asyncio.wrap_future(job.done)

    def require_room(self, pixels: int = 0) -> None:
        """For a picture of so many pixels.

        Raises:
            RefusedError: 503 where there is none.
        """
        count = len(self._jobs)
        held = sum(one.picture[..., 0].size for one in list(self._jobs))
        if self._closed or count >= self.waiting or (count and held + pixels > self.pixels):
            waiting = plural(count, "picture waits", "pictures wait")
            raise RefusedError(503, f"the queue is full: {waiting}.", "send it again")

    def close(self) -> None:
        """Finishes what waits, and ends the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                batch = self._next()
            batch = [job for job in batch if job.done.set_running_or_notify_cancel()]
            if batch:
                self.metrics.batches.add(len(batch))
                self._run(batch)
            del batch  # or its pictures would be held until the next ones come

    def _next(self) -> list[_Job]:
        """The first one, and others of its size that may run with it."""
        batch = [self._jobs.popleft()]
        for job in list(self._jobs):
            if len(batch) == MOST or batch[0].sure is not None:
                break
            alike = job.picture.shape == batch[0].picture.shape and job.sure is None
            if alike and self.labelling.together([one.picture for one in [*batch, job]]):
                batch.append(job)
                self._jobs.remove(job)
        return batch

    def _run(self, batch: list[_Job]) -> None:
        first = batch[0]
        found: list[tuple[Segmentation, np.ndarray | None]]
        try:
            if first.sure is not None:
                found = [self.labelling.surely(first.picture, first.sure)]
            else:
                labelled = self.labelling.label([job.picture for job in batch])
                found = [(segmentation, None) for segmentation in labelled]
        except BaseException as error:  # goes to those who wait
            for job in batch:
                job.done.set_exception(error)
            return
        for job, one in zip(batch, found, strict=True):
            job.done.set_result(one)
