"""Images and videos named on the command line: files, folders, patterns and lists of paths.

photos/                 a folder and its subfolders
photos/**/*.jpg         a pattern that the shell did not expand
@list.txt               a file with one path per line, relative to its folder; # starts a comment
@-                      the same from standard input, relative to the current folder
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command
from fullconv.data.io.images import IMAGE_SUFFIXES
from fullconv.data.io.video import VIDEO_SUFFIXES
from fullconv.inference.result_files import is_own_output

STANDARD_INPUT = "@-"
_USAGE = "fullconv predict MODEL photo.jpg"
_IMAGES = tuple(sorted(IMAGE_SUFFIXES))
_IMAGES_AND_VIDEOS = (*_IMAGES, *sorted(VIDEO_SUFFIXES))


def find_inputs(words: Sequence[Path], skipped: list[Path]) -> list[tuple[Path, Path]]:
    """Return each image and video that the words name, once, with the stem of its results.

    The stem is relative to the folder, to the fixed part of a pattern, or to the folder of a list,
    without suffix. Order: that of the words, sorted within folders and patterns. Results of earlier
    runs are added to `skipped`. A path in a list is returned even if there is no such file; reading
    it reports the error.

    Raises:
        FullconvError: a word names nothing or no image, or a list cannot be read.
    """
    first_words: dict[str, tuple[Path, Path]] = {}
    for word in words:
        is_named, text = word.exists(), str(word)
        if text.startswith("@") and not is_named:
            pairs = _find_in_list(text[1:], skipped)
        elif glob.has_magic(text) and not is_named:
            pairs = _find_by_pattern(text, skipped)
        else:
            pairs = _find_in(word, skipped, _IMAGES_AND_VIDEOS)
        for path, name in pairs:
            first_words.setdefault(os.path.abspath(path), (path, name))
    return list(_with_unique_stems(first_words.values()))


def find_images(paths: Sequence[str | Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each image among files and folders with the stem of its results.

    Folders include subfolders but no hidden ones. The stem is relative to the folder, without
    suffix; if it is taken, the suffix (a.png: a_png) and then a number make it unique. Results in
    folders are left out. A file that is named itself is always returned.
    """
    pairs = (_find_in(Path(path), [], _IMAGES) for path in paths)
    return _with_unique_stems(chain.from_iterable(pairs))


def _find_in(
    word: Path, skipped: list[Path], suffixes: Sequence[str]
) -> Iterator[tuple[Path, Path]]:
    """Yield a file, or the images in a folder, each with its path relative to the folder."""
    if word.is_file():
        yield word, Path(word.name)
    elif word.is_dir():
        paths = sorted(
            path
            for path in word.rglob("*")
            if path.suffix.lower() in suffixes
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(word).parts)
        )
        images = _without_results(paths, skipped)
        if not images:
            raise _no_image(word, suffixes, has_results=bool(paths), hint=_USAGE)
        for path in images:
            yield path, path.relative_to(word)
    else:
        raise FullconvError(msg("no image or folder {path}: it does not exist.", path=word), _USAGE)


def _find_by_pattern(pattern: str, skipped: list[Path]) -> Iterator[tuple[Path, Path]]:
    parts = Path(pattern).parts
    fixed_parts = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed_parts])
    paths = [
        path
        for path in map(Path, sorted(glob.glob(pattern, recursive=True)))
        if path.suffix.lower() in _IMAGES_AND_VIDEOS and path.is_file()
    ]
    images = _without_results(paths, skipped)
    if not images:
        hint = shell_command("ls", root)
        raise _no_image(pattern, _IMAGES_AND_VIDEOS, has_results=bool(paths), hint=hint)
    for path in images:
        yield path, path.relative_to(root)


def _find_in_list(name: str, skipped: list[Path]) -> Iterator[tuple[Path, Path]]:
    from_stdin = f"@{name}" == STANDARD_INPUT
    label = msg("standard input") if from_stdin else name
    try:
        content = sys.stdin.buffer.read() if from_stdin else Path(name).read_bytes()
    except OSError as error:
        values = {"list": label, "reason": error.strerror}
        message = msg("the list {list} cannot be read: {reason}.", **values)
        hint = msg("fullconv predict MODEL @list.txt   # a file with one path per line")
        raise FullconvError(message, hint) from error
    if b"\0" in content:
        message = msg(
            "{list} is not a list of paths: it contains zero bytes; expected UTF-8 text with "
            "one path per line.",
            list=label,
        )
        raise FullconvError(message, "find photos -name '*.jpg' > list.txt")
    lines = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n")
    names = [line.strip() for line in lines]
    names = [line for line in names if line and not line.startswith("#")]
    if not names:
        message = msg("{list} names no image; expected one path per line.", list=label)
        raise FullconvError(message, "find photos -name '*.jpg' | fullconv predict MODEL -")
    folder = Path() if from_stdin else Path(name).parent
    for path in _without_results([folder / line for line in names], skipped):
        if path.is_dir():
            yield from _find_in(path, skipped, _IMAGES_AND_VIDEOS)
            continue
        # Outside the list's folder all folders are kept, so equal file names stay apart.
        full, root = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
        yield path, full.relative_to(root if full.is_relative_to(root) else full.anchor)


def _without_results(paths: Sequence[Path], skipped: list[Path]) -> list[Path]:
    """Return the paths that are not results of earlier runs, and add the others to `skipped`."""
    results = {path for path in paths if is_own_output(path)}
    skipped += [path for path in paths if path in results]
    return [path for path in paths if path not in results]


def _no_image(
    where: Path | str, suffixes: Sequence[str], *, has_results: bool, hint: str
) -> FullconvError:
    values = {"where": where, "suffixes": ", ".join(suffixes)}
    message = msg("no image in {where}; looked for {suffixes}.", **values)
    if has_results:
        message = msg("{where} has only results of earlier runs, no image ({suffixes}).", **values)
    return FullconvError(message, hint)


def _with_unique_stems(paths: Iterable[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    used: set[Path] = set()
    for path, name in paths:
        stem = name.with_suffix("")
        if stem in used:
            stem = name.with_name(name.name.replace(".", "_"))
        base, number = stem, 1
        while stem in used:
            number += 1
            stem = base.with_name(f"{base.name}_{number}")
        used.add(stem)
        yield path, stem
