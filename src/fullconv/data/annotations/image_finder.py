"""Places: the image that an annotation file names, wherever it was copied to, and its split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command
from fullconv.data.io.images import IMAGE_SUFFIXES
from fullconv.data.layouts.pairing import SPLITS, folders_in, images_in


class Finder:
    """Finds the image that an annotation file names: where it says, seen from the file's folder
    or from the root; else by its name anywhere below the root, or in a folder beside the file's.

    Args:
        root: the folder of all annotation files.
        key: what the files call an image by, for the line to paste.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.root = root
        self.key = key
        self.below: dict[str, set[Path]] | None = None  # name -> images
        self.beside: dict[Path, dict[str, set[Path]]] = {}  # for each folder

    def __call__(self, path: Path, *names: str) -> Path:
        """The image of the first name that there is one of. `path` is the annotation file."""
        inside = [name.replace("\\", "/") for name in names]
        for name in inside:
            for folder in (path.parent, self.root):
                if (folder / name).is_file():
                    return folder / name
            hits = self._called(PurePosixPath(name).name, path.resolve().parent.parent)
            closest = {hit for hit in hits if hit.as_posix().endswith("/" + name)} or hits
            top = self.root.resolve()
            closest = {hit for hit in closest if hit.is_relative_to(top)} or closest
            if len(closest) == 1:
                return closest.pop()
            if closest:
                listed = ", ".join(map(str, sorted(closest)[:4]))
                raise FullconvError(
                    f"{len(closest)} images have its name: {listed}; expected one.",
                    f'"{self.key}": "{os.path.relpath(min(closest), path.parent)}"',
                )
        called = list(dict.fromkeys(PurePosixPath(name).name for name in inside))
        which = "of its name" if len(called) == 1 else "called " + " or ".join(called)
        raise FullconvError(
            f"the image is missing; there is no {path.parent / inside[0]}, nor one {which} in or "
            f"below {self.root}.",
            shell_command("cp", f"/where/it/is/{PurePosixPath(inside[0]).name}", path.parent),
        )

    def _called(self, name: str, beside: Path) -> set[Path]:
        """All images of a name, below the root and in the folders of another one."""
        if self.below is None:
            files = self.root.resolve().rglob("*")
            self.below = _by_name(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
        if beside not in self.beside:
            self.beside[beside] = _by_name(p for f in folders_in(beside) for p in images_in(f))
        return self.below.get(name, set()) | self.beside[beside].get(name, set())


def _by_name(images: Iterable[Path]) -> dict[str, set[Path]]:
    found: dict[str, set[Path]] = {}
    for image in images:
        found.setdefault(image.name, set()).add(image)
    return found


def split_in(inside: Path) -> str:
    """The split that a folder of a path names, or "": labels/train2017/a.txt -> train"""
    words = [word for part in inside.parent.parts for word in re.split(r"[^a-z]+", part.lower())]
    named = {SPLITS[word] for word in words if word in SPLITS}
    return named.pop() if len(named) == 1 else ""
