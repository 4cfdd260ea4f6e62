"""Any classifier as a backbone: feature maps at known strides, each with its channels and `Grid`.

A timm name gives timm's own feature pyramid. A torchvision classifier, or a module of one's own
that ends in class scores, is cut behind the last layer of each stride. A module that already
returns its feature maps is taken as it is.

How images of any size are held to the grid: each axis is padded below (right) to the smallest
size at which no pixel lies further than half a stride outside the outermost cell centres, and above
(left), for networks without padding of their own, by multiples of the coarsest stride. Where
padding depends on the size (TensorFlow's SAME), the size is also made one more than a multiple of
the coarsest stride: every level is odd then, SAME padding is symmetric, and the offset is the same
for every image. Where a network takes only multiples (Swin, ViT), it is made a multiple.
"""

from __future__ import annotations

import logging
import math
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import (
    CANONICAL_SIZE,
    feature_maps,
    module_grids,
    run_on_device,
    run_on_meta,
    trace,
)
from fullconv.network.backbone_card import BackboneCard, read_card, unreachable_weights_error
from fullconv.network.paper import nets, torchvision_fcn
from fullconv.network.paper.weight_files import load_card_weights

STRIDES = (4, 8, 16, 32)
PLACEMENTS = ("exact", "half_pixel", "stretched")
# timm's options that let networks with windows or position embeddings take any size, where needed.
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {},
    {"strict_img_size": False},
    {"dynamic_img_size": True, "dynamic_img_pad": True},
)


class Backbone(nn.Module):
    """A network that turns images into feature maps at some of the strides 4, 8, 16, 32.

    Args:
        pyramid: maps (N, 3, H, W) to feature maps.
        taps: which of them to use, finest first.
        grids: the grid of each tap.
        card: where the network comes from.
        placement: "exact" (`grids`, as traced), "half_pixel" (every cell in the middle of its
            stride x stride pixels, whatever was traced), or "stretched" (the cells of each axis
            spread evenly over its pixels, as `F.interpolate(align_corners=False)` does).

    Attributes:
        channels: C of each tap.
        in_channels: of the images, 3; more where `fullconv.network.multi_input` added some.
        grids: of each tap, in pixels of the unpadded image ("stretched": of multiples of the
            stride); traced: the cells as they are, in pixels of the padded one.
        size_phase: sizes are padded to this remainder modulo the coarsest stride, because padding
            depends on the size (1) or the network takes only multiples (0); None: any size will do.
    """

    def __init__(
        self,
        pyramid: nn.Module,
        taps: Sequence[int],
        grids: Sequence[Grid],
        card: BackboneCard,
        placement: str = "exact",
    ) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.taps = tuple(taps)
        self.card = card
        self.in_channels = 3
        self.traced_grids = tuple(grids)
        self.coarsest_stride = int(grids[-1].stride)
        self.size_phase: int | None = None
        self._start = CANONICAL_SIZE
        self._known_shapes: dict[int, list[tuple[int, ...]]] = {}  # while this is being built
        if not _runs(pyramid, CANONICAL_SIZE):
            self.size_phase, self._start = 0, CANONICAL_SIZE - 1
        elif _offsets(pyramid, CANONICAL_SIZE - 1, taps) != [grid.offset for grid in grids]:
            self.size_phase = 1
        self.placement = placement
        if placement != "exact":
            grids = [Grid(g.stride, (g.stride - 1) / 2, g.field, g.whole) for g in grids]
        shapes = self._shapes(self._start)
        # timm's Swin and its kin return (N, h, w, C): the last dimension is the one that stays.
        wider = self._shapes(self._start + self.coarsest_stride)
        self.channels_last = tuple(a[-1] == b[-1] for a, b in zip(shapes, wider, strict=True))
        self.channels = tuple(
            shape[-1] if last else shape[1]
            for shape, last in zip(shapes, self.channels_last, strict=True)
        )
        reach = max(grid.offset - grid.stride / 2 for grid in grids)
        self.pad_before = max(0, math.ceil(reach / self.coarsest_stride)) * self.coarsest_stride
        self.grids = tuple(
            Grid(g.stride, g.offset - self.pad_before, g.field, g.whole) for g in grids
        )
        self._growth = tuple(self._growth_of(tap) for tap in range(len(self.taps)))
        del self._known_shapes

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) of any size from 1 x 1 up -> one (N, C, h, w) per tap, finest first."""
        return self.features(self.pad(images))

    def pad(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> with the zeros around it that `features` expects."""
        below, right = (self.pad_after(pixels) for pixels in images.shape[2:])
        if torch.compiler.is_exporting() or below or right or self.pad_before:
            images = F.pad(images, (self.pad_before, right, self.pad_before, below))
        return images

    def features(self, padded: Tensor) -> list[Tensor]:
        """As `forward`, of images that are padded."""
        maps = feature_maps(self.pyramid(padded))
        return [
            maps[tap].permute(0, 3, 1, 2) if last else maps[tap]
            for tap, last in zip(self.taps, self.channels_last, strict=True)
        ]

    def pad_after(self, pixels: int) -> int:
        """How many pixels are added below (right of) an image of so many. In whole numbers from 0
        up (ONNX divides others another way) and without a branch: it is exported for any size."""
        size: Any = pixels + self.pad_before
        for (threshold, stride), grid in zip(self._growth, self.grids, strict=True):
            beyond: Any = 0  # cells beyond the first
            if self.placement != "stretched":  # which reaches, whatever the size
                reach = torch.sym_max(0, 2 * pixels - 2 - stride - round(2 * grid.offset))
                beyond = (reach + 2 * stride - 1) // (2 * stride)
            size = torch.sym_max(size, threshold + stride * beyond)
        if self.size_phase is not None:
            over = (size - self.size_phase) % self.coarsest_stride
            size = size + (self.coarsest_stride - over) % self.coarsest_stride
        return size - self.pad_before - pixels

    def cells(self, tap: int, pixels: int) -> int:
        """How many cells a tap has along a (padded) image of so many pixels."""
        threshold, stride = self._growth[tap]
        return (pixels - threshold) // stride + 1

    def _growth_of(self, tap: int) -> tuple[int, int]:
        """The size at which a tap has its first cell, if its cells are counted back from here, and
        its stride: one more cell for every stride pixels."""
        stride = int(self.traced_grids[tap].stride)
        start = self._start
        if self.size_phase is None:  # else sizes step by the coarsest stride: all is regular there
            count, end = self._count(tap, start), start + stride
            while end - start > 1:  # invariant: `count` cells at start, more at end
                middle = (start + end) // 2
                start, end = (middle, end) if self._count(tap, middle) == count else (start, middle)
            start = end
        return start - stride * (self._count(tap, start) - 1), stride

    def _count(self, tap: int, size: int) -> int:
        shape = self._shapes(size)[tap]
        return shape[1] if self.channels_last[tap] else shape[2]

    def _shapes(self, size: int) -> list[tuple[int, ...]]:
        if size not in self._known_shapes:
            try:
                maps = feature_maps(_shapes_only(self.pyramid, size))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise FullconvError(
                    f"{self.card.name} does not take images of every size "
                    f"({size} pixels: {error}).",
                    "--backbone resnet18   # or another network without fixed position embeddings",
                ) from None
            self._known_shapes[size] = [tuple(maps[tap].shape) for tap in self.taps]
        return self._known_shapes[size]


def build(
    backbone: str | Path | BackboneCard | nn.Module,
    *,
    stride: int,
    pretrained: bool = False,
    placement: str | None = None,
) -> Backbone:
    """A backbone with taps at `stride` and at every coarser stride up to 32 that it has.

    Args:
        backbone: a timm name ("resnet18"), "torchvision:NAME", "paper:NAME" (see
            `fullconv.network.paper.nets`), the path of a backbone card, a card, or a module.
        stride: of the finest tap: 32, 16, 8 or 4 pixels.
        pretrained: load the source's published weights (needs the network once). A card brings its
            own weights.
        placement: see `Backbone`; None: as the network was published.

    Raises:
        FullconvError: unknown name, weights out of reach, no such stride.
    """
    card = resolve_card(backbone)
    if isinstance(backbone, nn.Module):
        pyramid, grids = _pyramid_of(backbone, card, stride)
    elif card.source == "timm":
        pyramid, grids = _timm_pyramid(card, pretrained)
    elif card.source == "paper" or (card.source, card.name) in torchvision_fcn.CARDS:
        make = nets.build_trunk if card.source == "paper" else torchvision_fcn.build_pyramid
        pyramid, card = make(card, pretrained=pretrained)
        grids = _grids(pyramid)
    elif card.source == "torchvision":
        pyramid, grids = _pyramid_of(torchvision_classifier(card, pretrained), card, stride)
    else:
        raise FullconvError(
            f"backbone source {card.source!r} is not known.",
            'source = "timm"  # or "torchvision" or "paper"',
        )
    last = {grid.stride: index for index, grid in enumerate(grids)}
    if stride not in STRIDES or stride not in last:
        offered = sorted(int(s) for s in last if s in STRIDES)
        named = " and ".join(
            filter(None, [", ".join(map(str, offered[:-1])), *map(str, offered[-1:])])
        )
        raise FullconvError(
            f"{card.name} offers stride {named or 'none of 4, 8, 16, 32'}"
            f"{' only' if len(offered) == 1 else ''}; stride {stride} was asked for.",
            f"--stride {offered[0]}" if offered else "--backbone resnet18",
        )
    taps = [last[s] for s in STRIDES if stride <= s and s in last]
    placed = placement or str(getattr(pyramid, "placement", PLACEMENTS[0]))
    return Backbone(pyramid, taps, [grids[tap] for tap in taps], card, placed)


def resolve_card(backbone: Any) -> BackboneCard:
    """Of a name, a card's path, a card, or a module."""
    if isinstance(backbone, BackboneCard):
        return backbone
    if isinstance(backbone, nn.Module):
        return BackboneCard("module", type(backbone).__name__)
    if isinstance(backbone, Path) or str(backbone).endswith(".toml"):
        return read_card(backbone)
    source, _, name = str(backbone).rpartition(":")
    if source == "paper":
        return nets.paper_card(name)
    return BackboneCard(source or "timm", name)


def _timm_pyramid(card: BackboneCard, pretrained: bool) -> tuple[nn.Module, list[Grid]]:
    import timm

    _refuse_unknown(card)
    overlay = {"file": str(card.weights)} if card.weights else None
    if card.weights:  # timm drops what does not fit in silence, so look first
        timm_classifier(card, pretrained=False)
    if pretrained:
        _skip_retries_where_there_is_no_network()
    problem: Exception | None = None
    for extra in ANY_SIZE:
        try:
            pyramid = timm.create_model(
                card.name,
                features_only=True,
                pretrained=pretrained or overlay is not None,
                pretrained_cfg_overlay=overlay,
                **{**card.options, **extra},
            )
            return pyramid, _grids(pyramid)
        except (FullconvError, TypeError, RuntimeError, AssertionError, AttributeError) as error:
            problem = problem or error
        except Exception as error:
            raise unreachable_weights_error(card, error) from error
    raise FullconvError(
        f"timm's {card.name} cannot be used at any size: {problem}", "--backbone resnet18"
    )


def timm_classifier(card: BackboneCard, pretrained: bool) -> nn.Module:
    """The whole classifier, with a card's weights if it has some."""
    import timm

    _refuse_unknown(card)
    published = pretrained and card.weights is None
    if published:
        _skip_retries_where_there_is_no_network()
    try:
        classifier: nn.Module = timm.create_model(card.name, pretrained=published, **card.options)
    except Exception as error:
        if published and not isinstance(error, (TypeError, ValueError)):
            raise unreachable_weights_error(card, error) from error
        raise FullconvError(
            f"timm's {card.name} cannot be built: {error}", "options = {}   # in the card"
        ) from error
    load_card_weights(classifier, card)
    return classifier


def _refuse_unknown(card: BackboneCard) -> None:
    import timm

    # It lists the classifier's weights as left over each time a pyramid is cut from it.
    logging.getLogger("timm").setLevel(logging.ERROR)
    if not timm.is_model(card.name):
        near = timm.list_models(f"*{card.name}*")[:5]
        raise FullconvError(
            f"timm has no network {card.name!r}{'; it has ' + ', '.join(near) if near else ''}.",
            "--backbone resnet18   # or torchvision:NAME, or a card.toml",
        )


def _skip_retries_where_there_is_no_network() -> None:
    """The hub's client tries for most of a minute; weights in its cache are found either way."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def torchvision_classifier(card: BackboneCard, pretrained: bool) -> nn.Module:
    """The whole classifier, with a card's weights if it has some."""
    import torchvision

    if card.name not in torchvision.models.list_models(module=torchvision.models):
        raise FullconvError(
            f"torchvision has no classifier {card.name!r}.", "--backbone torchvision:resnet18"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # inception's and googlenet's init
            classifier: nn.Module = torchvision.models.get_model(
                card.name, weights="DEFAULT" if pretrained else None, **card.options
            )
    except (TypeError, ValueError) as error:
        raise FullconvError(
            f"torchvision's {card.name} cannot be built: {error}", "options = {}   # in the card"
        ) from error
    except (OSError, RuntimeError) as error:
        raise unreachable_weights_error(card, error) from error
    load_card_weights(classifier, card)
    return classifier


def _pyramid_of(net: nn.Module, card: BackboneCard, stride: int) -> tuple[nn.Module, list[Grid]]:
    """A module as a pyramid, and its grids: as it is where it returns feature maps, else cut behind
    the last submodule of each stride from `stride` up."""
    try:
        return net, _grids(net)
    except FullconvError as error:
        problem = error
    found = module_grids(net)
    last = {grid.stride: name for name, grid in found if grid.stride in STRIDES}
    if not last:
        raise FullconvError(
            f"{card.name} has no layer with cells 4, 8, 16 or 32 pixels apart: {problem.message}",
            "return [x8, x16, x32] from the module's forward",
        )
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = {last[s]: f"stride{s:g}" for s in sorted(last) if s >= stride or stride not in last}
    try:
        pyramid = create_feature_extractor(net, return_nodes=nodes)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise FullconvError(
            f"{card.name} cannot be cut at {', '.join(nodes)}: {error}",
            "return [x8, x16, x32] from the module's forward",
        ) from error
    return pyramid, _grids(pyramid)


def _shapes_only(pyramid: nn.Module, size: int) -> Any:
    try:
        return run_on_meta(pyramid, torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, NotImplementedError):
        return run_on_device(pyramid, torch.zeros(1, 3, size, size))


def _runs(pyramid: nn.Module, size: int) -> bool:
    try:
        _shapes_only(pyramid, size)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _grids(pyramid: nn.Module) -> list[Grid]:
    """At a size where SAME padding is symmetric, or else at a multiple of every stride."""
    size = CANONICAL_SIZE if _runs(pyramid, CANONICAL_SIZE) else CANONICAL_SIZE - 1
    return trace(pyramid, size=size)


def _offsets(pyramid: nn.Module, size: int, taps: Sequence[int]) -> list[float] | None:
    try:
        grids = trace(pyramid, size=size)
    except FullconvError:
        return None
    return [grids[tap].offset for tap in taps]
