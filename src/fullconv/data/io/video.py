"""Videos, frame by frame with PyAV, however long they are.

PyAV is an extra (`pip install av`) and imported where it is used.

Shapes: H, W frame, upright.
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
from fullconv.core.text import plural

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".mts", ".3gp"}
)
NO_PYAV = "which is read with PyAV, and that is not installed"
INSTALL = "pip install av"
SOFTWARE_KEY = "comment"  # the metadata that each of the formats keeps
_LOST = 2.0  # frames that a header may promise too many, without the file being called damaged


def is_video(path: Path) -> bool:
    """By its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def open_video(path: Path, mode: str = "r", **options: Any) -> Any:
    """A file as PyAV has it, to read or to write; 12:30.mp4 is a file too, and no address.

    Raises:
        FullconvError: PyAV is not installed.
    """
    try:
        # Metadata are of any encoding, whatever they should be.
        return load_pyav().open(f"file:{path}", mode, metadata_errors="replace", **options)
    except ImportError as error:
        raise FullconvError(f"{path} is a video, {NO_PYAV}.", INSTALL) from error


def load_pyav() -> Any:
    """The module."""
    return importlib.import_module("av")


def video_software_tag(path: Path) -> str:
    """What a video says of who made it; empty where it says nothing, or cannot be read."""
    with suppress(FullconvError), _reading(path), open_video(path) as container:
        return str(
            {key.lower(): of for key, of in container.metadata.items()}.get(SOFTWARE_KEY, "")
        )
    return ""  # reading it as a video will say what is wrong with it


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    try:
        yield
    except FullconvError:
        raise
    except (load_pyav().FFmpegError, OSError) as error:
        raise FullconvError(
            f"{source} cannot be read as a video: {library_message(error)}.",
            "copy or download it again",
        ) from error


@dataclass(frozen=True)
class Frame:
    """A frame: (H, W, 3) uint8 RGB, upright; when it is shown and how long, in the time base of its
    video."""

    pixels: NDArray[np.uint8]
    pts: int
    duration: int


class VideoReader:
    """A video that is read once, from its beginning.

    Attributes:
        size: (H, W) of its frames, upright.
        announced_frames: how many frames its header promises; 0 where it does not say.
        rate, time_base, aspect: frames per second on average, seconds per unit of time stamps, and
            width by height of a pixel.
        damaged: what kept it from being read to its end; empty where nothing did.
    """

    def __init__(self, source: Path, container: Any, first: Any) -> None:
        self.source, self.container, self.damaged = source, container, ""
        self.video = container.streams.best("video")
        # Without a codec it is of a kind that nothing here knows, and cannot be copied.
        self.sounds = [one for one in container.streams.audio if one.codec_context is not None]
        self.announced_frames = int(self.video.frames)
        self.size = upright(first, first.to_ndarray(format="rgb24")).shape[:2]
        self.rate = Fraction(self.video.average_rate or self.video.guessed_rate or 25)
        self.time_base = Fraction(self.video.time_base or 1 / self.rate)
        aspect = Fraction(self.video.sample_aspect_ratio or 1) or Fraction(1)
        self.aspect = 1 / aspect if first.rotation % 180 else aspect
        self.count, self.seconds, self._end = 0, 0.0, 0.0
        self._last: int | None = None
        self._heard: dict[int, int] = {}

    @classmethod
    @contextmanager
    def open(cls, source: Path) -> Iterator[VideoReader]:
        """A file, of which the first frame could be read.

        Raises:
            FullconvError: there is none.
        """
        if not source.is_file():
            raise FullconvError(
                f"no video {source}: there is no such file.", "fullconv predict MODEL clip.mp4"
            )
        with _reading(source), open_video(source) as container:
            video = container.streams.best("video")
            first = next(container.decode(video), None) if video else None
        if first is None:
            raise FullconvError(
                f"{source} shows no frame; expected a video.", "fullconv predict MODEL clip.mp4"
            )
        with open_video(source) as container:
            yield cls(source, container, first)

    def frames(self, sound: Callable[[Any], None]) -> Iterator[Frame]:
        """One after the other, up to where it is damaged; what is heard between goes to `sound`."""
        self.video.thread_type = "AUTO"
        for packet in self._packets():
            if packet is not None and packet.stream.type == "audio":
                if self._is_later(packet):
                    sound(packet)
                continue
            yield from map(self._frame, self._decoded(packet))
        if self._promised() - self._end > float((_LOST + 1) / self.rate):
            self.damaged = self.damaged or "it ends early"

    def _is_later(self, packet: Any) -> bool:
        """Than the packet of the same sound before it, as none other may be written."""
        if packet.dts is None:  # it only says that this was all
            return False
        last = self._heard.get(packet.stream.index)
        if last is not None and packet.dts <= last:
            self.damaged = self.damaged or "its sound is broken"
            return False
        self._heard[packet.stream.index] = packet.dts
        return True

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
        except (load_pyav().FFmpegError, OSError) as error:
            self.damaged = self.damaged or library_message(error)
            yield None

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            if packet is not None and packet.is_corrupt:
                self.damaged = self.damaged or "a part of it is broken"
            return list(self.video.decode(packet))
        except (load_pyav().FFmpegError, OSError) as error:
            self.damaged = self.damaged or library_message(error)
            return []

    def _frame(self, frame: Any) -> Frame:
        pixels = frame.to_ndarray(format="rgb24", width=self.video.width, height=self.video.height)
        step = max(1, round(1 / self.rate / self.time_base))
        at = frame.pts if frame.pts is not None else self.count * step
        if self._last is not None:  # a broken file may show two at once, which none may be written
            at = max(at, self._last + 1)
        self._last = at
        self.count += 1
        self.seconds = float(at * self.time_base)
        self._end = float((at + (frame.duration or step)) * self.time_base)
        return Frame(np.ascontiguousarray(upright(frame, pixels)), at, frame.duration or step)

    def to_dict(self) -> dict[str, Any]:
        """Of what was read: height, width, frames, seconds to the last one, damaged."""
        height, width = self.size
        facts = {"height": height, "width": width, "frames": self.count, "seconds": self.seconds}
        if not self.damaged:
            return {**facts, "damaged": None}
        promised = f" of {self.announced_frames}" if self.announced_frames else ""
        read = f"{plural(self.count, 'frame')}{promised} could be read"
        return {**facts, "damaged": f"{self.source}: {self.damaged}; {read}"}


def upright(frame: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """As players show the pixels of a frame, by its rotation."""
    return np.rot90(pixels, round(frame.rotation / 90) % 4)


def library_message(error: Exception) -> str:
    """An error as the library says it, without its numbers."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")
