"""Export a model as a web page that segments images in the browser.

    index.html     the page that `fullconv serve` shows
    model.json     classes, and the grid of the cells
    model.onnx     the network, see `fullconv.deploy.export`
    ort/           ONNX Runtime for browsers, from the npm package onnxruntime-web

Any static file server works: the page uses one thread, so no special headers are needed.
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

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg
from fullconv.core.packages import __version__
from fullconv.core.progress import stage
from fullconv.deploy.export import Exported, export
from fullconv.inference.exported import load_exported
from fullconv.models.model import Model

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
MAX_PIXELS = 2_000_000  # larger images are resized: browsers give a page 4 GB at most
_ENGINE = '<meta name="fullconv-engine" content="{}">'
_BY_HAND = (
    f"npm pack {PACKAGE}@{VERSION} && tar xf {PACKAGE}-{VERSION}.tgz && "
    "fullconv export MODEL --format web --ort package"
)


def export_web(
    model: Model,
    out: str | Path,
    *,
    name: str = "model",
    precision: str = "float32",
    images: Sequence[np.ndarray] = (),
    ort: str | Path | None = None,
) -> Exported:
    """Write a folder for a web server.

    Args:
        name: of the model, shown on the page.
        precision, images: see `fullconv.deploy.export.export`.
        ort: an unpacked npm package onnxruntime-web. None: npm downloads it.

    Raises:
        FullconvError: as `fullconv.deploy.export.export`; or the model takes extra inputs, or ONNX
            Runtime for browsers is not available.
    """
    if model.extra_inputs:
        names = ", ".join(extra.name for extra in model.extra_inputs)
        message = msg(
            "the model takes the extra inputs {names}; the page has images alone.", names=names
        )
        raise FullconvError(message, "fullconv export MODEL --format onnx")
    out = Path(out)
    with _ort_files(ort) as folder:
        result = export(model, out, precision=precision, images=images)
        exported = load_exported(result.path)
        about = {
            "engine": "onnx",
            "file": result.path.name,
            "bytes": result.bytes,
            "grid": [exported.grid.stride, exported.grid.offset],
            "name": name,
            "classes": exported.labels.to_list(),
            "ignore_index": exported.labels.ignore_index,
            "backbone": exported.about["backbone"]["name"],
            "pretrained_on": exported.info.pretrained_on,
            "heads": {head: list(labels.names) for head, labels in exported.heads.items()},
            "limits": {"pixels": MAX_PIXELS},
            "version": __version__,
        }
        page = resources.files("fullconv").joinpath("deploy/page/index.html")
        html = page.read_text(encoding="utf-8")
        assert _ENGINE.format("server") in html
        html = html.replace(_ENGINE.format("server"), _ENGINE.format("onnx"))
        try:
            (out / "ort").mkdir(exist_ok=True)
            for file in RUNTIME:
                shutil.copyfile(folder / file, out / "ort" / file)
            atomic_write(out / "model.json", json.dumps(about, indent=1))
            atomic_write(out / "index.html", html)
        except OSError as error:
            values = {"folder": out, "reason": error.strerror or error}
            message = msg("the page could not be written to {folder}: {reason}.", **values)
            raise FullconvError(message, "--out ANOTHER_FOLDER") from error
    return result


@contextmanager
def _ort_files(ort: str | Path | None) -> Iterator[Path]:
    """Yield a folder with the files of `RUNTIME`: the given one, or one that npm downloads."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(ort) if ort is not None else _download(Path(temporary))
        for place in (folder / "dist", folder):
            if all((place / file).is_file() for file in RUNTIME):
                yield place
                return
        values = {"folder": folder, "package": PACKAGE, "files": ", ".join(RUNTIME)}
        message = msg(
            "{folder} is not an unpacked {package}: expected {files} in it or in its dist/.",
            **values,
        )
        raise FullconvError(message, _BY_HAND)


def _download(folder: Path) -> Path:
    """Download the package with npm, and return the folder with the files of `RUNTIME`."""
    values = {"package": PACKAGE, "version": VERSION}
    npm = shutil.which("npm")
    if npm is None:
        message = msg(
            "the page needs the npm package {package}, but npm is not installed.", **values
        )
        raise FullconvError(message, msg("{command}   # on a machine with npm", command=_BY_HAND))
    stage(msg("downloading {package}", **values))
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()
        values["reason"] = output[0][:200] if output else f"exit code {done.returncode}"
        message = msg("npm could not download {package} {version}: {reason}", **values)
        raise FullconvError(message, _BY_HAND)
    try:
        with tarfile.open(archives[0]) as archive:
            for file in RUNTIME:
                member = archive.extractfile(f"package/dist/{file}")
                assert member is not None
                (folder / file).write_bytes(member.read())
    except (KeyError, tarfile.TarError, AssertionError) as error:
        values["reason"] = str(error)
        message = msg(
            "the package {package} {version} that npm downloaded lacks files: {reason}", **values
        )
        raise FullconvError(message, _BY_HAND) from error
    return folder
