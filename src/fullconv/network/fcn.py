"""The FCN: 1x1 scores at the taps of a backbone, summed from coarse to fine (Long et al. 2015, §4).

FCN-32s, 16s, 8s and 4s are this one class with `stride=`. Coarser scores are interpolated at the
cells of the finer ones, by their grids, and added: no crop, no multiple of 32, no stretching.

Shapes: N batch · C channels · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import truncated_list
from fullconv.geometry.grid import Grid
from fullconv.network.backbone import PLACEMENTS, Backbone, build
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.kernels.reference import interpolate, interpolation_matrix
from fullconv.network.scores import Scores
from fullconv.network.upsampling import LearnedUpsampling

UPSAMPLING = ("bilinear", "learned_skips", "learned")
BORDERS = ("replicate", "zeros")


class FCN(nn.Module):
    """A fully convolutional network for images of any H x W from 1 x 1 up.

    Args:
        backbone: as in `fullconv.network.backbone.build`, or a `Backbone`.
        num_classes: K; background counts.
        stride: output stride, 32, 16, 8 or 4 pixels: FCN-32s, 16s, 8s, 4s.
        upsampling: "bilinear" (fixed), "learned_skips" (transposed convolutions between the scores,
            as published: the last step is fixed), or "learned" (the last step too; the scores then
            have full size).
        border: the scores outside the cells: "replicate" (the outermost ones continue) or "zeros"
            (as a transposed convolution sees it). Default: zeros for the paper's networks in their
            original form, else replicate.
        placement: the assumed positions of the cells, see `fullconv.network.backbone.Backbone`.
            Default: "stretched" for torchvision's FCNs, else "exact".
        pretrained: start from the backbone's published weights.

    >>> import torch
    >>> net = FCN("resnet18", num_classes=21, stride=8)
    >>> scores = net(torch.zeros(1, 3, 50, 70))
    >>> scores.values.shape, scores.labels().shape
    (torch.Size([1, 21, 9, 10]), torch.Size([1, 50, 70]))
    """

    def __init__(
        self,
        backbone: str | Path | BackboneCard | Backbone | nn.Module,
        num_classes: int,
        *,
        stride: int = 8,
        upsampling: str = "bilinear",
        border: str | None = None,
        placement: str | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            message = msg("num_classes is {count}; it must be 1 or more.", count=num_classes)
            raise FullconvError(message, msg("num_classes=21   # background counts"))
        for name, value, choices in (
            ("upsampling", upsampling, UPSAMPLING),
            ("border", border, BORDERS),
            ("placement", placement, PLACEMENTS),
        ):
            if value is not None and value not in choices:
                message = msg(
                    "unknown {name} {value!r}; choose from {choices}.",
                    name=name,
                    value=value,
                    choices=truncated_list(choices),
                )
                raise FullconvError(message, f'{name}="{choices[0]}"')
        if not isinstance(backbone, Backbone):
            backbone = build(backbone, stride=stride, pretrained=pretrained, placement=placement)
        elif placement not in (None, backbone.placement):
            raise FullconvError(
                msg(
                    "this backbone was built with placement {built!r}, not {requested!r}.",
                    built=backbone.placement,
                    requested=placement,
                ),
                f'fullconv.network.backbone.build("{backbone.card.name}", stride={stride}, '
                f'placement="{placement}")',
            )
        if upsampling != "bilinear" and backbone.placement == "stretched":
            message = msg(
                "a transposed convolution has the same factor at every image size, but the "
                "factor of stretched scores depends on the size."
            )
            raise FullconvError(message, msg('placement="half_pixel"   # or upsampling="bilinear"'))
        published = getattr(backbone.pyramid, "published", False)
        self.border = border or ("zeros" if published else "replicate")
        self.backbone = backbone
        self.num_classes = num_classes
        self.stride = stride
        self.upsampling = upsampling

        # Scores start at zero, as in the paper, so that a new skip connection changes nothing. Only
        # the coarsest start with small weights, so that the backbone learns from the first step; in
        # the released networks they are zero too.
        grids = backbone.grids
        self.score = nn.ModuleDict()
        for grid, channels in zip(grids, backbone.channels, strict=True):
            self.score[_score_name(grid)] = nn.Conv2d(channels, num_classes, 1)
        for name, score in self.score.items():
            assert isinstance(score, nn.Conv2d)
            small = name == _score_name(grids[-1]) and not published
            nn.init.normal_(score.weight, std=0.01 if small else 0.0)
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]

        self.skip_upsampling = nn.ModuleDict()
        if upsampling != "bilinear":
            for coarse, fine in zip(grids[1:], grids[:-1], strict=True):
                step = LearnedUpsampling(num_classes, coarse, fine, self.border)
                self.skip_upsampling[_score_name(coarse)] = step
        self.final_upsampling: LearnedUpsampling | None = None
        if upsampling == "learned":
            final = LearnedUpsampling(num_classes, grids[0], Grid(1, 0), self.border)
            self.final_upsampling = final

    @property
    def name(self) -> str:
        """The paper's name, such as "FCN-8s"."""
        return f"FCN-{self.stride}s"

    def forward(self, images: Tensor) -> Scores:
        """Return the scores of normalized images (N, 3, H, W), in float32 (float64 for float64)."""
        size = (images.shape[2], images.shape[3])  # not int(): exported for any size
        return self.forward_padded(self.backbone.pad(images), size)

    def forward_padded(self, padded: Tensor, size: tuple[int, int]) -> Scores:
        """Return the scores of images of (H, W) = `size` pixels that `backbone.pad` has padded; a
        caller that keeps no other copy has them in memory once."""
        features = self.backbone.features(padded)
        total: Tensor | None = None
        coarse = self.backbone.grids[-1]
        for grid, feature in zip(reversed(self.backbone.grids), reversed(features), strict=True):
            score = self.score[_score_name(grid)](feature)
            score = score if score.dtype == torch.float64 else score.float()
            if total is not None:
                score = score + self._interpolate(total, coarse, grid, score, size)
            total, coarse = score, grid
        assert total is not None
        if self.final_upsampling is not None:
            return Scores(self.final_upsampling(total, size), Grid(1, 0), size)
        values, axes = self._with_border(total, coarse, size)
        return Scores.on_axes(values, axes, size)

    def _interpolate(
        self, total: Tensor, coarse: Grid, fine: Grid, score: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Return coarse scores at the cells of a finer score map."""
        cells = tuple(score.shape[2:])
        if self.upsampling != "bilinear":
            learned: Tensor = self.skip_upsampling[_score_name(coarse)](total, cells)
            return learned
        values, sources = self._with_border(total, coarse, size)
        axes = zip(sources, values.shape[2:], self._axes(fine, cells, size), cells, strict=True)
        rows, columns = (interpolation_matrix(*axis).to(total) for axis in axes)
        return interpolate(values, rows, columns)

    def _with_border(
        self, values: Tensor, grid: Grid, size: tuple[int, int]
    ) -> tuple[Tensor, tuple[Grid, Grid]]:
        """Return scores, with a ring of zeros if that is the border, and the grids of both axes."""
        axes = self._axes(grid, values.shape[2:], size)
        if self.border == "zeros":
            values = F.pad(values, (1, 1, 1, 1))
            rows, columns = (Grid(a.stride, a.offset - a.stride) for a in axes)
            return values, (rows, columns)
        return values, axes

    def _axes(self, grid: Grid, cells: Sequence[int], size: tuple[int, int]) -> tuple[Grid, Grid]:
        if self.backbone.placement != "stretched":
            return grid, grid
        rows, columns = (
            (pixels + self.backbone.pad_after(pixels)) / count
            for pixels, count in zip(size, cells, strict=True)
        )
        return Grid(rows, (rows - 1) / 2), Grid(columns, (columns - 1) / 2)


def _score_name(grid: Grid) -> str:
    return f"stride{grid.stride:g}"
