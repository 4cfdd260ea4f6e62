"""What was named on the command line: files, folders, patterns and lists of paths.

photos/                 a folder, with all below
photos/**/*.jpg         a pattern that no shell has expanded
@list.txt               a file with a path a line, relative to its folder; # begins a comment
@-                      the same from standard input, relative to the current folder
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.io.images import IMAGE_SUFFIXES
from fullconv.data.io.video import VIDEO_SUFFIXES
from fullconv.inference.result_files import (
    is_own_output,
)

STANDARD_INPUT = "@-"
_SUFFIXES = (*sorted(IMAGE_SUFFIXES), *sorted(VIDEO_SUFFIXES))


def find_inputs(words: Sequence[Path], left_out: list[Path]) -> list[tuple[Path, Path]]:
    """Every image and video that the words name, once, each with the name that its results get:
    relative to the folder, to the fixed beginning of a pattern, or to the place of a list, without
    the suffix. In the order of the words, sorted within folders and patterns.

    Results of earlier runs among them are no images; they are added to `left_out`. A path in a
    list is taken whether or not there is such a file: reading it will say so.

    Raises:
        FullconvError: nothing of that name, no image in it, or a list that is none.
    """
    seen: set[str] = set()

    def once() -> Iterator[tuple[Path, Path]]:
        for word in words:
            for path, name in _named(word, left_out):
                key = os.path.abspath(path)
                if key not in seen:
                    seen.add(key)
                    yield path, name

    return list(with_stems(once()))


def _named(word: Path, left_out: list[Path]) -> Iterator[tuple[Path, Path]]:
    text = str(word)
    if text.startswith("@") and not word.exists():
        return _of_list(text[1:], left_out)
    if glob.has_magic(text) and not word.exists():
        return _of_pattern(text, left_out)
    return images_below(word, left_out, _SUFFIXES)


def _of_pattern(pattern: str, left_out: list[Path]) -> Iterator[tuple[Path, Path]]:
    parts = Path(pattern).parts
    fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    found = [
        path
        for path in map(Path, sorted(glob.glob(pattern, recursive=True)))
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    ]
    images = _without_results(found, left_out)
    if not images:
        raise FullconvError(
            f"no image fits {pattern}{' but results of earlier runs' if found else ''}; looked "
            f"for {', '.join(_SUFFIXES)}.",
            shell_command("ls", root),
        )
    yield from ((path, path.relative_to(root)) for path in images)


def _of_list(name: str, left_out: list[Path]) -> Iterator[tuple[Path, Path]]:
    from_input = f"@{name}" == STANDARD_INPUT
    said = "standard input" if from_input else name
    try:
        content = sys.stdin.buffer.read() if from_input else Path(name).read_bytes()
    except OSError as error:
        raise FullconvError(
            f"the list {said} cannot be read: {error.strerror or error}.",
            "fullconv predict MODEL @list.txt   # a file with a path a line",
        ) from error
    if b"\0" in content:
        raise FullconvError(
            f"{said} is no list: it holds zero bytes; expected text in UTF-8, a path a line.",
            "find photos -name '*.jpg' > list.txt",
        )
    lines = [
        line.strip() for line in os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n")
    ]
    paths = [line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise FullconvError(
            f"{said} names no image; expected a path a line.",
            "find photos -name '*.jpg' | fullconv predict MODEL -",
        )
    place = Path() if from_input else Path(name).parent
    for path in _without_results([place / line for line in paths], left_out):
        if path.is_dir():
            yield from images_below(path, left_out, _SUFFIXES)
        else:
            yield path, _below(path, place)


def _below(path: Path, place: Path) -> Path:
    """Where its results go: as it lies below the list's place; from elsewhere with all of its
    folders, so that two of the same name stay apart."""
    whole, root = Path(os.path.abspath(path)), Path(os.path.abspath(place))
    return whole.relative_to(root if whole.is_relative_to(root) else whole.anchor)


def _without_results(found: list[Path], left_out: list[Path]) -> list[Path]:
    images: list[Path] = []
    for path in found:
        (left_out if is_own_output(path) else images).append(path)
    return images


def find_images(
    paths: Sequence[str | Path], *, left_out: list[Path] | None = None
) -> Iterator[tuple[Path, Path]]:
    """Every image among files and folders (with all below, but for what is hidden), each with
    the name that its results get: relative to the folder it was found in, without the suffix.
    Where that was given away, the suffix (a.png: a_png) and then a number make it another one.

    Results that `save_outputs` wrote into a folder are no images; they are added to `left_out`.
    A file that is named itself is always taken.
    """
    skipped = left_out if left_out is not None else []
    return with_stems(pair for path in paths for pair in images_below(Path(path), skipped))


def with_stems(found: Iterable[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    """Images and their relative paths -> images and the names of their results, each another
    one, see `find_images`."""
    taken: set[Path] = set()
    for path, name in found:
        stem = name.with_suffix("")
        if stem in taken:
            stem = name.with_name(name.name.replace(".", "_"))
        first, number = stem, 1
        while stem in taken:
            number += 1
            stem = first.with_name(f"{first.name}_{number}")
        taken.add(stem)
        yield path, stem


def images_below(
    given: Path, left_out: list[Path], suffixes: Sequence[str] = tuple(sorted(IMAGE_SUFFIXES))
) -> Iterator[tuple[Path, Path]]:
    """An image, or all in a folder, each with its path relative to that."""
    if given.is_file():
        yield given, Path(given.name)
    elif given.is_dir():
        found = sorted(
            p
            for p in given.rglob("*")
            if p.suffix.lower() in suffixes
            and p.is_file()
            and not any(part.startswith(".") for part in p.relative_to(given).parts)
        )
        images: list[Path] = []
        for path in found:
            (left_out if is_own_output(path) else images).append(path)
        if not images:
            raise FullconvError(
                f"no image in {given}{' but results of earlier runs' if found else ''}; "
                f"looked for {', '.join(suffixes)}.",
                "fullconv predict MODEL photo.jpg",
            )
        yield from ((path, path.relative_to(given)) for path in images)
    else:
        raise FullconvError(
            f"no image or folder {given}: there is nothing of that name.",
            "fullconv predict MODEL photo.jpg",
        )
