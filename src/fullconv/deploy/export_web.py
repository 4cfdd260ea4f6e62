"""A model as a web page that labels images in the reader's browser: `fullconv export --format web`.

    index.html     the page, the same that `fullconv serve` shows
    model.json     classes, and where the cells of the scores sit
    model.onnx     the network, see `fullconv.deploy.export`
    ort/           ONNX Runtime for browsers, of the npm package onnxruntime-web

Any server of plain files will do; one thread is used, so that no special headers are needed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.packages import __version__
from fullconv.deploy.export import Exported, export
from fullconv.inference.exported import ExportedModel, load_exported
from fullconv.models.model import Model

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PIXELS = 2_000_000  # of an image; larger ones are made smaller: browsers give 4 GB at most
_ENGINE = '<meta name="fullconv-engine" content="{}">'


def export_web(
    model: Model,
    out: str | Path,
    *,
    name: str = "model",
    precision: str = "float32",
    images: Sequence[np.ndarray] = (),
    ort: str | Path | None = None,
) -> Exported:
    """Writes a folder for a web server, see above.

    Args:
        out: the folder.
        name: of the model, as the page shows it.
        precision, images: as of `fullconv.deploy.export.export`.
        ort: an unpacked npm package onnxruntime-web. None: npm fetches it.

    Raises:
        FullconvError: see `fullconv.deploy.export.export`; the model takes more than images; or ONNX
            Runtime for browsers cannot be had.
    """
    if model.extra_inputs:
        names = " and ".join(one.name for one in model.extra_inputs)
        raise FullconvError(
            f"the model takes {names} beside each image; the page has images alone.",
            "fullconv export MODEL --format onnx",
        )
    out = Path(out)
    with _runtime(ort) as folder:
        result = export(model, out, precision=precision, images=images)
        try:
            (out / "ort").mkdir(exist_ok=True)
            for file in RUNTIME:
                shutil.copyfile(folder / file, out / "ort" / file)
            table = _about(load_exported(result.path), name, result)
            (out / "model.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
            (out / "index.html").write_text(_page(), encoding="utf-8")
        except OSError as error:
            raise FullconvError(
                f"the page could not be written to {out}: {error.strerror or error}.",
                "--out ANOTHER_FOLDER",
            ) from error
    return result


def _page() -> str:
    text = (
        resources.files("fullconv").joinpath("deploy/page/index.html").read_text(encoding="utf-8")
    )
    assert _ENGINE.format("server") in text
    return text.replace(_ENGINE.format("server"), _ENGINE.format("onnx"))


def _about(file: ExportedModel, name: str, result: Exported) -> dict[str, Any]:
    return {
        "engine": "onnx",
        "file": result.path.name,
        "bytes": result.bytes,
        "grid": [file.grid.stride, file.grid.offset],
        "name": name,
        "classes": file.labels.to_list(),
        "ignore_index": file.labels.ignore_index,
        "backbone": file.about["backbone"]["name"],
        "pretrained_on": file.info.pretrained_on,
        "heads": {head: list(labels.names) for head, labels in file.heads.items()},
        "limits": {"pixels": PIXELS},
        "version": __version__,
    }


@contextmanager
def _runtime(ort: str | Path | None) -> Iterator[Path]:
    """The folder with the files of `RUNTIME`."""
    if ort is not None:
        yield _checked(Path(ort))
        return
    with tempfile.TemporaryDirectory() as place:
        yield _packed(Path(place))


def _checked(folder: Path) -> Path:
    for place in (folder / "dist", folder):
        if all((place / file).is_file() for file in RUNTIME):
            return place
    raise FullconvError(
        f"{folder} is no unpacked {PACKAGE}: expected {', '.join(RUNTIME)} in it or in its dist/.",
        _by_hand(),
    )


def _packed(place: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FullconvError(
            f"the page runs in {PACKAGE}, an npm package, and there is no npm here.",
            f"{_by_hand()}   # where npm is",
        )
    words = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    files = list(place.glob("*.tgz"))
    if done.returncode or not files:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason was given").splitlines()
        raise FullconvError(f"npm could not fetch {PACKAGE} {VERSION}: {said[0][:200]}", _by_hand())
    try:
        with tarfile.open(files[0]) as archive:
            for file in RUNTIME:
                member = archive.extractfile(f"package/dist/{file}")
                assert member is not None
                (place / file).write_bytes(member.read())
    except (KeyError, tarfile.TarError, AssertionError) as error:
        raise FullconvError(
            f"what npm fetched as {PACKAGE} {VERSION} lacks files: {error}", _by_hand()
        ) from error
    return _checked(place)


def _by_hand() -> str:
    fetch = f"npm pack {PACKAGE}@{VERSION} && tar xf {PACKAGE}-{VERSION}.tgz"
    return f"{fetch} && fullconv export MODEL --format web --ort package"
