"""Read videos of any length frame by frame, with PyAV.

PyAV is an optional package (`pip install av`) and is imported inside the functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".mts", ".3gp"}
)
INSTALL_COMMAND = "pip install av"
SOFTWARE_KEY = "comment"  # the metadata key that every video format stores
_MISSING_FRAMES = 2.0  # a header may announce this many too many before the file counts as damaged


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def load_pyav() -> Any:
    """Return the module `av`."""
    return importlib.import_module("av")


def open_video(path: Path, mode: str = "r", **options: Any) -> Any:
    """Open a file with PyAV, to read or to write. Raises a `FullconvError` without PyAV."""
    try:
        # "file:", because 12:30.mp4 would be an address. Metadata may be in any encoding.
        return load_pyav().open(f"file:{path}", mode, metadata_errors="replace", **options)
    except ImportError as error:
        message = msg("{path} is a video. Reading videos requires PyAV.", path=path)
        raise FullconvError(message, INSTALL_COMMAND) from error


def video_software_tag(path: Path) -> str:
    """Return the name of the program that wrote a video; "" if it is not stored or not readable."""
    with suppress(FullconvError), _readable_errors(path), open_video(path) as container:
        metadata = {key.lower(): value for key, value in container.metadata.items()}
        return str(metadata.get(SOFTWARE_KEY, ""))
    return ""  # reading the frames reports what is wrong with the file


@contextmanager
def _readable_errors(source: Path) -> Iterator[None]:
    try:
        yield
    except FullconvError:
        raise
    except (load_pyav().FFmpegError, OSError) as error:
        reason = library_message(error)
        message = msg("{path} cannot be read as a video: {reason}.", path=source, reason=reason)
        raise FullconvError(message, msg("copy or download it again")) from error


@dataclass(frozen=True)
class Frame:
    """A frame: (H, W, 3) uint8 RGB, upright; time stamp and duration in the video's time base."""

    pixels: NDArray[np.uint8]
    pts: int
    duration: int


class VideoReader:
    """A video that is read once, from its beginning.

    Attributes:
        size: (H, W) of the frames, upright.
        announced_frames: number of frames by the header; 0 if unknown.
        rate, time_base: average frames per second; seconds per unit of the time stamps.
        aspect: width by height of a pixel.
        sounds: audio streams.
        damaged: why the video could not be read to its end; "" if it could.
    """

    def __init__(self, source: Path, container: Any, first: Any) -> None:
        self.source, self.container, self.damaged = source, container, ""
        self.video = container.streams.best("video")
        # A stream without a codec context is of a type that FFmpeg does not know, nor can copy.
        streams = container.streams.audio
        self.sounds = [stream for stream in streams if stream.codec_context is not None]
        self.announced_frames = int(self.video.frames)
        self.size = rotate_upright(first, first.to_ndarray(format="rgb24")).shape[:2]
        self.rate = Fraction(self.video.average_rate or self.video.guessed_rate or 25)
        self.time_base = Fraction(self.video.time_base or 1 / self.rate)
        aspect = Fraction(self.video.sample_aspect_ratio or 1) or Fraction(1)
        self.aspect = 1 / aspect if first.rotation % 180 else aspect
        self.count, self.seconds, self._end = 0, 0.0, 0.0
        self._last_pts: int | None = None
        self._last_dts: dict[int, int] = {}  # of each audio stream

    @classmethod
    @contextmanager
    def open(cls, source: Path) -> Iterator[VideoReader]:
        """Open a video and read its first frame. Raises a `FullconvError` if it has none."""
        usage = "fullconv predict MODEL clip.mp4"
        if not source.is_file():
            raise FullconvError(msg("no video {path}: there is no such file.", path=source), usage)
        with _readable_errors(source), open_video(source) as container:
            video = container.streams.best("video")
            first = next(container.decode(video), None) if video else None
        if first is None:
            raise FullconvError(msg("{path} has no frames; expected a video.", path=source), usage)
        with open_video(source) as container:
            yield cls(source, container, first)

    def frames(self, sound: Callable[[Any], None]) -> Iterator[Frame]:
        """Yield the frames up to the end or damage; pass audio packets in between to `sound`."""
        self.video.thread_type = "AUTO"
        for packet in self._packets():
            if packet is not None and packet.stream.type == "audio":
                if self._in_order(packet):
                    sound(packet)
                continue
            yield from map(self._frame, self._decode(packet))
        # Compare with the duration that the header announces.
        announced = 0.0
        if self.video.duration:
            duration = self.video.duration + (self.video.start_time or 0)
            announced = float(duration * self.time_base)
        else:
            clock = self.video.metadata.get("DURATION", "0")  # Matroska: 00:01:02.345
            with suppress(ValueError):
                parts = [float(part) for part in reversed(clock.split(":"))]
                announced = sum(part * 60**power for power, part in enumerate(parts))
        if announced - self._end > float((_MISSING_FRAMES + 1) / self.rate):
            self.damaged = self.damaged or msg("it ends early")

    def to_dict(self) -> dict[str, Any]:
        """Return height, width, frames, seconds up to the last frame, and damage (or None)."""
        height, width = self.size
        facts = {"height": height, "width": width, "frames": self.count, "seconds": self.seconds}
        if not self.damaged:
            return {**facts, "damaged": None}
        values = {"path": self.source, "damage": self.damaged, "announced": self.announced_frames}
        damaged = nmsg(
            "{path}: {damage}; {count} frame could be read",
            "{path}: {damage}; {count} frames could be read",
            self.count,
            **values,
        )
        if self.announced_frames:
            damaged = nmsg(
                "{path}: {damage}; {count} frame of {announced} could be read",
                "{path}: {damage}; {count} frames of {announced} could be read",
                self.count,
                **values,
            )
        return {**facts, "damaged": damaged}

    def _packets(self) -> Iterator[Any]:
        """Yield the packets as they are stored; None where a damaged file ends."""
        try:
            yield from self.container.demux(self.video, *self.sounds)
        except (load_pyav().FFmpegError, OSError) as error:
            self.damaged = self.damaged or library_message(error)
            yield None

    def _in_order(self, packet: Any) -> bool:
        """Return whether an audio packet is later than the one before, as writers require."""
        if packet.dts is None:  # an empty packet marks the end
            return False
        last = self._last_dts.get(packet.stream.index)
        if last is not None and packet.dts <= last:
            self.damaged = self.damaged or msg("its sound is damaged")
            return False
        self._last_dts[packet.stream.index] = packet.dts
        return True

    def _decode(self, packet: Any) -> list[Any]:
        try:
            if packet is not None and packet.is_corrupt:
                self.damaged = self.damaged or msg("a part of it is damaged")
            return list(self.video.decode(packet))
        except (load_pyav().FFmpegError, OSError) as error:
            self.damaged = self.damaged or library_message(error)
            return []

    def _frame(self, frame: Any) -> Frame:
        pixels = frame.to_ndarray(format="rgb24", width=self.video.width, height=self.video.height)
        step = max(1, round(1 / self.rate / self.time_base))
        pts = frame.pts if frame.pts is not None else self.count * step
        if self._last_pts is not None:  # time stamps of a damaged file may repeat; writers refuse
            pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        self.count += 1
        self.seconds = float(pts * self.time_base)
        self._end = float((pts + (frame.duration or step)) * self.time_base)
        upright = np.ascontiguousarray(rotate_upright(frame, pixels))
        return Frame(upright, pts, frame.duration or step)


def rotate_upright(frame: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Rotate the pixels of a frame as players show them."""
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


def library_message(error: Exception) -> str:
    """Return an error message of FFmpeg without its number."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")
