"""Places: the picture that an annotation file names, wherever it was copied to, and its split."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from fullconv.data.pairing import SPLITS, folders_in, pictures_in
from fullconv.data.pictures import PICTURE_SUFFIXES
from fullconv.errors import FullconvError


class Finder:
    """Finds a picture: beside the file that names it, from the root, else by its name below the
    root or in a folder beside the file's. `key` is what the file calls it by."""

    def __init__(self, root: Path, key: str) -> None:
        self.root = root
        self.key = key
        self.places: dict[str, set[Path]] | None = None

    def __call__(self, path: Path, *names: str) -> Path:
        """The picture of the first name that there is one of. `path` is the annotation file."""
        inside = [name.replace("\\", "/") for name in names]
        for name in inside:
            for folder in (path.parent, self.root):
                if (folder / name).is_file():
                    return folder / name
            if self.places is None:
                self.places = self._look(path)
            hits = self.places.get(PurePosixPath(name).name, set())
            closest = {hit for hit in hits if hit.as_posix().endswith("/" + name)} or hits
            top = self.root.resolve()
            closest = {hit for hit in closest if hit.is_relative_to(top)} or closest
            if len(closest) == 1:
                return closest.pop()
            if closest:
                listed = ", ".join(map(str, sorted(closest)[:4]))
                raise FullconvError(
                    f"{len(closest)} pictures have its name: {listed}; expected one.",
                    f'"{self.key}": "{os.path.relpath(min(closest), path.parent)}"',
                )
        called = list(dict.fromkeys(PurePosixPath(name).name for name in inside))
        which = "of its name" if len(called) == 1 else "called " + " or ".join(called)
        raise FullconvError(
            f"the picture is missing; there is no {path.parent / inside[0]}, nor one {which} in or "
            f"below {self.root}.",
            f"cp /where/it/is/{PurePosixPath(inside[0]).name} {path.parent}",
        )

    def _look(self, path: Path) -> dict[str, set[Path]]:
        beside = path.resolve().parent.parent
        found = [p for folder in folders_in(beside) for p in pictures_in(folder)]
        below = (p for p in self.root.resolve().rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
        places: dict[str, set[Path]] = {}
        for picture in (*found, *below):
            places.setdefault(picture.name, set()).add(picture)
        return places


def split_in(inside: Path) -> str:
    """The split that a folder of a path names, or "": labels/train2017/a.txt -> train"""
    words = [word for part in inside.parent.parts for word in re.split(r"[^a-z]+", part.lower())]
    named = {SPLITS[word] for word in words if word in SPLITS}
    return named.pop() if len(named) == 1 else ""
