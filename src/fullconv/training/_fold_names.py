"""Names that were typed: whether there is such a backbone, before anything slow is begun."""

from __future__ import annotations

from difflib import get_close_matches

from fullconv.core.errors import FullconvError
from fullconv.network.backbone_card import read_card


def require_backbone(name: str) -> None:
    """Says at once that timm or torchvision has no network of a name, or what is wrong with a card;
    whether it can be built, and with which weights, is seen when it is.

    Args:
        name: a timm name, "torchvision:NAME", or the path of a backbone card.

    Raises:
        FullconvError: there is none of that name, or a card that cannot be read.
    """
    card = read_card(name) if name.endswith(".toml") else None
    source, _, plain = (f"{card.source}:{card.name}" if card else name).rpartition(":")
    source = source or "timm"
    if source == "timm":
        import timm

        known, models = timm.is_model(plain), timm.list_models()
    elif source == "torchvision":
        import torchvision

        models = torchvision.models.list_models(module=torchvision.models)
        known = plain in models
    else:
        return  # `fullconv.network.backbone.build` says which sources there are
    if known:
        return
    near = get_close_matches(plain, models, 4)
    nearest = f"; the nearest are {', '.join(near)}" if near else ""
    prefix = "" if source == "timm" else f"{source}:"
    best = (near or ["resnet18"])[0]
    raise FullconvError(
        f"{source} has no network {plain!r}{nearest}.",
        f'name = "{best}"   # in {name}' if card else f"--backbone {prefix}{best}",
    )
