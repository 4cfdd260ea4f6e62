"""Any classifier as a backbone: feature maps at known strides, each with its channels and `Grid`.

A timm name gives timm's own feature pyramid. A torchvision classifier, or a user's module that ends
in class scores, is cut behind the last layer of each stride. A module that returns feature maps is
used as it is.

Each axis is padded below (right) to the smallest size at which no pixel is more than half a stride
outside the outermost cell centers. Networks without padding of their own are also padded above
(left), by multiples of the coarsest stride. If padding depends on the size (TensorFlow's SAME), the
size is made one more than a multiple of the coarsest stride: every level is odd then, SAME padding
is symmetric, and the offset is the same for every image. If a network accepts only multiples (Swin,
ViT), the size is made a multiple.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import truncated_list
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
from fullconv.network.classifiers import (
    go_offline_without_network,
    require_timm_model,
    timm_classifier,
    torchvision_classifier,
)
from fullconv.network.paper import nets, torchvision_fcn

STRIDES = (4, 8, 16, 32)
PLACEMENTS = ("exact", "half_pixel", "stretched")
# timm's options that let networks with windows or position embeddings accept any size.
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {},
    {"strict_img_size": False},
    {"dynamic_img_size": True, "dynamic_img_pad": True},
)
_RETURN_MAPS = msg("return [x8, x16, x32] from the module's forward")
_NO_POSITIONS = msg("--backbone resnet18   # or another network without fixed position embeddings")


class MissingStrideError(FullconvError):
    """A network has no feature map at the requested stride."""


class Backbone(nn.Module):
    """A network that maps images to feature maps at some of the strides 4, 8, 16, 32.

    Args:
        pyramid: maps (N, 3, H, W) to feature maps.
        taps: indices of the feature maps to use, finest first.
        grids: the grid of each tap. The attribute `grids` is in pixels of the unpadded image
            ("stretched": of multiples of the stride), and `traced_grids` in pixels of the padded.
        card: the origin of the network.
        placement: "exact" (`grids`, as traced), "half_pixel" (every cell in the middle of its
            stride x stride pixels), or "stretched" (the cells of each axis spread evenly over its
            pixels, as `F.interpolate(align_corners=False)` does).

    >>> backbone = build("resnet18", stride=16)
    >>> [feature.shape for feature in backbone(torch.zeros(1, 3, 64, 96))]
    [torch.Size([1, 256, 5, 7]), torch.Size([1, 512, 3, 4])]
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
        self.in_channels = 3  # `fullconv.network.multi_input` may add some
        self.traced_grids = tuple(grids)
        self.coarsest_stride = int(grids[-1].stride)
        # Sizes are padded to this remainder modulo the coarsest stride, because the network accepts
        # only multiples (0) or its padding depends on the size (1). None: any size.
        self.size_phase: int | None = None
        self._start = CANONICAL_SIZE
        self._shape_cache: dict[int, list[tuple[int, ...]]] = {}  # during construction
        if not _runs(pyramid, CANONICAL_SIZE):
            self.size_phase, self._start = 0, CANONICAL_SIZE - 1
        elif not _same_offsets(pyramid, taps, grids):
            self.size_phase = 1
        self.placement = placement
        if placement != "exact":
            grids = [replace(g, offset=(g.stride - 1) / 2) for g in grids]
        # timm's Swin and similar networks return (N, h, w, C): with a wider image, the last
        # dimension stays the same.
        shapes = self._shapes(self._start)
        wider = self._shapes(self._start + self.coarsest_stride)
        self.channels_last = tuple(a[-1] == b[-1] for a, b in zip(shapes, wider, strict=True))
        dims = (-1 if last else 1 for last in self.channels_last)
        self.channels = tuple(shape[dim] for shape, dim in zip(shapes, dims, strict=True))
        reach = max(grid.offset - grid.stride / 2 for grid in grids)
        self.pad_before = max(0, math.ceil(reach / self.coarsest_stride)) * self.coarsest_stride
        self.grids = tuple(replace(g, offset=g.offset - self.pad_before) for g in grids)
        self._growth = tuple(self._measure_growth(tap) for tap in range(len(self.taps)))
        del self._shape_cache

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one feature map (N, C, h, w) per tap, finest first, of images (N, 3, H, W)."""
        return self.features(self.pad(images))

    def pad(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) with the zeros around them that `features` expects."""
        below, right = (self.pad_after(pixels) for pixels in images.shape[2:])
        if torch.compiler.is_exporting() or below or right or self.pad_before:
            images = F.pad(images, (self.pad_before, right, self.pad_before, below))
        return images

    def features(self, padded: Tensor) -> list[Tensor]:
        """Return the feature maps of images that `pad` has padded."""
        maps = feature_maps(self.pyramid(padded))
        return [
            maps[tap].permute(0, 3, 1, 2) if last else maps[tap]
            for tap, last in zip(self.taps, self.channels_last, strict=True)
        ]

    def pad_after(self, pixels: int) -> int:
        """Return the number of pixels to add below (right of) an image of this height (width)."""
        # Only whole numbers from 0 up, because ONNX divides negative ones differently, and no
        # branch, because it is exported for any size.
        size: Any = pixels + self.pad_before
        for (threshold, stride), grid in zip(self._growth, self.grids, strict=True):
            cells: Any = 0  # beyond the first cell
            if self.placement != "stretched":  # stretched cells cover every size
                reach = torch.sym_max(0, 2 * pixels - 2 - stride - round(2 * grid.offset))
                cells = (reach + 2 * stride - 1) // (2 * stride)
            size = torch.sym_max(size, threshold + stride * cells)
        if self.size_phase is not None:
            over = (size - self.size_phase) % self.coarsest_stride
            size = size + (self.coarsest_stride - over) % self.coarsest_stride
        return size - self.pad_before - pixels

    def cells(self, tap: int, pixels: int) -> int:
        """Return the number of cells of a tap along an axis of a padded image."""
        threshold, stride = self._growth[tap]
        return (pixels - threshold) // stride + 1

    def _measure_growth(self, tap: int) -> tuple[int, int]:
        """Return the size at which a tap has its first cell, extrapolated backward, and its
        stride: the tap gets one more cell every `stride` pixels."""
        stride = int(self.traced_grids[tap].stride)
        start = self._start
        if self.size_phase is None:  # otherwise sizes are regular: they step by the coarsest stride
            count, end = self._count(tap, start), start + stride
            while end - start > 1:  # invariant: `count` cells at start, more at end
                middle = (start + end) // 2
                start, end = (middle, end) if self._count(tap, middle) == count else (start, middle)
            start = end
        return start - stride * (self._count(tap, start) - 1), stride

    def _count(self, tap: int, size: int) -> int:
        return self._shapes(size)[tap][1 if self.channels_last[tap] else 2]

    def _shapes(self, size: int) -> list[tuple[int, ...]]:
        if size not in self._shape_cache:
            try:
                maps = feature_maps(_run_for_shapes(self.pyramid, size))
            except (RuntimeError, AssertionError, ValueError) as error:
                message = msg(
                    "{name} does not accept images of every size ({size} pixels: {error}).",
                    name=self.card.name,
                    size=size,
                    error=error,
                )
                raise FullconvError(message, _NO_POSITIONS) from None
            self._shape_cache[size] = [tuple(maps[tap].shape) for tap in self.taps]
        return self._shape_cache[size]


def build(
    backbone: str | Path | BackboneCard | nn.Module,
    *,
    stride: int,
    pretrained: bool = False,
    placement: str | None = None,
) -> Backbone:
    """Build a backbone with taps at `stride` and at every coarser stride up to 32 that it has.

    Args:
        backbone: a timm name ("resnet18"), "torchvision:NAME", "paper:NAME" (see
            `fullconv.network.paper.nets`), the path of a backbone card, a card, or a module.
        stride: of the finest tap: 32, 16, 8 or 4 pixels.
        pretrained: load the source's published weights (downloaded once), not a card's own.
        placement: see `Backbone`; None: as the network was published.

    Raises:
        FullconvError: the name is unknown, the weights cannot be downloaded, or the network has no
            such stride.
    """
    card = resolve_card(backbone)
    if isinstance(backbone, nn.Module):
        pyramid, grids = _cut_pyramid(backbone, card, stride)
    elif card.source == "timm":
        pyramid, grids = _timm_pyramid(card, pretrained)
    elif card.source == "paper":
        pyramid, card = nets.build_paper_backbone(card, pretrained=pretrained)
        grids = _grids(pyramid)
    elif (card.source, card.name) in torchvision_fcn.CARDS:
        pyramid, card = torchvision_fcn.build_pyramid(card, pretrained=pretrained)
        grids = _grids(pyramid)
    elif card.source == "torchvision":
        pyramid, grids = _cut_pyramid(torchvision_classifier(card, pretrained), card, stride)
    else:
        raise FullconvError(
            msg("unknown backbone source {source!r}.", source=card.source),
            msg('source = "timm"  # or "torchvision" or "paper"'),
        )

    # Use the last feature map of each stride.
    last = {grid.stride: index for index, grid in enumerate(grids)}
    if stride not in STRIDES or stride not in last:
        offered = sorted(int(s) for s in last if s in STRIDES)
        if not offered:
            message = msg("{name} has no feature map at stride 4, 8, 16 or 32.", name=card.name)
            raise MissingStrideError(message, "--backbone resnet18")
        message = msg(
            "{name} has no feature map at stride {stride}. Its strides are: {strides}.",
            name=card.name,
            stride=stride,
            strides=truncated_list(offered),
        )
        raise MissingStrideError(message, f"--stride {offered[0]}")
    taps = [last[s] for s in STRIDES if stride <= s and s in last]
    placement = placement or str(getattr(pyramid, "placement", PLACEMENTS[0]))
    return Backbone(pyramid, taps, [grids[tap] for tap in taps], card, placement)


def resolve_card(backbone: Any) -> BackboneCard:
    """Return the card of a backbone given by name, by a card's path, as a card, or as a module."""
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

    require_timm_model(card)
    overlay = None
    if card.weights:  # timm silently drops weights that do not fit, so check them first
        timm_classifier(card, pretrained=False)
        overlay = {"file": str(card.weights)}
    if pretrained:
        go_offline_without_network()
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
    reason = problem.message if isinstance(problem, FullconvError) else problem
    message = msg("timm's {name} cannot be used at any size: {error}", name=card.name, error=reason)
    raise FullconvError(message, "--backbone resnet18")


def _cut_pyramid(
    module: nn.Module, card: BackboneCard, stride: int
) -> tuple[nn.Module, list[Grid]]:
    """Return a module as a pyramid, with its grids: the module itself if it returns feature maps,
    else the module cut behind the last submodule of each stride from `stride` up."""
    try:
        return module, _grids(module)
    except FullconvError as error:
        problem = error
    last = {grid.stride: name for name, grid in module_grids(module) if grid.stride in STRIDES}
    if not last:
        reason = problem.message
        message = msg(
            "{name} has no layer at stride 4, 8, 16 or 32: {error}", name=card.name, error=reason
        )
        raise FullconvError(message, _RETURN_MAPS)
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = {last[s]: f"stride{s:g}" for s in sorted(last) if s >= stride or stride not in last}
    try:
        pyramid = create_feature_extractor(module, return_nodes=nodes)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        cut = ", ".join(nodes)
        message = msg(
            "{name} cannot be cut at {nodes}: {error}", name=card.name, nodes=cut, error=error
        )
        raise FullconvError(message, _RETURN_MAPS) from error
    return pyramid, _grids(pyramid)


def _run_for_shapes(pyramid: nn.Module, size: int) -> Any:
    try:
        return run_on_meta(pyramid, torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, NotImplementedError):
        return run_on_device(pyramid, torch.zeros(1, 3, size, size))


def _runs(pyramid: nn.Module, size: int) -> bool:
    try:
        _run_for_shapes(pyramid, size)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _grids(pyramid: nn.Module) -> list[Grid]:
    """Return the grids at a size where SAME padding is symmetric, or else at a multiple of 32."""
    size = CANONICAL_SIZE if _runs(pyramid, CANONICAL_SIZE) else CANONICAL_SIZE - 1
    return trace(pyramid, size=size)


def _same_offsets(pyramid: nn.Module, taps: Sequence[int], grids: Sequence[Grid]) -> bool:
    """Return whether the offsets are those of `grids` at a size that is even at every level too."""
    try:
        even = trace(pyramid, size=CANONICAL_SIZE - 1)
    except FullconvError:
        return False
    return [even[tap].offset for tap in taps] == [grid.offset for grid in grids]
