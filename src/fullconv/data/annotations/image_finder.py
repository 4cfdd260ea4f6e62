"""Find the image that an annotation file names, wherever it was copied to, and its split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.io.images import IMAGE_SUFFIXES
from fullconv.data.layouts.pairing import SPLITS, folders_in, images_in


class ImageFinder:
    """Finds the images that annotation files name.

    An image is searched relative to the folder of the file and to the root, then by its name
    anywhere below the root and in the folders beside that of the file. `key` is the key of image
    names in the files, for the line to paste.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.key = root, key
        self._below_root: dict[str, set[Path]] | None = None  # name -> images
        self._in_folders: dict[Path, dict[str, set[Path]]] = {}  # of a parent folder

    def __call__(self, path: Path, *names: str) -> Path:
        """Return the image of the first name that exists, for the annotation file `path`."""
        names = tuple(name.replace("\\", "/") for name in names)
        for name in names:
            for folder in (path.parent, self.root):
                if (folder / name).is_file():
                    return folder / name
            # Prefer images whose paths end with the whole name, and images below the root.
            images = self._search(PurePosixPath(name).name, path.resolve().parent.parent)
            images = {i for i in images if i.as_posix().endswith("/" + name)} or images
            images = {i for i in images if i.is_relative_to(self.root.resolve())} or images
            if len(images) == 1:
                return images.pop()
            if images:
                message = msg(
                    "{count} images have its name: {images}; expected one.",
                    count=len(images),
                    images=truncated_list(sorted(images), 4),
                )
                nearest = os.path.relpath(min(images), path.parent)
                raise FullconvError(message, f'"{self.key}": "{nearest}"')
        file_names = list(dict.fromkeys(PurePosixPath(name).name for name in names))
        message = msg(
            "the image is missing; there is no {path}, and no file called {names} in or below "
            "{root}.",
            path=path.parent / names[0],
            names=truncated_list(file_names),
            root=self.root,
        )
        raise FullconvError(message, shell_command("cp", f"/path/to/{file_names[0]}", path.parent))

    def _search(self, name: str, parent: Path) -> set[Path]:
        if self._below_root is None:
            files = self.root.resolve().rglob("*")
            self._below_root = _by_name(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
        if parent not in self._in_folders:
            images = (image for folder in folders_in(parent) for image in images_in(folder))
            self._in_folders[parent] = _by_name(images)
        return self._below_root.get(name, set()) | self._in_folders[parent].get(name, set())


def _by_name(images: Iterable[Path]) -> dict[str, set[Path]]:
    by_name: dict[str, set[Path]] = {}
    for image in images:
        by_name.setdefault(image.name, set()).add(image)
    return by_name


def split_from_folders(path: Path) -> str:
    """Return the split that a folder of a path names, or "": labels/train2017/a.txt -> train"""
    return _split_in(path.parent.as_posix())


def split_from_name(path: Path) -> str:
    """Return the split that a file name contains, or "": instances_train2017.json -> train"""
    return _split_in(path.stem) or SPLITS.get(path.parent.name.lower(), "")


def _split_in(text: str) -> str:
    words = re.split(r"[^a-z]+", text.lower())
    splits = {SPLITS[word] for word in words if word in SPLITS}
    return splits.pop() if len(splits) == 1 else ""
