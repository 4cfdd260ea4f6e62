"""report.html and report.md of an evaluation: what was reached, where it is wrong, on what data,
and how to repeat it.

report.html is one file that needs no network and no other file. report.md says the same for a pull
request, with its images in images/ beside it.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from fullconv.core.errors import FullconvError
from fullconv.core.packages import __version__, installed_version
from fullconv.core.text import plural
from fullconv.evaluation.error_analysis import AREAS, BINS, WIDTHS, Quality
from fullconv.evaluation.evaluate import Evaluation, EvaluationContext
from fullconv.evaluation.report.images import TITLES, HeadImages, data_uri, images_of
from fullconv.evaluation.report.tables import HeadFacts, facts_of
from fullconv.inference.predictor import Predictor
from fullconv.models.run import History, read_history, total_seconds
from fullconv.visualization.plots import STYLE, Line, bar_chart, line_chart, standalone_svg

FINDINGS = 20  # that are spelt out
PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "pillow", "onnxruntime")
_EDGE = 5  # pixels; the width of the band that is put into words


def save_report(
    evaluation: Evaluation, path: str | Path, *, run: str | Path | None = None, repeat: str = ""
) -> Path:
    """Writes a report: `save_report(evaluate(model, data), "report.html")`.

    Args:
        evaluation: with its qualities.
        path: of the page; report.md of the same name and images/ lie beside it.
        run: the folder of the training, for its curves and its time.
        repeat: the command that gives the same numbers again.

    Returns:
        The path of the page.

    Raises:
        FullconvError: another ending than .html, or an evaluation without qualities.
    """
    page = Path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise FullconvError(
            f"the report {page} would be no page; expected a name that ends in .html.",
            f"--report {page.with_suffix('.html').name}",
        )
    scored = evaluation.scored
    if scored is None or not evaluation.qualities:
        raise FullconvError(
            "this evaluation was made without what a report shows.",
            'save_report(evaluate(model, data), "report.html")   # evaluate(quality=True)',
        )
    facts = facts_of(evaluation, scored)
    images = images_of(scored, facts)
    history = read_history(Path(run), scored.model.info.stride) if run is not None else []
    charts = [head_charts(head.quality) for head in facts]
    curves = curves_of(history)
    told = _told(evaluation, scored, history, repeat)
    told |= {"heads": list(zip(facts, images, charts, strict=True)), "curves": curves}
    page.parent.mkdir(parents=True, exist_ok=True)
    templates = _templates()
    shown = {"style": Markup(STYLE), "uri": data_uri, "titles": TITLES}
    _write(page, templates.get_template("report.html").render(told, **shown))
    files = _save_images(page, facts, images, {**curves, **charts[0]})
    text = templates.get_template("report.md").render(told, files=files)
    _write(page.with_suffix(".md"), text)
    return page


def head_charts(quality: Quality) -> dict[str, Markup]:
    """Of one head: "edges", "sizes" and "confidence"; without those that would show nothing."""
    iou, accuracy = (
        list(zip(WIDTHS, of.tolist(), strict=True))
        for of in (quality.band_iou, quality.band_accuracy)
    )
    objects, _, pixels, right = quality.objects.sum(axis=2).T
    shares = [r / p if p else math.nan for r, p in zip(right, pixels, strict=True)]
    counts = [f"{count}" if count < 1000 else f"{count / 1000:.3g}k" for count in objects]
    in_bin, good, sure = quality.sure.T
    met = [(s / n, g / n) for n, g, s in zip(in_bin, good, sure, strict=True) if n]
    charts = {
        "edges": line_chart(
            [Line("mean IoU", iou), Line("pixel accuracy", accuracy)],
            across="width of the band along the true edges, in pixels",
            said="mean IoU and pixel accuracy by the width of the band along the true edges",
            percent=True,
        ),
        "sizes": bar_chart(
            [(_size(k), share) for k, share in enumerate(shares)],
            across="pixels of the object; above the bars: accuracy in percent · objects",
            said="share of the pixels that are right, by the size of the object",
            notes=counts,
        ),
        "confidence": line_chart(
            [Line("accuracy", met), Line("as sure as right", [(0.0, 0.0), (1.0, 1.0)], True)],
            across=f"confidence, in {BINS} bins",
            said="share of the pixels that are right, by the confidence of their label",
            percent=True,
            span=(0.0, 1.0),
        ),
    }
    if not met:
        charts["confidence"] = ""
    return {name: Markup(chart) for name, chart in charts.items() if chart}


def curves_of(history: Sequence[History]) -> dict[str, Markup]:
    """ "loss", "scores" and "rate" by epoch, stage after stage."""
    points: dict[str, list[tuple[float, float]]] = {"loss": [], "iou": [], "right": [], "rate": []}
    stages, done = [], 0
    for stage in history:
        stages.append((done + 0.5, stage.name))
        for of in points.values():
            of.append((done, math.nan))  # no line leads from one stage to the next
        for epoch in stage.epochs:
            values = (epoch.loss, epoch.mean_iou, epoch.pixel_accuracy, epoch.lr)
            for of, value in zip(points.values(), values, strict=True):
                of.append((done + epoch.number, value))
        done += stage.epochs[-1].number
    rules = stages[1:]
    scored = [Line("mean IoU", points["iou"]), Line("pixel accuracy", points["right"])]
    across = "epoch"
    charts = {
        "loss": line_chart(
            [Line("loss", points["loss"])], across=across, said="loss by epoch", stages=rules
        ),
        "scores": line_chart(
            scored,
            across=across,
            said="mean IoU and pixel accuracy on the validation split by epoch",
            percent=True,
            stages=rules,
        ),
        "rate": line_chart(
            [Line("rate", points["rate"])],
            across=across,
            said="learning rate of the first layers by epoch",
            stages=rules,
        ),
    }
    return {name: Markup(chart) for name, chart in charts.items() if chart}


def _told(
    evaluation: Evaluation, scored: EvaluationContext, history: Sequence[History], repeat: str
) -> dict[str, Any]:
    """What is said once for all heads."""
    report, model = scored.report, scored.model
    card = {**evaluation.protocol}
    classes = card.pop("classes")
    epoch = model.model.metrics.get("epoch") if isinstance(model, Predictor) else None
    times = [("evaluation", scored.seconds)]
    if history:
        whole = [("training, all stages", total_seconds(history))] * (len(history) > 1)
        times = [*((f"training {s.name}", s.seconds) for s in history), *whole, *times]
    return {
        "name": report.dataset.root.resolve().name,
        "network": f"FCN-{model.info.stride}s, {model.info.backbone}",
        "split": scored.split,
        "image_count": card["images"],
        "epoch": epoch,
        "history": history,
        "card": {key.replace("_", " "): value for key, value in card.items()},
        "class_count": len(classes),
        "data": {
            "layout": report.dataset.layout,
            "images": {name: len(pairs) for name, pairs in scored.dataset.splits.items()},
            "sizes": [(h, w, n) for (h, w), n in report.sizes.most_common(3)],
            "further_sizes": max(0, len(report.sizes) - 3),
            "fingerprint": card["data_fingerprint"],
        },
        "findings": report.findings[:FINDINGS],
        "further_findings": max(0, len(report.findings) - FINDINGS),
        "repeat": repeat,
        "versions": _versions(),
        "machine": _machine(model),
        "times": [(name, duration(seconds)) for name, seconds in times],
        "memory": _memory(),
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
        "left_out": evaluation.left_out,
        "edge": _EDGE,
        "edge_place": WIDTHS.index(_EDGE),
    }


def _size(k: int) -> str:
    """The sizes in a bar, short: "64–255", "16k–65k", "65k+"."""
    low, high = (_short(AREAS[k]), "+" if k + 1 == len(AREAS) else f"–{_short(AREAS[k + 1] - 1)}")
    return low + high


def _short(count: int) -> str:
    return str(count) if count < 1000 else f"{count // 1000}k"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent; a dash where there is none.

    >>> percent(0.6349), percent(None), percent(float("nan")), percent(0.00001)
    ('63.5', '–', '–', '0.0')
    """
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def duration(seconds: float) -> str:
    """In words.

    >>> duration(4.2), duration(75), duration(7290)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _versions() -> list[tuple[str, str]]:
    found = [(name, installed_version(name)) for name in PACKAGES]
    known = [(name, version) for name, version in found if version]
    return [("fullconv", __version__), ("Python", platform.python_version()), *known]


def _machine(model: Any) -> str:
    device = getattr(model, "device", None)
    if device is not None and device.type == "cuda":
        import torch

        return f"{torch.cuda.get_device_name(device)}, {platform.system()}"
    return f"{plural(os.cpu_count() or 1, 'processor')}, {platform.machine()}, {platform.system()}"


def _memory() -> list[tuple[str, str]]:
    """The most that this process took."""
    found = []
    if sys.platform != "win32":
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = most if sys.platform == "darwin" else 1024 * most
        found.append(("memory, at most", f"{size / 2**30:.1f} GiB"))
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        size = torch.cuda.max_memory_allocated()
        found.append(("GPU memory, at most", f"{size / 2**30:.1f} GiB"))
    return found


def _save_images(
    page: Path,
    facts: Sequence[HeadFacts],
    images: Sequence[HeadImages],
    charts: Mapping[str, str],
) -> dict[Any, str]:
    """The files that report.md shows, beside it; where each is."""
    folder = page.parent / "images"
    folder.mkdir(exist_ok=True)
    files: dict[Any, str] = {}
    for k, (head, of_head) in enumerate(zip(facts, images, strict=True)):
        stem = page.stem + f"-head{k + 1}" * (len(images) > 1)
        for shown in of_head.shown:
            files[k, shown.rank] = f"images/{stem}-{shown.rank}.jpg"
            shown.sheet().save(page.parent / files[k, shown.rank], quality=85, optimize=True)
        for number, pair in enumerate(head.confused, 1):
            files[k, pair] = f"images/{stem}-confused-{number}.jpg"
            of_head.crops[pair].save(page.parent / files[k, pair], quality=85, optimize=True)
    for name, chart in charts.items():
        files[name] = f"images/{page.stem}-{name}.svg"
        _write(page.parent / files[name], standalone_svg(chart))
    return files


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"percent": percent, "count": lambda n: f"{n:,}", "cell": _in_table}
    return found


def _in_table(text: str) -> str:
    """As a cell of a Markdown table."""
    return str(text).replace("|", r"\|").replace("\n", " ")
