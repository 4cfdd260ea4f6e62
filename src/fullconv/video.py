"""Videos: labels for every frame, as a video again, with the time stamps and the sound of the
source. PyAV reads and writes; a frame at a time is held, whatever the length.

    overlay, color   H.264, to look at: NAME_overlay.mp4, and NAME_legend.png
    mask             FFV1, without loss: NAME_mask.mkv, whose grey values are class ids

Nothing here needs torch. Shapes: H, W frame, upright.
"""

from __future__ import annotations

import importlib
import io
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv import draw
from fullconv.data.masks import mask_dtype
from fullconv.errors import FullconvError, plural
from fullconv.outputs import Segmentation, mark
from fullconv.segmenter import Segmenter

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
KINDS = ("overlay", "color", "mask", "json")
_H264 = {"crf": "20", "preset": "fast"}  # hardly to be told from the source
_BT709 = 1  # as players take colours that say nothing of themselves, and as these do say
_LOST = 2  # frames that a file may announce and not show, without being called damaged


def is_video(path: Path) -> bool:
    """By its suffix."""
    return path.suffix.lower() in SUFFIXES


def predict_video(
    segmenter: Segmenter,
    source: str | Path,
    stem: str | Path,
    outputs: Sequence[str] = ("overlay",),
    *,
    every: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Labels the frames of a video.

    Frames are turned upright, as players show them. Overlay and color get a row or a column more
    where H or W is odd, which H.264 cannot have, and the sound of the source as it is.

    Args:
        stem: the results are `stem` + "_overlay.mp4" and so on; of further heads `stem` + "_HEAD".
        outputs: of overlay, color, mask, json.
        every: label each so-many-th frame; those between show the labels of the one before.
        progress: told how many frames are done, of how many.

    Returns:
        source, height, width, frames, labelled (frames that the network saw), seconds (to the last
        frame), "area": the mean share of each class in the labelled frames; that of further heads
        under "heads"; "damaged": what kept it from being read to its end, else null; files.

    Raises:
        FullconvError: PyAV is missing, a file that cannot be read or written, no such output, or a
            model that takes more than pictures.
    """
    source, stem = Path(source), Path(stem)
    _require(segmenter, source, outputs, every)
    with ExitStack() as stack:
        film = stack.enter_context(Film.opened(source))
        results = _Results(stem, [kind for kind in outputs if kind != "json"], film, stack)
        found: Segmentation | None = None
        for number, item in enumerate(film.frames(results.sound)):
            if found is None or number % every == 0:
                found = segmenter.segment(item.pixels)
                results.count(found)
            results.add(replace(found, picture=item.pixels), item)
            progress(number + 1, max(film.announced, number + 1))
    facts = {"source": str(source), **film.facts(), **results.facts()}
    files = results.files
    if "json" in outputs:
        files.append(stem.with_name(f"{stem.name}.json"))
        files[-1].write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return {**facts, "files": [str(path) for path in files]}


def _require(segmenter: Segmenter, source: Path, outputs: Sequence[str], every: int) -> None:
    further = [kind for kind in outputs if kind not in KINDS]
    if further:
        raise FullconvError(
            f"of a video there is no {further[0]}; there are {', '.join(KINDS)}.",
            "--save overlay,mask",
        )
    if every < 1:
        raise FullconvError(
            f"every {every} frames; expected 1 or more.", "--every 5   # each fifth frame"
        )
    if segmenter.inputs:
        raise FullconvError(
            f"the model takes {segmenter.inputs[0].name} beside each picture, which {source} has "
            "not.",
            "fullconv predict MODEL PICTURES --inputs FOLDERS   # of its frames",
        )


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise FullconvError(
            "videos are read with PyAV, which is not installed.", 'pip install "fullconv[video]"'
        ) from error


@dataclass(frozen=True)
class Frame:
    """A frame: (H, W, 3) uint8 RGB, upright; when it is shown and how long, in the time base of its
    video."""

    pixels: NDArray[np.uint8]
    at: int
    duration: int


class Film:
    """A video that is read once, from its beginning.

    Attributes:
        size: (H, W) of its frames, upright.
        announced: how many frames its header promises; 0 where it does not say.
        rate, time_base, aspect: frames per second on average, seconds per unit of time stamps, and
            width by height of a pixel.
        damaged: what kept it from being read to its end; empty where nothing did.
    """

    def __init__(self, source: Path, container: Any, first: Any) -> None:
        self.source, self.container, self.damaged = source, container, ""
        self.video = container.streams.best("video")
        self.sounds = list(container.streams.audio)
        self.announced = int(self.video.frames)
        self.size = upright(first, first.to_ndarray(format="rgb24")).shape[:2]
        self.rate = Fraction(self.video.average_rate or self.video.guessed_rate or 25)
        self.time_base = Fraction(self.video.time_base or 1 / self.rate)
        aspect = Fraction(self.video.sample_aspect_ratio or 1)
        self.aspect = 1 / aspect if first.rotation % 180 and aspect else aspect
        self.count, self.seconds, self.end = 0, 0.0, 0.0

    @classmethod
    @contextmanager
    def opened(cls, source: Path) -> Iterator[Film]:
        """A file, of which the first frame could be read.

        Raises:
            FullconvError: there is none.
        """
        av = _av()
        if not source.is_file():
            raise FullconvError(
                f"no video {source}: there is no such file.", "fullconv predict MODEL clip.mp4"
            )
        try:
            with av.open(str(source)) as container:
                video = container.streams.best("video")
                first = next(container.decode(video), None) if video else None
        except av.FFmpegError as error:
            raise FullconvError(
                f"{source} cannot be read as a video: {_said(error)}.", "copy or download it again"
            ) from error
        if first is None:
            raise FullconvError(
                f"{source} shows no frame; expected a video.", "fullconv predict MODEL clip.mp4"
            )
        with av.open(str(source)) as container:
            yield cls(source, container, first)

    def frames(self, sound: Callable[[Any], None]) -> Iterator[Frame]:
        """One after the other, up to where it is damaged; what is heard between goes to `sound`."""
        self.video.thread_type = "AUTO"
        for packet in self._packets():
            if packet is not None and packet.stream.type == "audio":
                if packet.dts is not None:  # else it only says that this was all
                    sound(packet)
                continue
            yield from map(self._frame, self._decoded(packet))
        early = self._promised() - self.end > float((_LOST + 1) / self.rate)
        if early or self.count < self.announced - _LOST:
            self.damaged = self.damaged or "it ends early"

    def _promised(self) -> float:
        """How many seconds its header says that its frames last; 0 where it does not."""
        if self.video.duration:
            return float((self.video.duration + (self.video.start_time or 0)) * self.time_base)
        said = self.video.metadata.get("DURATION", "0")  # of Matroska: 00:01:02.345
        with suppress(ValueError):
            parts = [float(part) for part in reversed(said.split(":"))]
            return sum(part * 60**power for power, part in enumerate(parts))
        return 0.0

    def _packets(self) -> Iterator[Any]:
        """As they are stored; None at the end of a file that is damaged there."""
        try:
            yield from self.container.demux(self.video, *self.sounds)
        except _av().FFmpegError as error:
            self.damaged = self.damaged or _said(error)
            yield None

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            if packet is not None and packet.is_corrupt:
                self.damaged = self.damaged or "a part of it is broken"
            return list(self.video.decode(packet))
        except _av().FFmpegError as error:
            self.damaged = self.damaged or _said(error)
            return []

    def _frame(self, frame: Any) -> Frame:
        pixels = frame.to_ndarray(format="rgb24", width=self.video.width, height=self.video.height)
        step = max(1, round(1 / self.rate / self.time_base))
        at = frame.pts if frame.pts is not None else self.count * step
        self.count += 1
        self.seconds = float(at * self.time_base)
        self.end = float((at + (frame.duration or step)) * self.time_base)
        return Frame(np.ascontiguousarray(upright(frame, pixels)), at, frame.duration or step)

    def facts(self) -> dict[str, Any]:
        """Of what was read."""
        height, width = self.size
        facts = {"height": height, "width": width, "frames": self.count, "seconds": self.seconds}
        if not self.damaged:
            return {**facts, "damaged": None}
        promised = f" of {self.announced}" if self.announced else ""
        read = f"{plural(self.count, 'frame')}{promised} could be read"
        return {**facts, "damaged": f"{self.source}: {self.damaged}; {read}"}


def upright(frame: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """As players show the pixels of a frame, by its rotation."""
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


class _Results:
    """The files of a video, opened when the first labels are there."""

    def __init__(self, stem: Path, kinds: Sequence[str], film: Film, stack: ExitStack) -> None:
        self.stem, self.kinds, self.film, self.stack = stem, kinds, film, stack
        self.files: list[Path] = []
        self.areas: dict[str, dict[str, float]] = {}
        self.labelled = 0
        self._writers: dict[tuple[str, str], _Writer] = {}
        self._unheard: list[Any] = []  # before the first frame

    def count(self, found: Segmentation) -> None:
        """Labels that the network gave."""
        self.labelled += 1
        for name, head in {"": found, **found.heads}.items():
            total = self.areas.setdefault(name, {})
            for of, share in head.to_dict()["area"].items():
                total[of] = total.get(of, 0) + share

    def add(self, found: Segmentation, frame: Frame) -> None:
        """A frame and its labels."""
        if not self._writers:
            self._open(found)
        for (name, _), writer in self._writers.items():
            of_head = found.heads[name] if name else found
            writer.add(replace(of_head, picture=frame.pixels), frame)

    def sound(self, packet: Any) -> None:
        """What is heard at that place."""
        if not self._writers:
            self._unheard.append(packet)
        for (_, kind), writer in self._writers.items():
            if kind != "mask":
                writer.copy(packet)

    def _open(self, found: Segmentation) -> None:
        for name, head in {"": found, **found.heads}.items():
            stem = self.stem.with_name(f"{self.stem.name}_{name}" if name else self.stem.name)
            for kind in self.kinds:
                writer = self.stack.enter_context(_Writer(stem, kind, self.film, head))
                self._writers[name, kind] = writer
                self.files.append(writer.path)
            if {"overlay", "color"} & {*self.kinds}:
                self.files.append(stem.with_name(f"{stem.name}_legend.png"))
                legend = Image.fromarray(draw.legend(head.shown()[1]))
                legend.save(self.files[-1], pnginfo=mark())
        for packet in self._unheard:
            self.sound(packet)
        self._unheard = []

    def facts(self) -> dict[str, Any]:
        """How many frames were labelled, and the mean areas."""
        means = {
            name: {of: share / self.labelled for of, share in total.items()}
            for name, total in self.areas.items()
        }
        facts = {"labelled": self.labelled, "area": means.pop("", {})}
        return {**facts, **({"heads": means} if means else {})}


class _Writer:
    """A video that is written: whole, or not at all."""

    def __init__(self, stem: Path, kind: str, film: Film, found: Segmentation) -> None:
        self.kind, self.film, self.dtype = kind, film, mask_dtype(found.labels)
        av = _av()
        suffix = ".mkv" if kind == "mask" or not _fit_mp4(av, film.sounds) else ".mp4"
        self.path = stem.with_name(f"{stem.name}_{kind}{suffix}")
        name = f".{self.path.stem}-{uuid.uuid4().hex}.unfinished{suffix}"
        self._unfinished = self.path.with_name(name)
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
            self._file = av.open(str(self._unfinished), "w", options=options)
            height, width = film.size
            lossy = kind != "mask"
            self.video = self._file.add_stream(
                "libx264" if lossy else "ffv1", rate=film.rate, options=_H264 if lossy else {}
            )
            self.video.width = width + width % 2 * lossy
            self.video.height = height + height % 2 * lossy
            grey = "gray" if self.dtype == np.uint8 else "gray16le"
            self.video.pix_fmt = "yuv420p" if lossy else grey
            self.video.codec_context.time_base = film.time_base
            self.video.sample_aspect_ratio = film.aspect
            if lossy:
                for tag in ("color_primaries", "color_trc", "colorspace", "color_range"):
                    setattr(self.video.codec_context, tag, _BT709)
            sounds = film.sounds if lossy else []
            self._sounds = {
                sound.index: self._file.add_stream_from_template(sound) for sound in sounds
            }

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                with self._writing():
                    self._file.mux(self.video.encode(None))
                    self._file.close()
                    self._unfinished.replace(self.path)
            else:
                self._file.close()
        finally:
            self._unfinished.unlink(missing_ok=True)

    def add(self, found: Segmentation, frame: Frame) -> None:
        """The labels over a frame."""
        av = _av()
        with self._writing():
            if self.kind == "mask":
                made = av.VideoFrame.from_ndarray(
                    found.mask.astype(self.dtype), format=self.video.pix_fmt
                )
            else:
                drawn = found.overlay(legend=False) if self.kind == "overlay" else found.color()
                pixels = np.asarray(drawn)
                odd = [(0, side % 2) for side in pixels.shape[:2]]
                pixels = np.pad(pixels, [*odd, (0, 0)], mode="edge")
                made = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
                )
            made.pts, made.time_base, made.duration = frame.at, self.film.time_base, frame.duration
            self._file.mux(self.video.encode(made))

    def copy(self, packet: Any) -> None:
        """Sound, as it is."""
        with self._writing():
            index, stream = packet.stream.index, packet.stream
            packet.stream = self._sounds[index]
            self._file.mux(packet)
            packet.stream = stream  # for the next file

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, _av().FFmpegError) as error:
            raise FullconvError(
                f"the result could not be written to {self.path}: {_said(error)}.",
                "--out ANOTHER_FOLDER   # or df -h, if the disk is full",
            ) from error


def _fit_mp4(av: Any, sounds: Sequence[Any]) -> bool:
    """Whether MP4 holds the sound; Matroska holds any."""
    if not sounds:
        return True
    known = av.open(io.BytesIO(), "w", format="mp4").supported_codecs
    return all(sound.codec_context.name in known for sound in sounds)


def _said(error: Exception) -> str:
    """In the library's words, without its numbers."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")
