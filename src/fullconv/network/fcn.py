"""The FCN: 1x1 scores at the taps of a backbone, summed from coarse to fine (Long et al. 2015, §4).

FCN-32s, 16s, 8s and 4s are this one class with `stride=`. A coarser score is read bilinearly at the
cells of the finer one, by their grids, and added: no crop, no multiple of 32, no stretch.

Shapes: N batch · C channels · K classes · H, W picture · h, w cells.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fullconv.errors import FullconvError
from fullconv.geometry import Grid
from fullconv.kernels.reference import read, reading_matrix
from fullconv.network.backbone import Backbone, build
from fullconv.network.card import BackboneCard
from fullconv.network.scores import Scores
from fullconv.network.upsampling import LearnedUpsampling

UPSAMPLING = ("bilinear", "learned_skips", "learned")


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
        pretrained: start from the backbone's published weights.

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
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise FullconvError(
                f"num_classes is {num_classes}; it must be 1 or more.",
                "num_classes=21   # background counts",
            )
        if upsampling not in UPSAMPLING:
            raise FullconvError(
                f"upsampling {upsampling!r} is not known; there are {', '.join(UPSAMPLING)}.",
                'upsampling="bilinear"',
            )
        if not isinstance(backbone, Backbone):
            backbone = build(backbone, stride=stride, pretrained=pretrained)
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
        for name, score in self.score.items():
            # Zero, as in the paper: a new skip changes nothing. Only the coarsest scores start with
            # small weights, so that the backbone learns from the first step.
            assert isinstance(score, nn.Conv2d)
            std = 0.01 if name == _score_name(backbone.grids[-1]) else 0.0
            nn.init.normal_(score.weight, std=std)
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]
        grids = backbone.grids
        steps = list(zip(grids[1:], grids[:-1], strict=True)) if upsampling != "bilinear" else []
        self.skip_upsampling = nn.ModuleDict(
            {_score_name(a): LearnedUpsampling(num_classes, a, b) for a, b in steps}
        )
        self.final_upsampling = (
            LearnedUpsampling(num_classes, grids[0], Grid(1, 0))
            if upsampling == "learned"
            else None
        )

    @property
    def name(self) -> str:
        """As in the paper, "FCN-8s"."""
        return f"FCN-{self.stride}s"

    def forward(self, images: Tensor) -> Scores:
        """Normalised pictures (N, 3, H, W) -> `Scores` in float32."""
        size = (int(images.shape[2]), int(images.shape[3]))
        features = self.backbone(images)
        total: Tensor | None = None
        previous = self.backbone.grids[-1]
        for grid, feature in zip(reversed(self.backbone.grids), reversed(features), strict=True):
            score = self.score[_score_name(grid)](feature).float()
            if total is not None:
                score = score + self._read_at(total, previous, grid, score.shape[2:])
            total, previous = score, grid
        assert total is not None
        if self.final_upsampling is not None:
            total, previous = self.final_upsampling(total, size), Grid(1, 0)
        return Scores(total, previous, size)

    def _read_at(self, coarse: Tensor, of: Grid, at: Grid, cells: torch.Size) -> Tensor:
        """Coarse scores at the cells of a finer map."""
        if self.upsampling != "bilinear":
            fine: Tensor = self.skip_upsampling[_score_name(of)](coarse, tuple(cells))
            return fine
        rows, columns = (
            reading_matrix(of, have, at, count).to(coarse)
            for have, count in zip(coarse.shape[2:], cells, strict=True)
        )
        return read(coarse, rows, columns)


def _score_name(grid: Grid) -> str:
    return f"stride{grid.stride:g}"
