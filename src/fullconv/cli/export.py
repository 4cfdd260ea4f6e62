"""The command that makes a model a file for other engines, or a web page: export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fullconv.cli.app import Json, app, name_of, print_result, say
from fullconv.core.errors import FullconvError
from fullconv.core.text import as_typed, shell_command

if TYPE_CHECKING:
    from fullconv.models.model import Model


MOST = 64  # images that int8 is calibrated with


@app.command(sort_key=5)
def export(
    model: Path,
    *,
    to: Literal["onnx", "openvino", "torch", "web"] = "onnx",
    out: Path = Path("exported"),
    precision: Literal["float32", "float16", "int8"] = "float32",
    labels_inside: bool = False,
    calibrate: Path | None = None,
    ort: Path | None = None,
    json: Json = False,
) -> None:
    """Write a model as one file for another engine; what it gives there is compared first.

    Parameters
    ----------
    model
        A model folder, the run that holds it, or hf://user/name.
    to
        onnx (ONNX Runtime), openvino, torch (torch.export), or web: a page that labels images in
        the browser.
    out
        Folder for the file.
    precision
        float32, float16, or int8, which is calibrated on images.
    labels_inside
        The file gives class ids at every pixel, not scores at the cells. Slower, and needs nothing
        of fullconv to be read.
    calibrate
        A folder of images (or one) like those that the model will see: int8 needs some, and all
        are compared on them, too.
    ort
        For web: an unpacked npm package onnxruntime-web. Without it, npm fetches one.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.io.images import read_image
    from fullconv.deploy.export import export as export_model
    from fullconv.deploy.export_web import export_web
    from fullconv.inference.input_files import find_images
    from fullconv.models.model import load_model

    _require_together(to, labels_inside, ort)
    found = [path for path, _ in find_images([calibrate])] if calibrate else []
    some = found[:: max(1, len(found) // MOST)][:MOST]
    say(f"{as_typed(model)} -> {to}, {precision}: takes a minute or two")
    loaded, images = load_model(model), [read_image(path) for path in some]
    if to == "web":
        name = name_of(model)
        result = export_web(loaded, out, name=name, precision=precision, images=images, ort=ort)
    else:
        result = export_model(
            loaded, out, to=to, precision=precision, labels_inside=labels_inside, images=images
        )
    if precision == "float32":
        _say_where_the_model_differs(loaded, model)
    print_result(result.to_dict(), "\n".join([result.text(), *_next(to, result.path)]), json)


def _say_where_the_model_differs(loaded: Model, model: Path) -> None:
    import torch

    from fullconv.inference.runtime import choose_precision

    if choose_precision(loaded, torch.device("cpu"))[0] != "float32":
        say(
            "note: on this machine the model itself runs in bfloat16, and labels some pixels "
            f"otherwise; as the file does: {shell_command('fullconv', 'predict', model, 'IMAGES')} "
            "--precision float32"
        )


def _require_together(to: str, labels_inside: bool, ort: Path | None) -> None:
    if to == "web" and labels_inside:
        raise FullconvError(
            "the page reads labels and confidence from scores; --with-labels leaves none.",
            "--format web   # without --with-labels",
        )
    if to != "web" and ort is not None:
        raise FullconvError(f"--ort is for --format web, not for {to}.", "--format web")


def _next(to: str, file: Path) -> list[str]:
    if to == "web":
        words = ("python", "-m", "http.server", "--directory", file.parent)
        return [
            f"next: {shell_command(*words)}   # and open the address that it prints",
            "A browser that opens index.html as a file does not let it read the model.",
        ]
    if to == "torch":
        code = f"import torch; print(torch.export.load({str(file)!r}))"
        return [f"next: {shell_command('python', '-c', code)}"]
    return [f"next: {shell_command('fullconv', 'predict', file, 'IMAGES')}"]


@app.command(sort_key=6)
def push(
    model: Path,
    name: str,
    *,
    private: bool = False,
    revision: str = "",
    message: str = "",
    images: bool = False,
    json: Json = False,
) -> None:
    """Send a model to the Hugging Face hub: weights, config.json and model card, nothing else.

    Parameters
    ----------
    model
        A model folder, or the run that holds it.
    name
        user/name; what is there under that name is overwritten.
    private
        Make it a private one.
    revision
        A branch to send it to; it is made where there is none.
    message
        Of the commit.
    images
        Send the run's newest sheet of validation images, too: images of your data.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.deploy.push import push as push_model

    say(f"{model} -> {name}")
    done = push_model(
        model,
        name,
        private=private,
        revision=revision,
        message=message,
        images=images,
    )
    text = f"{done.address}   # {', '.join(done.files)}"
    ahead = shell_command("fullconv", "predict", done.name, "IMAGES")
    print_result(asdict(done), text, json, ahead=ahead)
