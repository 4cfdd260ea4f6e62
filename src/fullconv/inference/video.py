"""Videos: labels for every frame, as a video again, with the time stamps and the sound of the
source. A frame at a time is held, whatever the length.

    overlay, color   H.264, to look at: NAME_overlay.mp4, and NAME_legend.png
    mask             FFV1, without loss: NAME_mask.mkv, whose grey values are class ids
    json             NAME.json

Nothing here needs torch. Shapes: H, W frame, upright.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.labels import Labels
from fullconv.core.text import shell_command
from fullconv.data.io.masks import mask_dtype
from fullconv.data.io.video import SOFTWARE_KEY as MARKED
from fullconv.data.io.video import Frame, VideoReader, library_message, load_pyav, open_video
from fullconv.inference.result_files import MARK, mark, output_path
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import Segmenter
from fullconv.visualization import overlay as draw

KINDS = ("mask", "color", "overlay", "json")
_H264 = {"crf": "20", "preset": "fast"}  # hardly to be told from the source
_BT709 = 1  # as players take colours that say nothing of themselves, and as these do say


def predict_video(
    segmenter: Segmenter,
    source: str | Path,
    stem: str | Path,
    outputs: Sequence[str] = ("mask", "overlay"),
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Labels the frames of a video, or every so many-th, as the options of `segmenter` say; those
    between show the labels of the one before.

    Frames are turned upright, as players show them. Overlay and color get a row or a column more
    where H or W is odd, which H.264 cannot have, and the sound of the source as it is.

    Args:
        stem: the results are `stem` + "_overlay.mp4" and so on; of further heads `stem` + "_HEAD".
        outputs: of mask, color, overlay, json.
        progress: told how many frames are done, of how many.

    Returns:
        source, height, width, frames, labelled (frames that the network saw), seconds (to the last
        frame), "area": the mean share of each class in the labelled frames; that of further heads
        under "heads"; "damaged": what kept it from being read to its end, else null; files.

    Raises:
        FullconvError: PyAV is missing, a file that cannot be read, no such output, or a model that
            takes more than images; `UnwrittenError` where a result cannot be written.
    """
    source, stem, every = Path(source), Path(stem), segmenter.options.frame_step
    _require(segmenter, source, outputs)
    with ExitStack() as stack:
        film = stack.enter_context(VideoReader.open(source))
        results = _Results(stem, [kind for kind in outputs if kind != "json"], film, stack)
        found: Segmentation | None = None
        for number, frame in enumerate(film.frames(results.sound)):
            if found is None or number % every == 0:
                found = segmenter.segment(frame.pixels)
                results.count(found)
            results.add(found, frame)
            progress(number + 1, max(film.announced_frames, number + 1))
    facts = {"source": str(source), **film.to_dict(), **results.facts()}
    files = [*results.files, *results.legends()]
    if "json" in outputs:
        files.append(output_path(stem, "json"))
        with _writing(files[-1], source):
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return {**facts, "files": [str(path) for path in files]}


def _require(segmenter: Segmenter, source: Path, outputs: Sequence[str]) -> None:
    further = [kind for kind in outputs if kind not in KINDS]
    if further:
        raise FullconvError(
            f"{source} is a video, of which there is no {further[0]}; there are "
            f"{', '.join(KINDS)}.",
            "--save mask,overlay",
        )
    if segmenter.extra_inputs:
        raise FullconvError(
            f"the model takes {segmenter.extra_inputs[0].name} beside each image, which {source} has "
            "not.",
            "fullconv predict MODEL IMAGES --extra-inputs FOLDERS   # of its frames",
        )


class _Results:
    """The files of a video, opened when the first labels are there."""

    def __init__(
        self, stem: Path, kinds: Sequence[str], film: VideoReader, stack: ExitStack
    ) -> None:
        self.stem, self.kinds, self.film, self.stack = stem, kinds, film, stack
        self.files: list[Path] = []
        self.areas: dict[str, dict[str, float]] = {}
        self.labelled = 0
        self._writers: dict[tuple[str, str], _Writer] = {}
        self._legends: dict[Path, Labels] = {}
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
        if not self._writers and self.kinds:
            self._open(found)
        for (name, _), writer in self._writers.items():
            writer.add(replace(found.heads[name] if name else found, image=frame.pixels), frame)

    def sound(self, packet: Any) -> None:
        """What is heard at that place."""
        if not self._writers and self.kinds:
            self._unheard.append(packet)
        for (_, kind), writer in self._writers.items():
            if kind != "mask":
                writer.copy(packet)

    def _open(self, found: Segmentation) -> None:
        for name, head in {"": found, **found.heads}.items():
            stem = self.stem.with_name(f"{self.stem.name}_{name}" if name else self.stem.name)
            for kind in self.kinds:
                writer = self.stack.enter_context(_Writer(stem, kind, self.film, head.labels))
                self._writers[name, kind] = writer
                self.files.append(writer.path)
            if {"overlay", "color"} & {*self.kinds}:
                self._legends[stem.with_name(f"{stem.name}_legend.png")] = head.shown()[1]
        unheard, self._unheard = self._unheard, []
        for packet in unheard:
            self.sound(packet)

    def legends(self) -> list[Path]:
        """The classes and their colours, an image for each head; written."""
        for path, labels in self._legends.items():
            with _writing(path, self.film.source):
                over = "color" not in self.kinds  # else it is the legend of both
                legend = draw.legend(labels, over_image=over)
                Image.fromarray(legend).save(path, pnginfo=mark())
        return list(self._legends)

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

    def __init__(self, stem: Path, kind: str, film: VideoReader, labels: Labels) -> None:
        self.kind, self.film, self.dtype = kind, film, mask_dtype(labels)
        suffix = ".mkv" if kind == "mask" or not _fit_mp4(film.sounds) else ".mp4"
        self.path = stem.with_name(f"{stem.name}_{kind}{suffix}")
        name = f".{self.path.stem}-{uuid.uuid4().hex}.unfinished{suffix}"
        self._unfinished = self.path.with_name(name)
        with _writing(self.path, self.film.source):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
            self._file = open_video(self._unfinished, "w", options=options)
            self._file.metadata[MARKED] = MARK[1]
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
            self.video.thread_type = "AUTO"  # else slices of a frame, which H.264 packs worse
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
                with _writing(self.path, self.film.source):
                    self._file.mux(self.video.encode(None))
                    self._file.close()
                    self._unfinished.replace(self.path)
            else:
                with suppress(
                    OSError, load_pyav().FFmpegError
                ):  # the first error is the one to tell
                    self._file.close()
        finally:
            self._unfinished.unlink(missing_ok=True)

    def add(self, found: Segmentation, frame: Frame) -> None:
        """The labels over a frame."""
        av = load_pyav()
        with _writing(self.path, self.film.source):
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
            made.pts, made.time_base, made.duration = frame.pts, self.film.time_base, frame.duration
            self._file.mux(self.video.encode(made))

    def copy(self, packet: Any) -> None:
        """Sound, as it is."""
        with _writing(self.path, self.film.source):
            index, stream = packet.stream.index, packet.stream
            packet.stream = self._sounds[index]
            self._file.mux(packet)
            packet.stream = stream  # for the next file


@contextmanager
def _writing(path: Path, source: Path) -> Iterator[None]:
    av = load_pyav()
    try:
        yield
    except (av.ArgumentError, av.InvalidDataError, av.PatchWelcomeError) as error:
        raise FullconvError(
            f"{source} has times or a sound that no {path.suffix} file holds: {library_message(error)}.",
            shell_command("ffmpeg", "-i", source, "mended.mp4"),
        ) from error
    except (OSError, av.FFmpegError) as error:
        raise UnwrittenError(
            f"the result could not be written to {path}: {library_message(error)}.",
            "--out ANOTHER_FOLDER   # or df -h, if the disk is full",
        ) from error


def _fit_mp4(sounds: Sequence[Any]) -> bool:
    """Whether MP4 holds the sound; Matroska holds any."""
    if not sounds:
        return True
    known = load_pyav().open(io.BytesIO(), "w", format="mp4").supported_codecs
    return all(sound.codec_context.name in known for sound in sounds)
