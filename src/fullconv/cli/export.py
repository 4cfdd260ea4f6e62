"""The commands that take a model elsewhere: export, push."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fullconv.cli.app import Device, Flag, Json, app, model_name, print_result
from fullconv.cli.usage import check_model
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg
from fullconv.core.progress import say, stage
from fullconv.core.text import as_typed, shell_command

if TYPE_CHECKING:
    from fullconv.models.model import Model

CALIBRATION_IMAGES = 64


@app.command(sort_key=7)
def export(
    model: Path,
    /,
    *,
    format: Annotated[
        Literal["onnx", "openvino", "torch", "web"], Parameter(name="--format")
    ] = "onnx",
    out: Path = Path("exported"),
    precision: Literal["float32", "float16", "int8"] = "float32",
    with_labels: Flag = False,
    calibrate: Path | None = None,
    ort: Path | None = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Export a model to another format, after comparing its predictions there.

    Args:
        model: Run or model folder, or hf://user/name.
        format: onnx (ONNX Runtime), openvino, torch (torch.export), or web (a page that segments
            images in the browser).
        out: Output folder.
        precision: Number format; int8 is calibrated on images.
        with_labels: Export class ids at every pixel in place of logits at the cells: slower, but
            other programs need nothing of Fullconv.
        calibrate: Images like those that the model will see: int8 needs some, and predictions are
            compared on them.
        ort: For web: an unpacked npm package onnxruntime-web. Default: downloaded by npm.
        device: Device; models are exported on the CPU, and the file runs on any device.
    """
    if format == "web" and with_labels:
        message = msg("the web page needs logits, which --with-labels replaces by class ids.")
        raise FullconvError(message, msg("--format web   # without --with-labels"))
    if format != "web" and ort is not None:
        message = msg("--ort is for --format web, not for {format}.", format=format)
        raise FullconvError(message, "--format web")
    check_model("export", model)

    stage(msg("loading the model"))
    from fullconv.data.io.images import read_image
    from fullconv.deploy.export import export as export_model
    from fullconv.deploy.export_web import export_web
    from fullconv.inference.input_files import find_images
    from fullconv.models.open import open_model

    paths = [path for path, _ in find_images([calibrate])] if calibrate else []
    paths = paths[:: max(1, len(paths) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
    loaded, images = open_model(model), [read_image(path) for path in paths]
    if device not in ("auto", "cpu"):
        say(msg("note: models are exported on the CPU; the exported file runs on any device"))
    values = {"model": as_typed(model), "format": format, "precision": precision}
    stage(msg("exporting {model} to {format}, {precision}; this takes a minute or two", **values))
    options: dict[str, Any] = {"precision": precision, "images": images}
    if format == "web":
        result = export_web(loaded, out, name=model_name(model), ort=ort, **options)
    else:
        result = export_model(loaded, out, format=format, with_labels=with_labels, **options)
    if precision == "float32":
        _note_bfloat16(loaded, model)
    facts, (ahead, *notes) = result.to_dict(), _following(format, result.path)
    print_result(facts, join([result.text(), *notes]), json, ahead=ahead)


def _note_bfloat16(loaded: Model, model: Path) -> None:
    import torch

    from fullconv.inference.runtime import choose_precision

    if choose_precision(loaded, torch.device("cpu"))[0] == "float32":
        return
    command = shell_command("fullconv", "predict", model, "IMAGES", "--precision", "float32")
    note = msg(
        "note: on this CPU, predict runs in bfloat16, so a few pixels differ from the exported "
        "file. For identical results: {command}",
        command=command,
    )
    say(note)


def _following(format: str, file: Path) -> list[str]:
    """Return the command to type next, and notes about it."""
    if format == "web":
        serve = shell_command("python", "-m", "http.server", "--directory", file.parent)
        note = msg("A browser cannot read the model if it opens index.html as a file.")
        ahead = msg("{command}   # then open the address that it prints", command=serve)
        return [ahead, note]
    if format == "torch":
        code = f"import torch; print(torch.export.load({str(file)!r}))"
        return [shell_command("python", "-c", code)]
    return [shell_command("fullconv", "predict", file, "IMAGES")]


@app.command(sort_key=9)
def push(
    model: Path,
    name: str,
    /,
    *,
    private: Flag = False,
    revision: str = "",
    message: str = "",
    images: Flag = False,
    json: Json = False,
) -> None:
    """Upload a model to the Hugging Face Hub: weights, config.json and model card, nothing else.

    Args:
        model: Run or model folder.
        name: user/name; a model of that name is overwritten.
        private: Create a private repository.
        revision: Branch to upload to; it is created if it is missing.
        message: Commit message.
        images: Upload the run's newest sheet of validation images, too: it shows your data.
    """
    check_model("push", model)
    stage(msg("uploading {model} to {name}", model=model, name=name))
    from fullconv.deploy.push import push as push_model

    pushed = push_model(
        model, name, private=private, revision=revision, message=message, images=images
    )
    text = msg("{address}   # {files}", address=pushed.address, files=", ".join(pushed.files))
    ahead = shell_command("fullconv", "predict", pushed.name, "IMAGES")
    print_result(asdict(pushed), text, json, ahead=ahead)
