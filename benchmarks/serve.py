"""Test `serve` under load: correct responses, constant memory, and the cost of serving.

`load`: 32 clients for a minute over loopback. They send CamVid's test images and crops of them and
ask for masks, JSON and overlays; some uploads are broken, too large or too slow, and some clients
disconnect. Targets: each kind of request gets its response, and all results equal those of
`predict`. The rate is compared with sequential processing in its own process, before and after. At
the end, SIGTERM with pending requests. Writes results/serve.json.

    python benchmarks/serve.py [--model RUN] [--seconds 60] [--clients 32] [--threads 2]
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from load import ANSWERS, IMAGE, PATIENCE, Load, Tally, Upload, as_form, bad_uploads
from method import (
    Figure,
    MissingError,
    Section,
    Spread,
    counted,
    in_fresh_process,
    parser,
    run,
)
from PIL import Image
from serving import Process, batch_size, environment, memory_facts, serving

from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_values
from fullconv.inference.result_files import output_path

ROOT = Path(__file__).parents[1]
EACH = 12  # whole images, crops of one size, crops of other sizes
CROP = (240, 320)  # H, W
SMALLEST = (60, 80)
LIMITS = {
    "max-bytes": 2 << 20,
    "max-pixels": 4_000_000,
    "max-seconds": 8.0,
    "queue": 16,  # half of the clients, so some get 503
}
LAST = 12  # pending requests at SIGTERM
WARM = 0.5  # share of the seconds for the warm-up
GROWTH_AT_MOST = 1.1  # of memory in the second half
_SAID = "ended; what was taken is finished"


def mix(source: Path, folder: Path, each: int) -> list[Upload]:
    """Return images as files in a folder and as uploads; every fourth is a form."""
    paths = sorted(source.iterdir())
    chance, uploads = np.random.default_rng(0), []
    folder.mkdir()
    for number, path in enumerate(paths[:: max(1, len(paths) // (3 * each))][: 3 * each]):
        kind = number % 3
        made = folder / f"{number:02}{path.suffix}"
        if kind == 0:
            made.write_bytes(path.read_bytes())
        else:
            image = read_image(path)
            size = CROP if kind == 1 else chance.integers(SMALLEST, image.shape[:2])
            top, left = chance.integers(0, np.subtract(image.shape[:2], size) + 1)
            cut = Image.fromarray(image[top : top + size[0], left : left + size[1]])
            made = made.with_suffix((".png", ".jpg")[number // 3 % 2])
            cut.save(made, **({"quality": 92} if made.suffix == ".jpg" else {}))
        media = "image/png" if made.suffix == ".png" else "image/jpeg"
        one = Upload(made.name, made.read_bytes(), media)
        uploads.append(as_form(one) if number % 4 == 3 else one)
    return uploads


def predicted(arguments: argparse.Namespace, images: Path, out: Path) -> None:
    """Run `fullconv predict` on the images."""
    words = [arguments.model, images, "--out", out, "--save", "mask,overlay,confidence", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "fullconv", "predict", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(arguments.threads),
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])


def wrong_answers(tally: Tally, expected: Path) -> tuple[int, list[str]]:
    """Return how many results differ from those of `predict`, and of which images."""
    wrong, named = 0, []
    for key, content in tally.kept.items():
        name, want, _ = key
        if not equal(content, want, expected / Path(name).stem):
            wrong += tally.often[key]
            named.append(f"{name} {want} x {tally.often[key]}")
    return wrong, named


def equal(content: bytes, want: str, stem: Path) -> bool:
    """Compare a result with the file of `predict`. Confidence may differ by 1 of 255 steps."""
    if want != "json":
        return content == output_path(stem, want).read_bytes()
    found = json.loads(content)
    ids = read_values(stem.with_name(f"{stem.name}_mask.png"))
    counts = np.bincount(ids.ravel(), minlength=len(found["classes"]))
    sure = gray(stem.with_name(f"{stem.name}_confidence.png").read_bytes())
    said = gray(base64.b64decode(found["confidence"].partition(",")[2]))
    return (
        np.array_equal(gray(base64.b64decode(found["ids"].partition(",")[2])), ids)
        and [one["pixels"] for one in found["classes"]] == counts.tolist()
        and sure.shape == said.shape
        and int(np.abs(sure - said).max()) <= 1
    )


def gray(png: bytes) -> np.ndarray:
    """Return a gray image as (H, W)."""
    return np.asarray(Image.open(io.BytesIO(png))).astype(np.int32)


def plain(model: str, folder: Path, threads: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each image and output without a server, in sequence.

    Decodes, segments and encodes in its own process.
    """
    import torch

    from fullconv.core.hardware import use_huge_pages
    from fullconv.deploy.serve.responses import PredictRequest, encode_response
    from fullconv.inference.predictor import load
    from fullconv.inference.segmentation import Segmentation

    torch.set_num_threads(threads)
    use_huge_pages()
    predictor = load(model)
    asked = {"json": PredictRequest("json", ("ids", "confidence"))}

    def one(content: bytes, want: str) -> None:
        image, sure = read_image(io.BytesIO(content)), None
        if want == "json":  # both from one pass of the network
            found = predictor.probabilities(image)
            made = Segmentation(found.label_maps()[0], predictor.labels, image)
            sure = found.confidence(0)
        else:
            made = predictor.segment(image)
        encode_response(made, sure, asked.get(want, PredictRequest(want)), 0.0)  # type: ignore[arg-type]

    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    seconds: dict[str, list[float]] = {}
    for turn in range(1 + rounds):
        for name, content in files.items():
            for want in ANSWERS:
                began = time.perf_counter()
                one(content, want)
                if turn:  # the first one warms up
                    seconds.setdefault(f"{name} {want}", []).append(time.perf_counter() - began)
    return seconds


def sum_of(seconds: dict[str, list[float]], done: Counter[tuple[str, str]]) -> list[float]:
    """Return the sequential time of exactly the results that the server gave, by round."""
    rounds = len(next(iter(seconds.values())))
    return [
        sum(often * seconds[f"{name} {want}"][turn] for (name, want), often in done.items())
        for turn in range(rounds)
    ]


def ended(server: Process, load: Load, images: Sequence[Upload]) -> dict[str, Any]:
    """Send SIGTERM with pending requests; return how many got a response, and the exit code."""
    before = load.tally.statuses[IMAGE, 200]
    largest = sorted(images, key=lambda one: -len(one.content))[:LAST]
    threads = load.at_once(largest, "json")
    waiting, give_up = 0, time.monotonic() + 2
    while waiting < len(largest) // 2 and time.monotonic() < give_up:
        waiting = json.loads(server.get("/health"))["waiting"]
    server.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    for thread in threads:
        thread.join()
    code = server.process.wait(timeout=60)
    return {
        "sent": len(largest),
        "waiting_when_told": waiting,
        "answered": load.tally.statuses[IMAGE, 200] - before,
        "exit_code": code,
        "seconds": time.monotonic() - began,
    }


def load(arguments: argparse.Namespace) -> Section:
    source = Path(os.environ.get("FULLCONV_SHARED", "")) / "data" / "camvid" / "test"
    if not source.is_dir():
        raise MissingError("FULLCONV_SHARED names no folder with data/camvid")
    if not Path(arguments.model).exists():
        raise MissingError(f"no model {arguments.model}: give a trained one as --model")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        images = mix(source, place / "images", 2 if arguments.quick else EACH)
        bad = bad_uploads(images, LIMITS["max-bytes"], LIMITS["max-pixels"])
        predicted(arguments, place / "images", place / "expected")
        words = ("--plain", str(arguments.model), str(place / "images"))
        options = ("--threads", str(arguments.threads), "--rounds", str(arguments.rounds))
        before = in_fresh_process(__file__, *words, *options)
        with serving(arguments.model, LIMITS, arguments.threads, place / "stderr") as server:
            clients = Load(server.host_and_port, images, bad, LIMITS["max-seconds"])
            facts = loaded(server, clients, arguments)
            facts["sigterm"] = ended(server, clients, images)
        after = in_fresh_process(__file__, *words, *options)
        said = (place / "stderr").read_text(encoding="utf-8").strip()
        if said != _SAID:
            clients.tally.wrong(f"stderr: {said}")
        wrong, named = wrong_answers(clients.tally, place / "expected")
        sizes = {path.name: pixels_of(path) for path in (place / "images").iterdir()}
    facts |= {"wrong": named, **told(clients.tally), "model": Path(arguments.model).name}
    figures = faults(clients.tally, wrong, facts)
    figures += costs(clients.tally, facts, sum_of(before, clients.tally.done), sizes, "before")
    figures += costs(clients.tally, facts, sum_of(after, clients.tally.done), sizes, "after")
    return Section([*figures, growth(facts["memory_mb"])], facts)


def pixels_of(path: Path) -> int:
    with Image.open(path) as image:
        return image.width * image.height


def loaded(server: Process, clients: Load, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the clients; return what was observed."""
    fresh = server.resident()
    clients.run(arguments.seconds * WARM, arguments.clients)
    clients.tally.forget()
    own, theirs = resource.getrusage(resource.RUSAGE_SELF), server.cpu_seconds()
    with server.watched():
        lasted = clients.run(arguments.seconds, arguments.clients)
    used = resource.getrusage(resource.RUSAGE_SELF)
    metrics = server.get("/metrics")
    under_load = [(second, size) for second, size in server.memory if second <= lasted]
    return {
        "seconds": lasted,
        "clients": arguments.clients,
        "limits": LIMITS,
        "share_of_retry_after_waited": PATIENCE,
        "client_cpu_seconds": used.ru_utime + used.ru_stime - own.ru_utime - own.ru_stime,
        "server_cpu_seconds": server.cpu_seconds() - theirs,
        "memory_mb": {"before_any_request": fresh / 1e6, **memory_facts(under_load)},
        "mean_batch_size": batch_size(metrics),
        "metrics": [line for line in metrics.splitlines() if not line.startswith("#")],
    }


def told(tally: Tally) -> dict[str, Any]:
    """Return the tally for the JSON file."""
    kinds: dict[str, dict[str, int]] = {}
    for (kind, status), often in sorted(tally.statuses.items()):
        kinds.setdefault(kind, {})[str(status) if status else "no answer"] = often
    return {
        "answers": kinds,
        "refusals": dict(tally.refusals.most_common()),
        "unexpected": tally.examples,
        "seconds_of_an_answer": asdict(Spread.of(tally.seconds or [0.0])),
        "slowest_answer_seconds": max(tally.seconds, default=0.0),
    }


def faults(tally: Tally, wrong: int, facts: dict[str, Any]) -> list[Figure]:
    """Return the counts that must be zero or complete."""
    results = tally.statuses[IMAGE, 200]
    failed = sum(n for (_, status), n in tally.statuses.items() if status >= 500 and status != 503)
    end = facts["sigterm"]
    return [
        counted("answers of 500 and more but 503", failed, 0),
        counted("answers that are not as they should be", tally.unexpected, 0),
        counted("results compared with predict's", sum(tally.often.values()), results),
        counted("results unlike predict's", wrong, 0),
        counted("SIGTERM: answered of those under way", end["answered"], end["sent"]),
        counted("SIGTERM: exit code", end["exit_code"], 0),
    ]


def costs(
    tally: Tally,
    facts: dict[str, Any],
    seconds: Sequence[float],
    sizes: dict[str, int],
    when: str,
) -> list[Figure]:
    """Return the rates over those of sequential processing."""
    lasted, middle = facts["seconds"], statistics.median(seconds)
    ratio = Spread.of([one / lasted for one in seconds])
    images = sum(tally.done.values())
    pixels = sum(often * sizes[name] for (name, _), often in tally.done.items()) / 1e6
    rates = {"images/s": images, "megapixels/s": pixels}
    return [
        Figure(
            f"{unit} over one after the other, {when}",
            *(count / lasted, count / middle if middle else 0.0),
            unit,
            ratio,
        )
        for unit, count in rates.items()
    ]


def growth(memory: dict[str, float]) -> Figure:
    """Return the memory at the end over that in the middle."""
    ends = (memory["lowest_in_the_last_fifth"], memory["lowest_in_the_middle_fifth"])
    ratio = Spread.of([ends[0] / ends[1]])
    name = "memory, lowest in the last fifth over the middle one"
    return Figure(name, *ends, "MB", ratio, at_most=GROWTH_AT_MOST)


def main() -> None:
    made = parser(__doc__, rounds=2)
    trained = ROOT / "runs/camvid_mobilenetv2_8s_seed0/model"
    made.add_argument("--model", type=Path, default=trained, help="of CamVid's classes")
    made.add_argument("--seconds", type=float, default=60.0, help="default 60")
    made.add_argument("--clients", type=int, default=32, help="default 32")
    made.add_argument("--plain", nargs=2, metavar=("MODEL", "IMAGES"), help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.plain:
        model, folder = arguments.plain
        print(json.dumps(plain(model, Path(folder), arguments.threads, arguments.rounds)))
        return
    if arguments.quick:
        arguments.seconds, arguments.clients = min(arguments.seconds, 3.0), 8
    sys.exit(run("serve", {"load": load}, arguments))


if __name__ == "__main__":
    main()
