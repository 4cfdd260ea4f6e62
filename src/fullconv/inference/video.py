"""Predict videos: masks for every frame, as a video with the time stamps and sound of the source.

    overlay, color   H.264 for viewing: NAME_overlay.mp4, and NAME_legend.png
    mask             lossless FFV1: NAME_mask.mkv, whose gray values are class ids
    json             NAME.json

One frame is in memory at a time, whatever the length. Nothing here needs torch.
Shapes: H, W frame, upright.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_path, atomic_write
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.core.text import shell_command
from fullconv.data.io.masks import mask_dtype
from fullconv.data.io.video import (
    SOFTWARE_KEY,
    Frame,
    VideoReader,
    library_message,
    load_pyav,
    open_video,
)
from fullconv.inference.result_files import (
    MARK,
    head_stem,
    output_path,
    png_mark,
    require_stream_outputs,
    unwritten_error,
)
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.segmenter import Segmenter
from fullconv.visualization.overlay import legend

_H264 = {"crf": "20", "preset": "fast"}  # visually close to the source
_BT709 = 1  # the color space that players assume without tags; the tags state it too


def predict_video(
    segmenter: Segmenter,
    source: str | Path,
    stem: str | Path,
    outputs: Sequence[str] = ("mask", "overlay"),
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Predict the frames of a video, or every Nth frame if the segmenter's `frame_step` is N; the
    frames in between reuse its mask.

    Frames are turned upright, as players show them. Overlay and color videos get an additional row
    or column if H or W is odd, which H.264 does not support. They keep the sound of the source.

    Args:
        stem: results are `stem` + "_overlay.mp4" and so on; of additional heads `stem` + "_HEAD".
        outputs: of mask, color, overlay, json.
        progress: called with how many frames are done and how many there are.

    Returns:
        The content of NAME.json: `labelled` is the number of frames that the network saw, "area"
            the
        mean share of each class in these, "damaged" why the video could not be read to its end.

    Raises:
        FullconvError: PyAV is not installed, an unreadable file, an unavailable output type, or a
            model with extra inputs; `UnwrittenError` if a result cannot be written.
    """
    source, stem = Path(source), Path(stem)
    require_stream_outputs(outputs, source)
    if segmenter.extra_inputs:
        values = {"name": segmenter.extra_inputs[0].name, "source": source}
        message = msg(
            "the model takes {name} with each image, which the video {source} does not have.",
            **values,
        )
        hint = msg("fullconv predict MODEL IMAGES --extra-inputs FOLDERS   # of its frames")
        raise FullconvError(message, hint)

    # Predict frame by frame, and write each one with its mask.
    with ExitStack() as stack:
        video = stack.enter_context(VideoReader.open(source))
        results = _VideoResults(stem, [kind for kind in outputs if kind != "json"], video, stack)
        segmentation: Segmentation | None = None
        for number, frame in enumerate(video.frames(results.add_sound)):
            if segmentation is None or number % segmenter.options.frame_step == 0:
                segmentation = segmenter.segment(frame.pixels)
                results.count(segmentation)
            results.add_frame(segmentation, frame)
            progress(number + 1, max(video.announced_frames, number + 1))

    # Write the legends and the JSON file.
    table = {"source": str(source), **video.to_dict(), **results.to_dict()}
    files = [*results.files, *results.write_legends()]
    if "json" in outputs:
        files.append(output_path(stem, "json"))
        with _writing(files[-1], source):
            atomic_write(files[-1], json.dumps(table, indent=1))
    return {**table, "files": [str(path) for path in files]}


class _VideoResults:
    """The result files of a video; they are opened at the first frame."""

    def __init__(
        self, stem: Path, kinds: Sequence[str], video: VideoReader, stack: ExitStack
    ) -> None:
        self.stem, self.kinds, self.video, self.stack = stem, kinds, video, stack
        self.files: list[Path] = []
        self.predicted_frames = 0
        self._area_sums: dict[str, dict[str, float]] = {}  # head -> class -> sum of shares
        self._writers: dict[tuple[str, str], _VideoWriter] = {}  # head, kind
        self._legends: dict[Path, Labels] = {}
        self._early_sound: list[Any] = []  # packets before the first frame

    def count(self, segmentation: Segmentation) -> None:
        """Add the areas of a frame that the network saw."""
        self.predicted_frames += 1
        for head, result in {"": segmentation, **segmentation.heads}.items():
            sums = self._area_sums.setdefault(head, {})
            for name, share in result.area.items():
                if share > 0:
                    sums[name] = sums.get(name, 0) + share

    def add_frame(self, segmentation: Segmentation, frame: Frame) -> None:
        if not self._writers and self.kinds:
            self._open(segmentation)
        for (head, _), writer in self._writers.items():
            result = segmentation.heads[head] if head else segmentation
            writer.add(replace(result, image=frame.pixels), frame)

    def add_sound(self, packet: Any) -> None:
        if not self._writers and self.kinds:
            self._early_sound.append(packet)
        for (_, kind), writer in self._writers.items():
            if kind != "mask":
                writer.copy_sound(packet)

    def _open(self, segmentation: Segmentation) -> None:
        for head, result in {"": segmentation, **segmentation.heads}.items():
            stem = head_stem(self.stem, head)
            for kind in self.kinds:
                writer = _VideoWriter(stem, kind, self.video, result.labels)
                self._writers[head, kind] = self.stack.enter_context(writer)
                self.files.append(writer.path)
            if {"overlay", "color"} & {*self.kinds}:
                legend_path = stem.with_name(f"{stem.name}_legend.png")
                self._legends[legend_path] = result.ids_for_drawing()[1]
        packets, self._early_sound = self._early_sound, []
        for packet in packets:
            self.add_sound(packet)

    def write_legends(self) -> list[Path]:
        """Write an image of the classes and their colors for each head, and return the paths."""
        for path, labels in self._legends.items():
            with _writing(path, self.video.source), atomic_path(path) as temporary:
                over_image = "color" not in self.kinds  # otherwise it is the legend of both
                image = Image.fromarray(legend(labels, over_image=over_image))
                image.save(temporary, pnginfo=png_mark())
        return list(self._legends)

    def to_dict(self) -> dict[str, Any]:
        means = {
            head: {name: share / self.predicted_frames for name, share in sums.items()}
            for head, sums in self._area_sums.items()
        }
        table: dict[str, Any] = {"labelled": self.predicted_frames, "area": means.pop("", {})}
        return {**table, "heads": means} if means else table


class _VideoWriter:
    """A video that is written whole or not at all."""

    def __init__(self, stem: Path, kind: str, video: VideoReader, labels: Labels) -> None:
        self.kind, self.source, self.dtype = kind, video, mask_dtype(labels)
        lossy = kind != "mask"
        suffix = ".mp4" if lossy and _supported_by_mp4(video.sounds) else ".mkv"
        self.path = stem.with_name(f"{stem.name}_{kind}{suffix}")
        self._stack = ExitStack()
        with _writing(self.path, video.source):
            temporary = self._stack.enter_context(atomic_path(self.path))
            options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
            self._file = open_video(temporary, "w", options=options)
            self._file.metadata[SOFTWARE_KEY] = MARK[1]
            codec, codec_options = ("libx264", _H264) if lossy else ("ffv1", {})
            self.stream = self._file.add_stream(codec, rate=video.rate, options=codec_options)
            height, width = video.size
            self.stream.width = width + width % 2 * lossy
            self.stream.height = height + height % 2 * lossy
            gray = "gray" if self.dtype == np.uint8 else "gray16le"
            self.stream.pix_fmt = "yuv420p" if lossy else gray
            self.stream.codec_context.time_base = video.time_base
            self.stream.thread_type = "AUTO"  # slices of a frame compress worse in H.264
            self.stream.sample_aspect_ratio = video.aspect
            if lossy:
                for tag in ("color_primaries", "color_trc", "colorspace", "color_range"):
                    setattr(self.stream.codec_context, tag, _BT709)
            self._sounds = {
                sound.index: self._file.add_stream_from_template(sound)
                for sound in (video.sounds if lossy else [])
            }

    def __enter__(self) -> _VideoWriter:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None:
            with suppress(OSError, load_pyav().FFmpegError):  # the first error is reported
                self._file.close()
            self._stack.__exit__(kind, error, traceback)
            return
        with _writing(self.path, self.source.source), self._stack:
            self._file.mux(self.stream.encode(None))
            self._file.close()

    def add(self, segmentation: Segmentation, frame: Frame) -> None:
        av = load_pyav()
        with _writing(self.path, self.source.source):
            if self.kind == "mask":
                ids = segmentation.mask.astype(self.dtype)
                video_frame = av.VideoFrame.from_ndarray(ids, format=self.stream.pix_fmt)
            else:
                is_overlay = self.kind == "overlay"
                image = segmentation.overlay(legend=False) if is_overlay else segmentation.color()
                pixels = np.asarray(image)
                odd = [(0, side % 2) for side in pixels.shape[:2]]
                pixels = np.pad(pixels, [*odd, (0, 0)], mode="edge")
                video_frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
                )
            video_frame.pts, video_frame.duration = frame.pts, frame.duration
            video_frame.time_base = self.source.time_base
            self._file.mux(self.stream.encode(video_frame))

    def copy_sound(self, packet: Any) -> None:
        """Write a packet of sound unchanged."""
        with _writing(self.path, self.source.source):
            stream = packet.stream
            packet.stream = self._sounds[stream.index]
            self._file.mux(packet)
            packet.stream = stream  # for the next file


@contextmanager
def _writing(path: Path, source: Path) -> Iterator[None]:
    """Turn errors of PyAV and the file system into FullconvError."""
    av = load_pyav()
    try:
        yield
    except (av.ArgumentError, av.InvalidDataError, av.PatchWelcomeError) as error:
        values = {"source": source, "suffix": path.suffix, "reason": library_message(error)}
        message = msg(
            "{source} has time stamps or sound that a {suffix} file cannot contain: {reason}.",
            **values,
        )
        hint = shell_command("ffmpeg", "-i", source, "repaired.mp4")
        raise FullconvError(message, hint) from error
    except (OSError, av.FFmpegError) as error:
        raise unwritten_error(path, library_message(error)) from error


def _supported_by_mp4(sounds: Sequence[Any]) -> bool:
    """Return whether MP4 can contain the sound; Matroska can contain any."""
    if not sounds:
        return True
    codecs = load_pyav().open(io.BytesIO(), "w", format="mp4").supported_codecs
    return all(sound.codec_context.name in codecs for sound in sounds)
