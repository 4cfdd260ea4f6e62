"""Additional folders of a dataset: masks of additional heads, and files with extra input channels.

    data/  images/ masks/   as in any dataset
           geometry/        --heads geometry: one mask per image, with its own class table in
                            geometry/dataset.toml; one head each (Long et al. 2015, section 5:
                            the semantic and geometric labels of SIFT Flow)
           depth/           --extra-inputs depth: one file per image (section 5: depth of NYUDv2)

A file belongs to the image of the same name (without extension), anywhere below the folder. If
several files have that name, it is the one in a folder called like the image's folder, its mask's
folder or its split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.data.io.extra_channels import (
    CHANNEL_SUFFIXES,
    ExtraInput,
    read_channels,
    read_extra_channels,
)
from fullconv.data.io.images import IMAGE_SUFFIXES, image_size
from fullconv.data.io.masks import ARRAY_SUFFIXES
from fullconv.data.io.matlab import read_mat_class_names
from fullconv.data.layouts.class_catalogue import numbered_from_one
from fullconv.data.layouts.class_table import read_labels
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.file_names import MASK_ENDINGS, Pair
from fullconv.data.layouts.pairing import folders_in
from fullconv.data.layouts.settings_file import read_settings

_MASK_SUFFIXES = IMAGE_SUFFIXES | frozenset(ARRAY_SUFFIXES)
_Key = tuple[str, str]  # split and name of a pair


def without_extras(dataset: Dataset) -> Dataset:
    """Return a dataset without additional heads and extra inputs."""
    splits = {
        split: tuple(Pair(pair.name, pair.image, pair.mask) for pair in pairs)
        for split, pairs in dataset.splits.items()
    }
    return replace(dataset, splits=splits, heads=(), inputs=())


def head_dataset(dataset: Dataset, folder: str) -> Dataset:
    """Return the same images with the masks in another folder, and the class table in it; raise a
    `FullconvError` if there is no such folder, or an image has no mask."""
    root = _resolve(dataset, folder)
    files = _files_of_pairs(dataset, root, _MASK_SUFFIXES)
    splits = {
        split: tuple(Pair(pair.name, pair.image, files[split, pair.name]) for pair in pairs)
        for split, pairs in dataset.splits.items()
    }
    masks = list(files.values())
    names = read_mat_class_names(masks[0]) if masks[0].suffix.lower() == ".mat" else []
    matlab_labels = numbered_from_one(names) if names else None
    table = read_labels(root, read_settings(root), masks, layout_labels=matlab_labels)
    reason = msg("images of {root}, masks of {folder}", root=dataset.root, folder=root)
    notes = (*table.notes, *([table.source] if table.source else []))
    return Dataset(root, "folders", reason, splits, table.labels, table.named, notes=notes)


def with_extra_inputs(dataset: Dataset, folders: Sequence[str]) -> Dataset:
    """Return a dataset whose pairs have files with extra channels; the first file tells how many.

    `folders` are in the dataset's folder, or paths.

    Raises:
        FullconvError: there is no such folder, or an image without a file.
    """
    for folder in folders:
        files = _files_of_pairs(dataset, _resolve(dataset, folder), CHANNEL_SUFFIXES)
        name = Path(folder).name
        if name in [extra.name for extra in dataset.inputs]:
            raise FullconvError(
                msg("two inputs are called {name}.", name=name), f"--extra-inputs {name}"
            )
        splits = {
            split: tuple(replace(p, inputs=(*p.inputs, files[split, p.name])) for p in pairs)
            for split, pairs in dataset.splits.items()
        }
        extra = ExtraInput(name, read_channels(next(iter(files.values()))).shape[2])
        dataset = replace(dataset, splits=splits, inputs=(*dataset.inputs, extra))
    return dataset


def with_channel_statistics(dataset: Dataset) -> Dataset:
    """Return a dataset whose extra inputs have mean and standard deviation over the training split.

    Raises:
        FullconvError: a file of any split cannot be read, has another size than its image or
            another number of channels; or a channel is constant.
    """

    def channel_sums(job: tuple[str, Pair]) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return pixels, sum and sum of squares of each extra input of a pair."""
        size, rows = image_size(job[1].image), []
        for path, extra in zip(job[1].inputs, dataset.inputs, strict=True):
            channels = read_extra_channels(path, extra, size)
            flat = channels.reshape(-1, extra.channels).astype(np.float64)
            rows.append((len(flat), flat.sum(0), (flat**2).sum(0)))
        return rows

    jobs = [(split, pair) for split, pairs in dataset.splits.items() for pair in pairs]
    with ThreadPoolExecutor() as pool:
        sums = list(pool.map(channel_sums, jobs))
    inputs = []
    for k, extra in enumerate(dataset.inputs):
        train = [row[k] for (split, _), row in zip(jobs, sums, strict=True) if split == "train"]
        pixels = sum(count for count, _, _ in train)
        mean = np.sum([total for _, total, _ in train], axis=0) / pixels
        mean_square = np.sum([squares for _, _, squares in train], axis=0) / pixels
        std = np.sqrt(np.maximum(0, mean_square - mean**2))
        if not std.all():
            others = ",".join(other.name for other in dataset.inputs if other != extra)
            message = msg(
                "the input {name} has the same value, {value:g}, at every pixel of every training "
                "file; nothing can be learned from it.",
                name=extra.name,
                value=mean[std == 0][0],
            )
            raise FullconvError(message, f"--extra-inputs {others or 'ANOTHER'}")
        inputs.append(replace(extra, mean=tuple(map(float, mean)), std=tuple(map(float, std))))
    return replace(dataset, inputs=tuple(inputs))


def extra_files(images: Iterable[Path], folder: Path, name: str) -> list[Path]:
    """Return the file of each image in the folder of an extra input; raise a `FullconvError` if
    there is no such folder, or an image has no file."""
    if not folder.is_dir():
        values = {"folder": folder, "name": name}
        message = msg(
            "no folder {folder}; the model needs its input {name} for each image.", **values
        )
        raise FullconvError(message, "--extra-inputs FOLDER")
    keys = {("", str(k)): [image] for k, image in enumerate(images)}
    return list(_match_files(keys, folder, CHANNEL_SUFFIXES).values())


def _resolve(dataset: Dataset, folder: str) -> Path:
    inside = dataset.root / folder
    path = inside if inside.is_dir() else Path(folder)
    if not path.is_dir():
        folders = [path.name for path in folders_in(dataset.root)]
        listed = truncated_list(folders) if folders else msg("no folder")
        values = {"folder": folder, "root": dataset.root, "folders": listed}
        message = msg("no folder {folder} in {root}; it has {folders}.", **values)
        raise FullconvError(message, shell_command("ls", dataset.root))
    return path


def _files_of_pairs(dataset: Dataset, folder: Path, suffixes: Iterable[str]) -> dict[_Key, Path]:
    keys = {
        (split, pair.name): [pair.image, pair.mask]
        for split, pairs in dataset.splits.items()
        for pair in pairs
    }
    return _match_files(keys, folder, suffixes)


def _match_files(
    keys: Mapping[_Key, list[Path]], folder: Path, suffixes: Iterable[str]
) -> dict[_Key, Path]:
    """Return the file in a folder that belongs to each key; the key's paths are its image, and its
    mask if it has one."""
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            by_stem.setdefault(path.stem, []).append(path)

    # Candidates are called like the image or its mask, with or without an ending of masks.
    candidates = {}
    for key, own in keys.items():
        bare = list(dict.fromkeys(path.stem for path in own))
        stems = dict.fromkeys([*bare, *(stem + end for stem in bare for end in MASK_ENDINGS)])
        candidates[key] = [path for stem in stems for path in by_stem.get(stem, [])]

    # If a name is there more than once, the folder decides.
    claims = Counter(path for paths in candidates.values() for path in paths)
    files, problems = {}, []
    for (split, name), own in keys.items():
        paths = candidates[split, name]
        if len(paths) > 1 or any(claims[path] > 1 for path in paths):
            folders = {split, *(path.parent.name for path in own)}
            paths = [path for path in paths if path.parent.name in folders]
        if len(paths) == 1:
            files[split, name] = paths[0]
        else:
            problems.append(msg("{image} has {count}", image=own[0], count=len(paths)))
    if problems:
        message = nmsg(
            "{folder} does not have one file for the {count} image: {problems}; expected a "
            "file of the same name, with one of the suffixes {suffixes}.",
            "{folder} does not have one file for each of the {count} images: {problems}; "
            "expected a file of the same name, with one of the suffixes {suffixes}.",
            len(keys),
            folder=folder,
            problems=truncated_list(problems),
            suffixes=" ".join(sorted(suffixes)),
        )
        raise FullconvError(message, shell_command("ls", folder))
    return files
