"""Open a model by what names it: a folder, a run, a hub name, or the model of someone else."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.labels import Labels
from fullconv.models.hub import resolve_hub_name
from fullconv.models.model import Model, load_model
from fullconv.models.run import model_folder
from fullconv.models.third_party import is_third_party, load_third_party


def resolve_model(source: str | Path) -> Path:
    """Return the path of a model: hf://user/name is downloaded, a run is replaced by its model.
    Names of third-party models, such as torchvision:fcn_resnet50, are returned unchanged."""
    return model_folder(resolve_hub_name(source))


def open_model(
    source: str | Path,
    *,
    backbone: nn.Module | str | None = None,
    weights: str | Path | None = None,
    labels: Labels | None = None,
) -> Model:
    """Open a model, whoever published it: a model folder, a run folder, a .safetensors file, a name
    on a hub (see `fullconv.models.hub`), or a third-party model (see
    `fullconv.models.third_party`).

    Args:
        backbone: the module, if the model was trained on a module of your own.
        weights, labels: of a third-party model.

    Raises:
        FullconvError: no such model, or it cannot be read.
    """
    path = resolve_model(source)
    if is_third_party(path):
        name = backbone if isinstance(backbone, str) else None
        return load_third_party(path, weights=weights, backbone=name, labels=labels)
    if weights is not None or labels is not None:
        raise FullconvError(
            msg("{path} is a fullconv model, which has its own weights and classes.", path=path),
            f"fc.load({str(path)!r})",
        )
    return load_model(path, backbone=backbone)
