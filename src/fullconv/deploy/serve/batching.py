"""Labelling: the network, for one image or for several of one size at once.

Several run together only where that gives the very scores that each gives alone, bit for bit, and
takes much less time. Whether it is faster is found out the first time that images of a size meet,
and whether it is equal the first time that so many of them do. It rests on one thing: which order
sums are taken in depends on the shapes and not on the values.

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
from fullconv.core.text import plural
from fullconv.deploy.serve.metrics import Metrics
from fullconv.deploy.serve.uploads import RequestError
from fullconv.inference.exported import ExportedModel
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import Segmenter

_LARGEST = 1 << 21  # pixels of images that run together
_MUCH = 0.8  # of the time of single images; a little less may be chance
_KNOWN = 4096  # shapes that are remembered


@dataclass
class Labelling:
    """A model, and which batches give the scores of single images.

    Args:
        model: as loaded.

    Attributes:
        faster: by the shape of images, whether several take much less time than one by one.
        equal: by their number and shape, whether they give the scores of single ones.
    """

    model: Segmenter
    faster: dict[tuple[int, ...], bool] = field(default_factory=dict)
    equal: dict[tuple[int, ...], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model.extra_inputs:
            names = " and ".join(one.name for one in self.model.extra_inputs)
            raise FullconvError(
                f"the model takes {names} beside each image; only models of images alone "
                "are served.",
                "fullconv predict MODEL IMAGES --extra-inputs FOLDER",
            )

    def together(self, images: Sequence[np.ndarray]) -> bool:
        """Whether images of one size may run at once; may be asked of any number."""
        shape = images[0].shape
        pixels = len(images) * shape[0] * shape[1]
        if pixels > _LARGEST or not self.faster.get(shape, True):
            return False
        if isinstance(self.model, ExportedModel):
            return not self.model.labels_only
        tile = getattr(self.model, "tile", None)
        return not (tile and max(shape) > tile)

    def label(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        """(H, W, 3) uint8 RGB, each -> what `Segmenter.segment` gives of it."""
        if len(images) > 1 and self.together(images):
            shape = images[0].shape
            if (len(images), *shape) not in self.equal:
                return self._tried(images)
            if self.equal[len(images), *shape]:
                return self._at_once(images)[1]
        return [self.model.segment(one) for one in images]

    def _tried(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        """Both ways, which tells what is to be done with such images."""
        shape = images[0].shape
        if len(self.equal) >= _KNOWN:
            self.faster.clear()
            self.equal.clear()
        values, found = self._at_once(images)
        began = time.perf_counter()
        alone = [self._at_once([one]) for one in images]
        seconds = time.perf_counter() - began
        pairs = zip(values, alone, strict=True)
        equal = all(np.array_equal(ours, theirs[0]) for ours, (theirs, _) in pairs)
        self.equal[len(images), *shape] = equal
        if shape not in self.faster:
            began = time.perf_counter()
            self._at_once(images)  # once more: the first run of a shape takes longer
            self.faster[shape] = time.perf_counter() - began < _MUCH * seconds
        return found if equal else [one for _, (one,) in alone]

    def _at_once(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Segmentation]]:
        """Scores at the cells, and the segmentations."""
        values, maps = self._batch(np.stack(images))
        return values, [
            self._segmentation(image, [ids[n] for ids in maps]) for n, image in enumerate(images)
        ]

    def surely(self, image: np.ndarray, number: int) -> tuple[Segmentation, np.ndarray]:
        """The same of one image, and the probability of each pixel's class, (H, W) float32, by
        the head of that number; in one run of the network.

        Raises:
            FullconvError: an exported file that gives class ids and no scores; `labels_only` of
                the model tells.
        """
        found = self.model.probabilities(image)
        return self._segmentation(image, found.label_maps()), found.confidence(number)

    def _segmentation(self, image: np.ndarray, maps: Sequence[np.ndarray]) -> Segmentation:
        heads = {
            name: Segmentation(ids, labels, image)
            for (name, labels), ids in zip(self.model.heads.items(), maps[1:], strict=True)
        }
        return Segmentation(maps[0], self.model.labels, image, None, heads)

    def _batch(self, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(N, H, W, 3) uint8 -> scores at the cells, and (N, H, W) class ids of each head."""
        return self.model.predict_batch(images)


MOST = 8  # images that run at once
_PIXELS = 4  # times the largest image: so many pixels wait together


@dataclass(eq=False)  # compared as what it is: arrays have no single answer
class _Job:
    image: np.ndarray
    sure: int | None  # the head whose confidence is wanted
    done: Future[tuple[Segmentation, np.ndarray | None]] = field(default_factory=Future)


class Queue:
    """Images that wait, and the thread that takes them.

    Args:
        labelling: the model.
        waiting: images at most.
        pixels: of the largest image.
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
        self, image: np.ndarray, sure: int | None = None
    ) -> tuple[Segmentation, np.ndarray | None]:
        """What the model finds in (H, W, 3) uint8 RGB, and the confidence of the head with the
        number `sure`.

        Raises:
            RequestError: 503 where the queue is full.
        """
        job = _Job(image, sure)
        with self._change:
            self.require_room(image[..., 0].size)
            self._jobs.append(job)
            self._change.notify()
        # Given up on (time is over, nobody listens), its future is cancelled, and it is not run.
        return await asyncio.wrap_future(job.done)

    def require_room(self, pixels: int = 0) -> None:
        """For an image of so many pixels.

        Raises:
            RequestError: 503 where there is none.
        """
        count = len(self._jobs)
        held = sum(one.image[..., 0].size for one in list(self._jobs))
        if self._closed or count >= self.waiting or (count and held + pixels > self.pixels):
            waiting = plural(count, "image waits", "images wait")
            raise RequestError(503, f"the queue is full: {waiting}.", "send it again")

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
            del batch  # or its images would be held until the next ones come

    def _next(self) -> list[_Job]:
        """The first one, and others of its size that may run with it."""
        batch = [self._jobs.popleft()]
        for job in list(self._jobs):
            if len(batch) == MOST or batch[0].sure is not None:
                break
            alike = job.image.shape == batch[0].image.shape and job.sure is None
            if alike and self.labelling.together([one.image for one in [*batch, job]]):
                batch.append(job)
                self._jobs.remove(job)
        return batch

    def _run(self, batch: list[_Job]) -> None:
        first = batch[0]
        found: list[tuple[Segmentation, np.ndarray | None]]
        try:
            if first.sure is not None:
                found = [self.labelling.surely(first.image, first.sure)]
            else:
                labelled = self.labelling.label([job.image for job in batch])
                found = [(segmentation, None) for segmentation in labelled]
        except BaseException as error:  # goes to those who wait
            for job in batch:
                job.done.set_exception(error)
            return
        for job, one in zip(batch, found, strict=True):
            job.done.set_result(one)
