"""Predict many images: readers, the network and writers work at the same time.

    threads       read images in order, as far ahead as the pixel budget allows
    this thread   runs the network
    threads       write results into a hidden staging folder, then move them to their names

A damaged image does not stop the others. If the run is interrupted at any point, by Ctrl-C or a
power cut, results that have their names are complete, and the next run does the rest.
Nothing here needs torch, so that exported models run without it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.concurrency import lower_thread_priority, short_switch_interval
from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.hardware import cpu_count
from fullconv.data.io.geotiff import GeoReference, raster_size, read_georeferenced
from fullconv.data.io.images import pixels_to_decode, read_image
from fullconv.data.io.video import is_video
from fullconv.inference.manifest import FileStamp, Manifest, file_stamp
from fullconv.inference.result_files import creating
from fullconv.inference.segmenter import Segmenter
from fullconv.inference.video import predict_video
from fullconv.inference.writers import save_outputs

MAX_PIXELS = 1 << 25  # of images in memory at once, read or not yet written
MAX_THREADS = 8  # of readers, and of writers
STAGING_PREFIX = ".part."

Progress = Callable[[int, int], None]  # done, total
Result = dict[str, Any]


@dataclass(frozen=True)
class InputImage:
    """An image or video to predict."""

    path: Path
    stem: Path  # the name of its results, relative to the output folder
    extra_inputs: tuple[Path, ...] = ()  # files with its extra channels


@dataclass
class BatchResult:
    """The results of many images."""

    results: list[Result] = field(default_factory=list)  # of images that could be read, in order
    failed: list[FullconvError] = field(default_factory=list)  # of the other images
    skipped: int = 0  # results of earlier runs


def predict_many(
    predictor: Segmenter,
    images: Sequence[InputImage],
    manifest: Manifest,
    outputs: Sequence[str],
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> BatchResult:
    """Predict images and write the results, except those that are done already.

    Args:
        manifest: of the output folder.
        outputs: output types, see `fullconv.inference.writers.save_outputs`.
        overwrite: also predict images that are done already.
        progress: called with how many images are done and how many there are; for a single image
            that is read in windows with rows of pixels, for a single video with frames.

    Raises:
        FullconvError: a result cannot be written.
    """
    # Find out what earlier runs have done.
    batch, results, todo = BatchResult(), dict[int, Result](), []
    for k, image in enumerate(images):
        stamps = [file_stamp(path) for path in (image.path, *image.extra_inputs)]
        earlier = None if overwrite else manifest.result(image.stem, stamps, outputs)
        if earlier is None:
            todo.append((k, _Job(image, stamps)))
        else:
            results[k] = {**earlier, "source": str(image.path)}
            with suppress(OSError):  # left by a process that was killed after it moved all files
                _staging_path(manifest.out / image.stem).rmdir()
    batch.skipped = len(results)
    progress(batch.skipped, len(images))

    # Predict the others.
    with short_switch_interval(), Pipeline(predictor, manifest, outputs) as pipeline:
        new_results = pipeline.run([job for _, job in todo], progress)
        for count, ((k, _), result) in enumerate(zip(todo, new_results, strict=True), 1):
            if isinstance(result, FullconvError):
                batch.failed.append(result)
            else:
                results[k] = result
            progress(batch.skipped + count, len(images))
    batch.results = [results[k] for k in sorted(results)]
    return batch


@dataclass(frozen=True)
class _Job:
    image: InputImage
    stamps: Sequence[FileStamp | None]


@dataclass(frozen=True)
class _LoadedImage:
    """An image in memory, or nothing of a file that is read in windows or frame by frame."""

    pixels: np.ndarray | None  # (H, W, 3) uint8 RGB
    budget: int  # its share of the pixel budget
    place: GeoReference | None = None


class Pipeline:
    """Readers, the network and writers. Leaving the context early cancels queued work."""

    def __init__(self, predictor: Segmenter, manifest: Manifest, outputs: Sequence[str]) -> None:
        self.predictor, self.manifest, self.outputs = predictor, manifest, outputs
        self.threads = min(MAX_THREADS, max(2, cpu_count() // 2))
        self.budget = PixelBudget(MAX_PIXELS)
        self.readers = ThreadPoolExecutor(self.threads, "reading", lower_thread_priority)
        self.writers = ThreadPoolExecutor(self.threads, "writing", lower_thread_priority)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.budget.close()
        for pool in (self.readers, self.writers):
            pool.shutdown(cancel_futures=True)
        self.manifest.close()

    def run(self, jobs: Sequence[_Job], progress: Progress) -> Iterator[Result | FullconvError]:
        """Yield the result of each image, or why it cannot be read, in order, as soon as it and
        those before it are written."""
        loading: deque[Future[_LoadedImage]] = deque()
        writing: deque[Future[Result | FullconvError]] = deque()
        stream_progress = progress if len(jobs) == 1 else lambda done, total: None
        for k, job in enumerate(jobs):
            # Keep the readers busy.
            while len(loading) < min(2 * self.threads, len(jobs) - k):
                turn = k + len(loading)
                loading.append(self.readers.submit(self._read, jobs[turn].image.path, turn))
            # Predict this image. A damaged one does not stop the others.
            try:
                writing.append(self._predict(job, loading.popleft().result(), stream_progress))
            except UnwrittenError:
                raise
            except FullconvError as error:
                writing.append(_finished(error))
            # Yield what is finished; wait if the writers fall behind.
            while writing and (len(writing) > 2 * self.threads or writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()

    def _read(self, path: Path, turn: int) -> _LoadedImage:
        # 1) Wait for room in memory. Windows and frames are read later, a few at a time.
        budget = 0
        try:
            size = raster_size(path)
            is_cut = size and not self.predictor.extra_inputs and self.predictor.needs_tiling(size)
            if is_video(path) or is_cut:
                return _LoadedImage(None, 0)
            budget = size[0] * size[1] if size else pixels_to_decode(path)
        finally:
            self.budget.enter(turn, budget)  # also if it cannot be read: the next turn waits
        # 2) Decode it.
        try:
            if size:
                pixels, place = read_georeferenced(path)
                return _LoadedImage(pixels, budget, place)
            return _LoadedImage(read_image(path), budget)
        except BaseException:
            self.budget.leave(budget)
            raise

    def _predict(
        self, job: _Job, loaded: _LoadedImage, progress: Progress
    ) -> Future[Result | FullconvError]:
        """Run the network, in this thread, and start writing the results."""
        path = job.image.path

        # 3) Videos and windowed images are predicted and written part by part.
        def stream(stem: Path) -> tuple[list[Path], Result]:
            predict: Callable[..., Result] = predict_video
            if not is_video(path):
                from fullconv.inference.geotiff import predict_raster  # needs torch

                predict = predict_raster
            result = predict(self.predictor, path, stem, self.outputs, progress=progress)
            return [Path(file) for file in result["files"]], result

        if loaded.pixels is None:
            return _finished(self._write(job, stream, 0))

        # 4) Others are predicted here and written by a writer thread.
        try:
            segmentation = self.predictor.segment(
                loaded.pixels, extra_inputs=job.image.extra_inputs
            ).with_source(path, loaded.place)
        except BaseException:
            self.budget.leave(loaded.budget)
            raise

        def save(stem: Path) -> tuple[list[Path], Result]:
            return save_outputs(segmentation, stem, self.outputs), segmentation.to_dict()

        return self.writers.submit(self._write, job, save, loaded.budget)

    def _write(
        self, job: _Job, save: Callable[[Path], tuple[list[Path], Result]], budget: int
    ) -> Result | FullconvError:
        """Write an image's results: all of them or none."""
        target = self.manifest.out / job.image.stem
        staging = _staging_path(target)
        try:
            # 5) Write the files into a hidden staging folder.
            with creating(target):
                shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
                staging.mkdir(parents=True)
            files, result = save(staging / target.name)
            # 6) Record them before they are moved: after a kill, the record describes files
            #    that are not there, and the image is predicted again.
            moves = {file: target.parent / file.name for file in files}
            self.manifest.add(job.image.stem, job.stamps, self.outputs, moves, result)
            # 7) Move them to their names.
            for file, path in moves.items():
                with creating(path):
                    os.replace(file, path)
            return {**result, "files": [str(path) for path in moves.values()]}
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            self.budget.leave(budget)


class PixelBudget:
    """Admits images in order while those in memory have few pixels, or if none is in memory."""

    def __init__(self, pixels: int) -> None:
        self._limit, self._used, self._turn = pixels, 0, 0
        self._closed = False
        self._changed = threading.Condition()

    def enter(self, turn: int, pixels: int) -> None:
        """Wait for the turn, counted from 0, and for room; CancelledError if `close` was called."""

        def may_enter() -> bool:
            has_room = not self._used or self._used + pixels <= self._limit
            return self._closed or (turn == self._turn and has_room)

        with self._changed:
            self._changed.wait_for(may_enter)
            if self._closed:
                raise CancelledError
            self._turn += 1
            self._used += pixels
            self._changed.notify_all()

    def leave(self, pixels: int) -> None:
        """Give back the pixels of an image that is written or could not be read."""
        with self._changed:
            self._used -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Admit no more images."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _staging_path(stem: Path) -> Path:
    return stem.with_name(STAGING_PREFIX + stem.name)


def _finished(result: Result | FullconvError) -> Future[Result | FullconvError]:
    future: Future[Result | FullconvError] = Future()
    future.set_result(result)
    return future
