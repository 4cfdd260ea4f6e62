"""The command that makes a model a file for other engines: export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fullconv.errors import command
from fullconv.terminal import Json, app, emit, say

MOST = 64  # pictures that int8 is calibrated with


@app.command(sort_key=5)
def export(
    model: Path,
    *,
    to: Literal["onnx", "openvino", "torch"] = "onnx",
    out: Path = Path("exported"),
    precision: Literal["float32", "float16", "int8"] = "float32",
    labels_inside: bool = False,
    calibrate: Path | None = None,
    json: Json = False,
) -> None:
    """Write a model as one file for another engine; what it gives there is compared first.

    Parameters
    ----------
    model
        A model folder, or the run that holds it.
    to
        onnx (ONNX Runtime), openvino or torch (torch.export).
    out
        Folder for the file.
    precision
        float32, float16, or int8, which is calibrated on pictures.
    labels_inside
        The file gives class ids at every pixel, not scores at the cells. Slower, and needs nothing
        of fullconv to be read.
    calibrate
        A folder of pictures (or one) like those that the model will see: int8 needs some, and all
        are compared on them, too.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.pictures import read_picture
    from fullconv.export import export as export_model
    from fullconv.model import load_model
    from fullconv.outputs import find_pictures

    found = [path for path, _ in find_pictures([calibrate])] if calibrate else []
    some = found[:: max(1, len(found) // MOST)][:MOST]
    say(f"{model} -> {to}, {precision}: takes a minute or two")
    result = export_model(
        load_model(model),
        out,
        to=to,
        precision=precision,
        labels_inside=labels_inside,
        pictures=[read_picture(path) for path in some],
    )
    text = result.text()
    if to != "torch":
        text += f"\nnext: {command('fullconv', 'predict', result.path, 'PICTURES')}"
    emit(result.to_dict(), text, json)
