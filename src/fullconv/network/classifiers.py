"""The classifiers of timm and torchvision, by name."""

from __future__ import annotations

import logging
import socket
import warnings
from urllib.parse import urlsplit

from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.network.backbone_card import BackboneCard, unreachable_weights_error
from fullconv.network.paper.weight_files import load_card_weights

_NO_OPTIONS = msg("options = {{}}   # in the card")


def timm_classifier(card: BackboneCard, pretrained: bool) -> nn.Module:
    """Return the whole timm classifier, with the card's weights if it has any."""
    import timm

    require_timm_model(card)
    published = pretrained and card.weights is None
    if published:
        go_offline_without_network()
    try:
        classifier: nn.Module = timm.create_model(card.name, pretrained=published, **card.options)
    except Exception as error:
        if published and not isinstance(error, (TypeError, ValueError)):
            raise unreachable_weights_error(card, error) from error
        message = msg("timm's {name} cannot be built: {error}", name=card.name, error=error)
        raise FullconvError(message, _NO_OPTIONS) from error
    load_card_weights(classifier, card)
    return classifier


def require_timm_model(card: BackboneCard) -> None:
    """Raise FullconvError if timm has no network of this name."""
    import timm

    # timm lists the classifier's weights as unused each time a pyramid is cut from it.
    logging.getLogger("timm").setLevel(logging.ERROR)
    if timm.is_model(card.name):
        return
    near = timm.list_models(f"*{card.name}*")[:5]
    message = msg("timm has no network {name!r}.", name=card.name)
    if near:
        listed = ", ".join(near)
        message = msg("timm has no network {name!r}; it has {near}.", name=card.name, near=listed)
    raise FullconvError(message, msg("--backbone resnet18   # or torchvision:NAME, or a card.toml"))


def go_offline_without_network() -> None:
    """Tell the hub's client if there is no network: it would retry for most of a minute. Weights in
    its cache are found either way."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def torchvision_classifier(card: BackboneCard, pretrained: bool) -> nn.Module:
    """Return the whole torchvision classifier, with the card's weights if it has any."""
    import torchvision

    if card.name not in torchvision.models.list_models(module=torchvision.models):
        message = msg("torchvision has no classifier {name!r}.", name=card.name)
        raise FullconvError(message, "--backbone torchvision:resnet18")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # inception's and googlenet's init
            classifier: nn.Module = torchvision.models.get_model(
                card.name, weights="DEFAULT" if pretrained else None, **card.options
            )
    except (TypeError, ValueError) as error:
        message = msg("torchvision's {name} cannot be built: {error}", name=card.name, error=error)
        raise FullconvError(message, _NO_OPTIONS) from error
    except (OSError, RuntimeError) as error:
        raise unreachable_weights_error(card, error) from error
    load_card_weights(classifier, card)
    return classifier
