"""The FCN: 1x1 scores at the taps of a backbone, summed from coarse to fine (Long et al. 2015, §4).

FCN-32s, 16s, 8s and 4s are this one class with `stride=`. A coarser score is read bilinearly at the
cells of the finer one, by their grids, and added: no crop, no multiple of 32, no stretch.

Shapes: N batch · C channels · K classes · H, W image · h, w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.backbone import PLACEMENTS, Backbone, build
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.kernels.reference import interpolation_matrix, read
from fullconv.network.scores import Scores
from fullconv.network.upsampling import LearnedUpsampling

UPSAMPLING = ("bilinear", "learned_skips", "learned")
BORDERS = ("replicate", "zeros")


class FCN(nn.Module):
    """A fully convolutional network for any H x W from 1 x 1 up.

    Args:
        backbone: a timm name, "torchvision:NAME", a backbone card, or a module; see
            `fullconv.network.backbone.build`.
        num_classes: K; background counts.
        stride: of the finest scores, 32, 16, 8 or 4 pixels: FCN-32s, 16s, 8s, 4s.
        upsampling: "bilinear" (fixed), "learned_skips" (transposed convolutions between the scores,
            as published: the last step fixed), or "learned" (the last step too; the scores then
            have full size).
        border: what lies outside the scores: "replicate" (the outermost ones go on) or "zeros" (as
            a transposed convolution sees it).
        placement: where the cells are taken to sit: "exact" (where they do), "half_pixel" or
            "stretched"; see `fullconv.network.backbone.Backbone`.
        pretrained: start from the backbone's published weights.

    `border` and `placement` are by default as the backbone was published: zeros for the paper's
    networks in their original form, else replicate; stretched for torchvision's FCNs, else exact.

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
            raise FullconvError(
                f"num_classes is {num_classes}; it must be 1 or more.",
                "num_classes=21   # background counts",
            )
        _require_known(upsampling=upsampling, border=border, placement=placement)
        if not isinstance(backbone, Backbone):
            backbone = build(backbone, stride=stride, pretrained=pretrained, placement=placement)
        elif placement not in (None, backbone.placement):
            raise FullconvError(
                f"this backbone was built with placement {backbone.placement!r}; {placement!r} was "
                "asked for.",
                f'fullconv.network.backbone.build("{backbone.card.name}", stride={stride}, '
                f'placement="{placement}")',
            )
        published = getattr(backbone.pyramid, "published", False)
        self.border = border or ("zeros" if published else "replicate")
        self.backbone = backbone
        self.num_classes = num_classes
        self.stride = stride
        self.upsampling = upsampling
        self.score = nn.ModuleDict(
            {
                _score_name(grid): nn.Conv2d(channels, num_classes, 1)
                for grid, channels in zip(backbone.grids, backbone.channels, strict=True)
            }
        )
        self._start_scores(still=published)
        grids = backbone.grids
        if upsampling != "bilinear" and backbone.placement == "stretched":
            raise FullconvError(
                "a transposed convolution has one factor for all sizes, stretched scores have not.",
                'placement="half_pixel"   # or upsampling="bilinear"',
            )
        steps = list(zip(grids[1:], grids[:-1], strict=True)) if upsampling != "bilinear" else []
        self.skip_upsampling = nn.ModuleDict(
            {_score_name(a): LearnedUpsampling(num_classes, a, b, self.border) for a, b in steps}
        )
        self.final_upsampling = (
            LearnedUpsampling(num_classes, grids[0], Grid(1, 0), self.border)
            if upsampling == "learned"
            else None
        )

    def _start_scores(self, *, still: bool) -> None:
        """Zero, as in the paper: a new skip changes nothing. Only the coarsest scores start with
        small weights, so that the backbone learns from the first step; `still` are they too in the
        released networks."""
        coarsest = _score_name(self.backbone.grids[-1])
        for name, score in self.score.items():
            assert isinstance(score, nn.Conv2d)
            nn.init.normal_(score.weight, std=0.01 if name == coarsest and not still else 0.0)
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """As in the paper, "FCN-8s"."""
        return f"FCN-{self.stride}s"

    def forward(self, images: Tensor) -> Scores:
        """Normalised images (N, 3, H, W) -> `Scores` in float32; float64 gives float64."""
        size = (images.shape[2], images.shape[3])  # not int(): exported for any size
        return self.forward_padded(self.backbone.pad(images), size)

    def forward_padded(self, padded: Tensor, size: tuple[int, int]) -> Scores:
        """As `forward`, of images of so many pixels (H, W) that `backbone.pad` has padded: who
        keeps no others holds them once."""
        features = self.backbone.features(padded)
        total: Tensor | None = None
        previous = self.backbone.grids[-1]
        for grid, feature in zip(reversed(self.backbone.grids), reversed(features), strict=True):
            score = self.score[_score_name(grid)](feature)
            score = score if score.dtype == torch.float64 else score.float()
            if total is not None:
                score = score + self._read_at(total, previous, grid, score, size)
            total, previous = score, grid
        assert total is not None
        if self.final_upsampling is not None:
            return Scores(self.final_upsampling(total, size), Grid(1, 0), size)
        values, (rows, columns) = self._placed(total, previous, size)
        return Scores(values, rows, size, columns if columns != rows else None)

    def _read_at(
        self, coarse: Tensor, of: Grid, at: Grid, fine: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Coarse scores at the cells of a finer map."""
        cells = tuple(fine.shape[2:])
        if self.upsampling != "bilinear":
            learned: Tensor = self.skip_upsampling[_score_name(of)](coarse, cells)
            return learned
        values, sources = self._placed(coarse, of, size)
        rows, columns = (
            interpolation_matrix(source, have, target, count).to(coarse)
            for source, have, target, count in zip(
                sources, values.shape[2:], self._axes(at, cells, size), cells, strict=True
            )
        )
        return read(values, rows, columns)

    def _placed(
        self, values: Tensor, grid: Grid, size: tuple[int, int]
    ) -> tuple[Tensor, tuple[Grid, Grid]]:
        """Scores to be read, and where their cells sit along the rows and the columns. Zeros
        outside are a ring of cells that hold zero."""
        axes = self._axes(grid, values.shape[2:], size)
        if self.border == "zeros":
            values = F.pad(values, (1, 1, 1, 1))
            rows, columns = (Grid(a.stride, a.offset - a.stride) for a in axes)
            return values, (rows, columns)
        return values, axes

    def _axes(self, grid: Grid, cells: Sequence[int], size: tuple[int, int]) -> tuple[Grid, Grid]:
        if self.backbone.placement != "stretched":
            return grid, grid
        steps = (
            (pixels + self.backbone.pad_after(pixels)) / count
            for pixels, count in zip(size, cells, strict=True)
        )
        rows, columns = (Grid(step, (step - 1) / 2) for step in steps)
        return rows, columns


def _require_known(**options: str | None) -> None:
    known = {"upsampling": UPSAMPLING, "border": BORDERS, "placement": PLACEMENTS}
    for name, value in options.items():
        if value is not None and value not in known[name]:
            raise FullconvError(
                f"{name} {value!r} is not known; there are {', '.join(known[name])}.",
                f'{name}="{known[name][0]}"',
            )


def _score_name(grid: Grid) -> str:
    return f"stride{grid.stride:g}"
