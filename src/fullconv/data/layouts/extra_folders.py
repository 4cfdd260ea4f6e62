"""Further folders of a data set: masks that answer another question, and images that show
something else than light.

    data/  images/ masks/   as any data set
           geometry/        --heads geometry: a mask for each image, with a class table of its own
                            in geometry/dataset.toml; one head each (Long et al. 2015, section 5:
                            SIFT Flow's semantic and geometric labels)
           depth/           --extra-inputs depth: a file for each image (section 5: NYUDv2's depth)

A file belongs to the image of the same stem, wherever below the folder it lies. Where a stem is
there more than once, it lies in a folder called like the image's, its mask's or its split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.text import plural, shell_command, truncated_list
from fullconv.data.io.array_masks import read_mat_class_names
from fullconv.data.io.extra_channels import (
    CHANNEL_SUFFIXES,
    ExtraInput,
    read_channels,
    read_extra_channels,
)
from fullconv.data.io.images import IMAGE_SUFFIXES, image_size
from fullconv.data.io.masks import ARRAY_SUFFIXES
from fullconv.data.layouts import class_catalogue as catalogue
from fullconv.data.layouts import class_table as tables
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.pairing import MASK_ENDINGS, Pair, folders_in

_MASKS = IMAGE_SUFFIXES | frozenset(ARRAY_SUFFIXES)
_Found = dict[tuple[str, str], Path]  # split and name of a pair -> its file


def folder_names(folders: str) -> list[str]:
    """The folders that are named with commas between: "depth,infrared"."""
    return [name.strip() for name in folders.split(",") if name.strip()]


def without_extras(dataset: Dataset) -> Dataset:
    """Without further heads and inputs."""
    splits = {
        split: tuple(Pair(pair.name, pair.image, pair.mask) for pair in pairs)
        for split, pairs in dataset.splits.items()
    }
    return replace(dataset, splits=splits, heads=(), inputs=())


def head_dataset(dataset: Dataset, folder: str) -> Dataset:
    """The same images with the masks of another folder, and the class table that lies in it."""
    place = _place(dataset, folder, "masks of another head")
    found = _beside(dataset, place, _MASKS)
    splits = {
        split: tuple(Pair(pair.name, pair.image, found[split, pair.name]) for pair in pairs)
        for split, pairs in dataset.splits.items()
    }
    paths = list(found.values())
    names = read_mat_class_names(paths[0]) if paths[0].suffix.lower() == ".mat" else []
    known = catalogue.from_one(names) if names else None
    labels, named, notes = tables.read_labels(
        place, tables.read_settings(place), paths, known=known
    )
    reason = f"images of {dataset.root}, masks of {place}"
    return Dataset(place, "folders", reason, splits, labels, named, notes=tuple(notes))


def with_extra_inputs(dataset: Dataset, folders: Sequence[str]) -> Dataset:
    """A data set whose pairs have files of further inputs, whose channels are counted by the first.

    Args:
        folders: of the files, in the data set's folder or as paths.

    Raises:
        FullconvError: no such folder, or an image without a file.
    """
    for folder in folders:
        place = _place(dataset, folder, "further input")
        found = _beside(dataset, place, CHANNEL_SUFFIXES)
        name = _name(folder)
        _require_new(name, [one.name for one in dataset.inputs], "input", "--extra-inputs")
        splits = {
            split: tuple(
                replace(pair, inputs=(*pair.inputs, found[split, pair.name])) for pair in pairs
            )
            for split, pairs in dataset.splits.items()
        }
        count = read_channels(next(iter(found.values()))).shape[2]
        one = ExtraInput(name, count)
        dataset = replace(dataset, splits=splits, inputs=(*dataset.inputs, one))
    return dataset


def with_channel_statistics(dataset: Dataset) -> Dataset:
    """Every file of the further inputs looked at, and their mean and spread over the training
    split known.

    Raises:
        FullconvError: a file that cannot be read, of another size than its image or with another
            number of channels; or the same number everywhere.
    """
    jobs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    with ThreadPoolExecutor() as pool:
        sums = list(pool.map(lambda job: _sums(job[1], dataset.inputs), jobs))
    known = []
    for k, one in enumerate(dataset.inputs):
        rows = [found[k] for (split, _), found in zip(jobs, sums, strict=True) if split == "train"]
        pixels = sum(count for count, _, _ in rows)
        mean = np.sum([total for _, total, _ in rows], axis=0) / pixels
        square = np.sum([squares for _, _, squares in rows], axis=0) / pixels
        spread = np.sqrt(np.maximum(0, square - mean**2))
        if not spread.all():
            raise FullconvError(
                f"the input {one.name} holds the same number, {mean[spread == 0][0]:g}, at every "
                "pixel of every training file; nothing can be learned from it.",
                f"--extra-inputs {','.join(i.name for i in dataset.inputs if i != one) or 'ANOTHER'}",
            )
        known.append(replace(one, mean=tuple(map(float, mean)), std=tuple(map(float, spread))))
    return replace(dataset, inputs=tuple(known))


def extra_files(images: Iterable[Path], folder: Path, name: str) -> list[Path]:
    """The file of each image in the folder of a further input.

    Raises:
        FullconvError: no such folder, or an image without a file.
    """
    if not folder.is_dir():
        raise FullconvError(
            f"no folder {folder}; the model wants its input {name} beside each image.",
            "--extra-inputs FOLDER",
        )
    rows = {("", str(k)): [image] for k, image in enumerate(images)}
    return list(_matched(rows, folder, CHANNEL_SUFFIXES).values())


def _sums(pair: Pair, inputs: Sequence[ExtraInput]) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Pixels, sum and sum of squares of every input of a pair."""
    size = image_size(pair.image)
    rows = []
    for path, one in zip(pair.inputs, inputs, strict=True):
        found = read_extra_channels(path, one, size)
        flat = found.reshape(-1, one.channels).astype(np.float64)
        rows.append((len(flat), flat.sum(0), (flat**2).sum(0)))
    return rows


def _name(folder: str) -> str:
    return Path(folder).name


def _require_new(name: str, known: Sequence[str], kind: str, option: str) -> None:
    if name in known:
        raise FullconvError(f"two {kind}s are called {name}.", f"{option} {name}")


def _place(dataset: Dataset, folder: str, what: str) -> Path:
    inside = dataset.root / folder
    place = inside if inside.is_dir() else Path(folder)
    if not place.is_dir():
        there = [path.name for path in folders_in(dataset.root)]
        raise FullconvError(
            f"no folder {folder} in {dataset.root} for the {what}; it has "
            f"{truncated_list(there) or 'no folder'}.",
            shell_command("ls", dataset.root),
        )
    return place


def _beside(dataset: Dataset, place: Path, suffixes: Iterable[str]) -> _Found:
    """The file of every pair in a folder."""
    rows = {
        (split, pair.name): [pair.image, pair.mask]
        for split, pairs in dataset.splits.items()
        for pair in pairs
    }
    return _matched(rows, place, suffixes)


def _matched(
    rows: Mapping[tuple[str, str], list[Path]], place: Path, suffixes: Iterable[str]
) -> _Found:
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(place.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            by_stem.setdefault(path.stem, []).append(path)
    hits = {
        key: [path for stem in _stems(known) for path in by_stem.get(stem, [])]
        for key, known in rows.items()
    }
    wanted = Counter(path for paths in hits.values() for path in paths)
    found, lacking = {}, []
    for (split, name), known in rows.items():
        paths = hits[split, name]
        if len(paths) > 1 or any(wanted[path] > 1 for path in paths):
            folders = {split, *(path.parent.name for path in known)}
            paths = [path for path in paths if path.parent.name in folders]
        if len(paths) == 1:
            found[split, name] = paths[0]
        else:
            lacking.append(f"{known[0]} has {len(paths) or 'none'}")
    if lacking:
        raise FullconvError(
            f"{place} does not have one file for each of {plural(len(rows), 'image')}: "
            f"{truncated_list(lacking)}; expected one of the same name, with any of the endings "
            f"{' '.join(sorted(suffixes))}.",
            shell_command("ls", place),
        )
    return found


def _stems(known: Sequence[Path]) -> list[str]:
    """What the file beside an image may be called: like it, or like its mask."""
    bare = list(dict.fromkeys(path.stem for path in known))
    return list(dict.fromkeys([*bare, *(stem + end for stem in bare for end in MASK_ENDINGS)]))
