"""Labelling: the network, for one picture or for several of one size at once.

Several run together only where that gives the very scores that each gives alone, bit for bit, and
takes much less time. Whether it is faster is found out the first time that pictures of a size meet,
and whether it is equal the first time that so many of them do. It rests on one thing: which order
sums are taken in depends on the shapes and not on the values.

Shapes: N pictures · H, W picture.
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
from fullconv.core.text import plural
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.uploads import RefusedError
from fullconv.inference.exported import Deployed
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import Segmenter

_LARGEST = 1 << 21  # pixels of pictures that run together
_MUCH = 0.8  # of the time of single pictures; a little less may be chance
_KNOWN = 4096  # shapes that are remembered


@dataclass
class Labelling:
    """A model, and which batches give the scores of single pictures.

    Args:
        model: as loaded.

    Attributes:
        faster: by the shape of pictures, whether several take much less time than one by one.
        equal: by their number and shape, whether they give the scores of single ones.
    """

    model: Segmenter
    faster: dict[tuple[int, ...], bool] = field(default_factory=dict)
    equal: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model.inputs:
            names = " and ".join(one.name for one in self.model.inputs)
            raise FullconvError(
                f"the model takes {names} beside each picture; only models of pictures alone "
                "are served.",
                "fullconv predict MODEL PICTURES --extra-inputs FOLDER",
            )

    def together(self, pictures: Sequence[np.ndarray]) -> bool:
        """Whether pictures of one size may run at once; may be asked of any number."""
        shape = pictures[0].shape
        pixels = len(pictures) * shape[0] * shape[1]
        if pixels > _LARGEST or not self.faster.get(shape, True):
            return False
        if isinstance(self.model, Deployed):
            return not self.model.labels_inside
        tile = getattr(self.model, "tile", None)
        return not (tile and max(shape) > tile)

    def label(self, pictures: Sequence[np.ndarray]) -> list[Segmentation]:
        """(H, W, 3) uint8 RGB, each -> what `Segmenter.segment` gives of it."""
        if len(pictures) > 1 and self.together(pictures):
            shape = pictures[0].shape
            if (len(pictures), *shape) not in self.equal:
                return self._tried(pictures)
            if self.equal[len(pictures), *shape]:
                return self._at_once(pictures)[1]
        return [self.model.segment(one) for one in pictures]

    def _tried(self, pictures: Sequence[np.ndarray]) -> list[Segmentation]:
        """Both ways, which tells what is to be done with such pictures."""
        shape = pictures[0].shape
        if len(self.equal) >= _KNOWN:
            self.faster.clear()
            self.equal.clear()
        values, found = self._at_once(pictures)
        began = time.perf_counter()
        alone = [self._at_once([one]) for one in pictures]
        seconds = time.perf_counter() - began
        pairs = zip(values, alone, strict=True)
        equal = all(np.array_equal(ours, theirs[0]) for ours, (theirs, _) in pairs)
        self.equal[len(pictures), *shape] = equal
        if shape not in self.faster:
            began = time.perf_counter()
            self._at_once(pictures)  # once more: the first run of a shape takes longer
            self.faster[shape] = time.perf_counter() - began < _MUCH * seconds
        return found if equal else [one for _, (one,) in alone]

    def _at_once(self, pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Segmentation]]:
        """Scores at the cells, and the segmentations."""
        values, maps = self._batch(np.stack(pictures))
        return values, [
            self._segmentation(picture, [ids[n] for ids in maps])
            for n, picture in enumerate(pictures)
        ]

    def surely(self, picture: np.ndarray, number: int) -> tuple[Segmentation, np.ndarray]:
        """The same of one picture, and the probability of each pixel's class, (H, W) float32, by
        the head of that number; in one run of the network.

        Raises:
            FullconvError: an exported file that gives class ids and no scores; `labels_inside` of
                the model tells.
        """
        found = self.model.probabilities(picture)
        return self._segmentation(picture, found.label_maps()), found.confidence(number)

    def _segmentation(self, picture: np.ndarray, maps: Sequence[np.ndarray]) -> Segmentation:
        heads = {
            name: Segmentation(ids, labels, picture)
            for (name, labels), ids in zip(self.model.heads.items(), maps[1:], strict=True)
        }
        return Segmentation(maps[0], self.model.labels, picture, None, heads)

    def _batch(self, pictures: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(N, H, W, 3) uint8 -> scores at the cells, and (N, H, W) class ids of each head."""
        return self.model.predict_batch(pictures)


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
