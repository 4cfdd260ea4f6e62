"""Many images: read ahead, labelled one after the other, written behind, each once.

    threads     read images, in their order, as far ahead as memory is meant to go
    this one    runs the network
    threads     write results: into a hidden folder beside their place, then moved there whole

An image that cannot be read costs the others nothing. Stopped at any point, by Ctrl-C or by a
power cut, the results that have their names are whole, and the next run does the rest.
Nothing here needs torch, so that exported models run without it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
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
from fullconv.inference.manifest import Manifest, Seen, file_stamp
from fullconv.inference.result_files import creating
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.video import predict_video
from fullconv.inference.writers import save_outputs

PIXELS = 1 << 25  # of images that are held at once, read or not yet written
PART = ".part."  # begins the folder of results that are not whole yet
MOST_THREADS = 8  # that read, and that write


@dataclass(frozen=True)
class InputImage:
    """What is to be labelled.

    Args:
        path: the file.
        stem: the name of its results, relative to their folder.
        beside: files of the model's further inputs.
    """

    path: Path
    stem: Path
    beside: tuple[Path, ...] = ()


@dataclass
class BatchResult:
    """What became of many images.

    Attributes:
        results: of each that could be read, in their order: `Segmentation.to_dict` and "files".
        failed: what is wrong with each of the others, and what mends it.
        skipped: how many of the results are of earlier runs.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    failed: list[FullconvError] = field(default_factory=list)
    skipped: int = 0


def predict_many(
    predictor: Any,  # a Segmenter
    images: Sequence[InputImage],
    finished: Manifest,
    outputs: Sequence[str],
    *,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> BatchResult:
    """Labels images and writes the results, but for those that are finished.

    Args:
        finished: the record of the folder that they go to.
        outputs: see `save_outputs`.
        again: also those that are finished.
        progress: told how many images are done, of how many; of a single one that is read in
            windows, how many rows; of a single video, how many frames.

    Raises:
        FullconvError: a result that cannot be written.
    """
    sources = [[file_stamp(path) for path in (one.path, *one.beside)] for one in images]
    earlier = [
        None if again else finished.result(one.stem, of, outputs)
        for one, of in zip(images, sources, strict=True)
    ]
    left = [k for k, found in enumerate(earlier) if found is None]
    done = BatchResult(skipped=len(images) - len(left))
    results: dict[int, dict[str, Any]] = {}
    for k, found in enumerate(earlier):
        if found is not None:
            results[k] = {**found, "source": str(images[k].path)}
            with suppress(OSError):  # of a process that was killed when all was moved
                _part(finished.out / images[k].stem).rmdir()
    progress(done.skipped, len(images))
    with short_switch_interval(), Pipeline(predictor, finished, outputs) as line:
        todo = [(images[k], sources[k]) for k in left]
        for count, (k, made) in enumerate(zip(left, line.run(todo, progress), strict=True), 1):
            if isinstance(made, FullconvError):
                done.failed.append(made)
            else:
                results[k] = made
            progress(done.skipped + count, len(images))
    done.results = [results[k] for k in sorted(results)]
    return done


class Pipeline:
    """Readers, the network and writers. Left early, nothing is begun that was not."""

    def __init__(self, predictor: Any, finished: Manifest, outputs: Sequence[str]) -> None:
        self.predictor, self.finished, self.outputs = predictor, finished, outputs
        self.count = min(MOST_THREADS, max(2, cpu_count() // 2))
        self.room = PixelBudget(PIXELS)
        self.readers = ThreadPoolExecutor(self.count, "reading", lower_thread_priority)
        self.writers = ThreadPoolExecutor(self.count, "writing", lower_thread_priority)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.room.close()
        for pool in (self.readers, self.writers):
            pool.shutdown(cancel_futures=True)
        self.finished.close()

    def run(
        self,
        todo: Sequence[tuple[InputImage, Sequence[Seen | None]]],
        progress: Callable[[int, int], None],
    ) -> Iterator[dict[str, Any] | FullconvError]:
        """What is found in each image, or why it cannot be read; as soon as those before it are
        written."""
        ahead: deque[Future[_Read]] = deque()
        behind: deque[Future[dict[str, Any]] | FullconvError] = deque()
        for k, (image, sources) in enumerate(todo):
            while len(ahead) + k < min(len(todo), k + 2 * self.count):
                turn = len(ahead) + k
                ahead.append(self.readers.submit(self._read, todo[turn][0].path, turn))
            try:
                read = ahead.popleft().result()
                if read.pixels is None:
                    told = progress if len(todo) == 1 else lambda done, of: None
                    behind.append(_already(self._in_parts(image, sources, told)))
                else:
                    found = self._segmented(image, read)
                    write = self.writers.submit(self._write, found, image, sources, read.room)
                    behind.append(write)
            except UnwrittenError as error:
                raise FullconvError(error.message, error.hint) from error
            except FullconvError as error:  # one bad image does not cost the others
                behind.append(error)
            while behind and (len(behind) > 2 * self.count or _is_ready(behind[0])):
                yield _result(behind.popleft())
        while behind:
            yield _result(behind.popleft())

    def _read(self, path: Path, turn: int) -> _Read:
        """In a thread."""
        inside = 0
        try:
            size = raster_size(path)
            windows = size and not self.predictor.extra_inputs and self.predictor.needs_tiling(size)
            if is_video(path) or windows:
                return _Read(None, 0)
            inside = size[0] * size[1] if size else pixels_to_decode(path)
        finally:
            self.room.enter(turn, inside)  # also where it cannot be read: those behind it wait
        try:
            if size:
                pixels, place = read_georeferenced(path)
                return _Read(pixels, inside, place)
            return _Read(read_image(path), inside)
        except BaseException:
            self.room.leave(inside)
            raise

    def _segmented(self, image: InputImage, read: _Read) -> Segmentation:
        try:
            found: Segmentation = self.predictor.segment(read.pixels, extra_inputs=image.beside)
        except BaseException:
            self.room.leave(read.room)
            raise
        return found.of_file(image.path, read.place)

    def _in_parts(
        self,
        image: InputImage,
        sources: Sequence[Seen | None],
        progress: Callable[[int, int], None],
    ) -> dict[str, Any]:
        """Of what is never in memory as a whole."""
        predict: Callable[..., dict[str, Any]] = predict_video
        if not is_video(image.path):
            from fullconv.inference.geotiff import predict_raster  # which needs torch

            predict = predict_raster
        with staging_dir(self.finished.out / image.stem) as stem:
            found = predict(self.predictor, image.path, stem, self.outputs, progress=progress)
            return self._moved(image, sources, [Path(path) for path in found["files"]], found)

    def _write(
        self,
        segmentation: Segmentation,
        image: InputImage,
        sources: Sequence[Seen | None],
        room: int,
    ) -> dict[str, Any]:
        """In a thread."""
        try:
            with staging_dir(self.finished.out / image.stem) as stem:
                files = save_outputs(segmentation, stem, self.outputs)
                return self._moved(image, sources, files, segmentation.to_dict())
        finally:
            self.room.leave(room)

    def _moved(
        self,
        image: InputImage,
        sources: Sequence[Seen | None],
        files: Sequence[Path],
        result: dict[str, Any],
    ) -> dict[str, Any]:
        place = (self.finished.out / image.stem).parent
        moves = {file: place / file.name for file in files}
        self.finished.add(image.stem, sources, self.outputs, moves, result)
        for file, to in moves.items():
            with creating(to):
                os.replace(file, to)
        return {**result, "files": [str(path) for path in moves.values()]}


@dataclass(frozen=True)
class _Read:
    """An image in memory, (H, W, 3) uint8 RGB, None if it is read in windows or frame by frame;
    how many pixels of the room it takes; its georeference."""

    pixels: np.ndarray | None
    room: int
    place: GeoReference | None = None


class PixelBudget:
    """Lets images in, one after the other, while those inside have few enough pixels together,
    or when nothing is inside."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._inside, self._turn = pixels, 0, 0
        self._closed = False
        self._change = threading.Condition()

    def enter(self, turn: int, pixels: int) -> None:
        """Waits for its turn, from 0, and for room."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._fits(turn, pixels))
            if self._closed:
                raise CancelledError
            self._turn += 1
            self._inside += pixels
            self._change.notify_all()

    def leave(self, pixels: int) -> None:
        """So many are written, or were not to be read."""
        with self._change:
            self._inside -= pixels
            self._change.notify_all()

    def close(self) -> None:
        """Nobody is to enter any more; those who wait are sent away."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _fits(self, turn: int, pixels: int) -> bool:
        fits = not self._inside or self._inside + pixels <= self._pixels
        return turn == self._turn and fits


@contextmanager
def staging_dir(stem: Path) -> Iterator[Path]:
    """The same name in a hidden folder beside it, which is gone afterwards."""
    part = _part(stem)
    with creating(stem):
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
    try:
        yield part / stem.name
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part(stem: Path) -> Path:
    return stem.with_name(PART + stem.name)


def _already(result: dict[str, Any]) -> Future[dict[str, Any]]:
    made: Future[dict[str, Any]] = Future()
    made.set_result(result)
    return made


def _is_ready(one: Future[dict[str, Any]] | FullconvError) -> bool:
    return isinstance(one, FullconvError) or one.done()


def _result(one: Future[dict[str, Any]] | FullconvError) -> dict[str, Any] | FullconvError:
    return one if isinstance(one, FullconvError) else one.result()
