"""Measure `predict` on many images: correctness after interruptions, and the cost of files.

`job`: 10,000 small synthetic images, 50 of them damaged, through the command line with a tiny
model: in one process; in one that is killed halfway and restarted; in two that torchrun starts.
Targets: 50 reported, 9,950 written, none twice, and the same labels. `overlap`: images per second
from files to files over those of the network alone, which has decoded images and writes nothing,
and over sequential processing. CamVid's test images, and as JPEG of 720 x 960; ResNet-18 FCN-8s
with random weights. Writes results/many.json.

    python benchmarks/many.py [--only job overlap] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from method import Figure, MissingError, Section, compare, counted, parser, run
from PIL import Image

from fullconv.core.hardware import use_huge_pages
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_values
from fullconv.data.synthetic.scenes import LABELS, scene
from fullconv.inference.batch import InputImage, predict_many
from fullconv.inference.manifest import FOLDER, Manifest
from fullconv.inference.predictor import Predictor
from fullconv.inference.writers import save_outputs
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN

MANY, DAMAGED = 10_000, 50
SCENES = 48  # different scenes; the others are shifted, flipped and brightened copies
SMALL = (96, 128)  # H, W
LARGE = (720, 960)
AT_LEAST = 0.85
SAVED = (("mask",), ("mask", "overlay"))
TINY, MIDDLE = "resnet10t", "resnet18"


def random_model(backbone: str, stride: int) -> Model:
    """Return a model with random weights that predicts several classes."""
    torch.manual_seed(0)
    network = FCN(backbone, len(LABELS), stride=stride, pretrained=False).eval()
    for score in network.score.values():
        torch.nn.init.normal_(score.weight, std=0.1)
    return Model(network, LABELS, network.backbone.card)


def draw(folder: Path, count: int, damaged: int) -> None:
    """Write JPEG files into ten folders; truncate every Nth."""
    scenes = [scene(number, size=SMALL)[0] for number in range(SCENES)]
    chance = np.random.default_rng(0)
    for number in range(count):
        image = np.roll(scenes[number % SCENES], chance.integers(0, 128), axis=1)
        image = image[:, :: chance.choice([-1, 1])]
        light = image * chance.uniform(0.7, 1.3, 3)
        path = folder / f"{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).save(path, quality=85)
        if number % (count // damaged) == 7:
            path.write_bytes(path.read_bytes()[:200])


def words(place: Path, out: str) -> list[str]:
    given = [place / "model", place / "photos", "--out", place / out, "--save", "mask", "--json"]
    return ["-m", "fullconv", "predict", *map(str, given)]


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}


def done(
    arguments: argparse.Namespace, *command: str, environ: dict[str, str] | None = None
) -> tuple[int, list[Any]]:
    """Run a command; return its exit code and the JSON objects that it printed."""
    ended = subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=environment(arguments) if environ is None else environ,
    )
    lines = ended.stdout.splitlines()
    return ended.returncode, [json.loads(line) for line in lines if line.startswith("{")]


def masks(out: Path) -> dict[str, tuple[int, int]]:
    """Return all masks with inode and time, which change if a mask is written again.

    Hidden folders come and go while a process writes.
    """
    found = {}
    for folder, folders, names in os.walk(out):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in names if name.endswith("_mask.png")):
            facts = path.stat()
            found[path.relative_to(out).as_posix()] = (facts.st_ino, facts.st_mtime_ns)
    return found


def job(arguments: argparse.Namespace) -> Section:
    count, damaged = (200, 10) if arguments.quick else (MANY, DAMAGED)
    good = count - damaged
    section = Section(facts={"images": count, "damaged": damaged, "model": f"{TINY}, stride 32"})
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        draw(place / "photos", count, damaged)
        save_model(random_model(TINY, 32), place / "model")
        started = time.perf_counter()
        code, (facts,) = done(arguments, *words(place, "one"))
        section.facts["seconds_one"] = time.perf_counter() - started
        one = masks(place / "one")
        section.figures += [
            counted("exit code", code, 1),
            counted("reported", len(facts["failed"]), damaged),
            counted("written", len(one), good),
        ]
        section.figures += killed(arguments, place, one, section.facts)
        section.figures += shared(arguments, place, one, section.facts)
        _, (facts,) = done(arguments, *words(place, "one"))
        section.figures += [
            counted("skipped when all is there", facts["skipped"], good),
            counted(
                "changed when all is there", len(one.items() ^ masks(place / "one").items()), 0
            ),
        ]
    return section


def killed(
    arguments: argparse.Namespace, place: Path, one: dict[str, Any], facts: dict[str, Any]
) -> Iterator[Figure]:
    """Kill the job halfway with SIGKILL, then start it again."""
    out = place / "killed"
    process = subprocess.Popen(
        [sys.executable, *words(place, "killed")],
        stdout=subprocess.DEVNULL,
        env=environment(arguments),
    )
    while process.poll() is None and len(masks(out)) < len(one) / 2:
        time.sleep(0.5)
    process.kill()
    process.wait()
    before = masks(out)
    _, (told,) = done(arguments, *words(place, "killed"))
    after = masks(out)
    kept = sum(after.get(name) == stamp for name, stamp in before.items())
    facts["done_when_killed"] = len(before)
    yield counted("killed and started again: written", len(after), len(one))
    yield counted("of those before the kill, not touched", kept, len(before))
    yield counted("of those before the kill, skipped", told["skipped"], len(before))
    yield counted("killed: masks unlike one process's", unlike(place / "one", out, one), 0)
    hidden = [path for path in out.rglob(".*") if path.name != FOLDER]
    yield counted("killed: leftovers", len(hidden), 0)


def shared(
    arguments: argparse.Namespace, place: Path, one: dict[str, Any], facts: dict[str, Any]
) -> Iterator[Figure]:
    """Run two processes with torchrun, with its default number of threads."""
    environ = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = time.perf_counter()
    _, told = done(arguments, *torchrun, *words(place, "two"), environ=environ)
    facts["seconds_two"] = time.perf_counter() - started
    sources = [result["source"] for part in told for result in part["images"]]
    failed = sum(len(part["failed"]) for part in told)
    yield counted("torchrun: processes that told", len(told), 2)
    yield counted("torchrun: reported", failed, facts["damaged"])
    yield counted("torchrun: written", len(masks(place / "two")), len(one))
    yield counted("torchrun: images done twice", len(sources) - len(set(sources)), 0)
    yield counted(
        "torchrun: masks unlike one process's", unlike(place / "one", place / "two", one), 0
    )


def unlike(one: Path, other: Path, names: Sequence[str] | dict[str, Any]) -> int:
    """Return the number of masks that differ in any pixel or are missing."""
    return sum(
        not (other / name).is_file()
        or not np.array_equal(read_values(one / name), read_values(other / name))
        for name in names
    )


def overlap(arguments: argparse.Namespace) -> Section:
    folder = Path(os.environ.get("FULLCONV_SHARED", "")) / "data" / "camvid" / "test"
    if not folder.is_dir():
        raise MissingError("FULLCONV_SHARED names no folder with data/camvid")
    count = 2 if arguments.quick else 24
    paths = sorted(folder.iterdir())
    paths = paths[:: max(1, len(paths) // count)][:count]
    use_huge_pages()  # as the command line does
    predictor = Predictor(random_model(MIDDLE, 8), device="cpu")
    section = Section(facts={"images": len(paths), "model": f"{MIDDLE}, stride 8"})
    with tempfile.TemporaryDirectory() as name:
        large = [as_jpeg(path, Path(name), LARGE) for path in paths]
        height, width = read_image(paths[0]).shape[:2]
        for size, files in ((f"{height} x {width} PNG", paths), ("720 x 960 JPEG", large)):
            timings = compare(
                variants(predictor, files, Path(name) / "out"), rounds=arguments.rounds, warmup=1
            )
            for kinds in SAVED:
                many, plain = "+".join(kinds), "one after the other " + "+".join(kinds)
                section.figures += [
                    timings.figure(
                        f"{size}, {many}, over the bare network",
                        *(many, "bare"),
                        images=len(files),
                        at_least=AT_LEAST,
                    ),
                    timings.figure(
                        f"{size}, {many}, over one after the other",
                        *(many, plain),
                        images=len(files),
                    ),
                ]
            section.facts[size] = timings.to_dict()
    return section


def as_jpeg(path: Path, folder: Path, size: tuple[int, int]) -> Path:
    made = folder / f"{path.stem}.jpg"
    image = Image.fromarray(read_image(path))
    image.resize(size[::-1], Image.Resampling.BICUBIC).save(made, quality=92)
    return made


def variants(
    predictor: Predictor, files: Sequence[Path], out: Path
) -> dict[str, Callable[[], object]]:
    """Return the network alone, and the command's and the sequential way for each output."""
    images = [InputImage(path, Path(path.stem)) for path in files]
    decoded = [read_image(path) for path in files]

    def bare() -> None:
        for image in decoded:
            predictor.segment(image)

    def many(kinds: tuple[str, ...]) -> None:
        finished = Manifest(out, "benchmark", [one.stem for one in images])
        predict_many(predictor, images, finished, kinds, again=True)

    def plain(kinds: tuple[str, ...]) -> None:
        for one in images:
            save_outputs(predictor.segment(one.path), out / one.stem, kinds)

    made: dict[str, Callable[[], object]] = {"bare": bare}
    for kinds in SAVED:
        made["+".join(kinds)] = lambda kinds=kinds: many(kinds)
        made["one after the other " + "+".join(kinds)] = lambda kinds=kinds: plain(kinds)
    return made


if __name__ == "__main__":
    sys.exit(run("many", {"job": job, "overlap": overlap}, parser(__doc__, rounds=5).parse_args()))
