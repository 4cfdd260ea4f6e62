"""Ends that are not the same at every window: each is refused by name. Those that are, in every
spelling, stand in test_sliding.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sliding import CHANNELS, WINDOW, End, Made, random_weights
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.network.dense.convolutionalize import convolutionalize

FLAT = CHANNELS * 25


class Attention(nn.Module):
    """Pools by attention over all cells, and cannot be opened."""

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)
        if cells.sum() > -1e9:
            cells = (cells @ cells.transpose(1, 2)).softmax(-1) @ cells
        return cells.mean(1)


def fc(inputs: int = CHANNELS) -> nn.Linear:
    return nn.Linear(inputs, 7)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            End(lambda m, x: m.fc(F.adaptive_avg_pool2d(x, 3).flatten(1)), fc=fc(9 * CHANNELS)),
            "pooling of 5 x 5 cells to 3 x 3",
        ),
        (End(lambda m, x: m.fc(x[:, :, 2, 2]), fc=fc()), "its head reads only a part of the rows"),
        (End(lambda m, x: m.fc(x.amax((2, 3)).cumsum(1)), fc=fc()), "the operation 'cumsum'"),
        (
            End(lambda m, x: (x.flatten(2) @ m.weight).amax(1), weight=torch.ones(25, 2)),
            "the operation 'matmul'",
        ),
        (
            End(lambda m, x: m.fc(x.flatten(2)).amax(1), fc=fc(25)),
            "a fully connected layer along more than the channels",
        ),
        (
            End(
                lambda m, x: m.fc(x.flatten(1) * m.weight),
                fc=fc(FLAT),
                weight=nn.Parameter(torch.ones(FLAT)),
            ),
            "mul with a weight for each cell",
        ),
        (
            End(lambda m, x: m.fc(m.norm(x.flatten(1))), fc=fc(FLAT), norm=nn.BatchNorm1d(FLAT)),
            "separate weights for each cell of a flattened map",
        ),
        (
            End(lambda m, x: m.fc(F.layer_norm(x, (5, 5)).flatten(1)), fc=fc(FLAT)),
            "Made accepts only images of 21 x 21 pixels, so it cannot be convolutionalized",
        ),
        (
            End(
                lambda m, x: m.fc(x.mean((2, 3)).view(x.shape[0], 3, 2).amax(1)), fc=nn.Linear(2, 2)
            ),
            "view to (1, 3, 2), which splits the channels",
        ),
        (End(lambda m, x: x.mean((2, 3), True).amax(1).flatten(1)), "amax over the channels"),
        (
            End(lambda m, x: m.fc(x.flatten(1).softmax(0)), fc=fc(FLAT)),
            "softmax along something other than the channels",
        ),
        (
            End(
                lambda m, x: torch.cat([m.fc(x.mean((2, 3)))] * 2, dim=0).amax(0, keepdim=True),
                fc=fc(),
            ),
            "concatenation of something other than channels",
        ),
        (
            End(lambda m, x: m.fc(x.mean((2, 3))) + x.flatten(1)[:, :7], fc=fc()),
            "its head reads only a part of",
        ),
        (
            End(lambda m, x: m.fc(m.attention(x)), fc=fc(), attention=Attention()),
            "its head has the module Att",
        ),
        (
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(CHANNELS, 7, 3, padding=1), nn.Flatten()
            ),
            "a convolution of several cells after the pooling",
        ),
        (nn.Flatten(2), "a classifier returns scores (1, K)"),
        (nn.Flatten(), "its scores are not those of one window"),
    ],
)
def test_what_cannot_slide_is_named(end: nn.Module, message: str) -> None:
    with pytest.raises(FullconvError) as caught:
        convolutionalize(random_weights(Made(end)), size=WINDOW)
    assert message in caught.value.message
    assert caught.value.hint


def test_what_looks_alike_at_every_cell_and_is_not_differs_in_the_proof() -> None:
    """Behind the pooling, on the classifier's own images, a map of one cell is normalised."""
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.GroupNorm(2, CHANNELS), nn.Flatten(), fc())
    with pytest.raises(FullconvError) as caught:
        convolutionalize(random_weights(Made(end)), size=WINDOW)
    assert "group_norm" in caught.value.message


def test_a_whole_that_is_read_behind_the_trunk() -> None:
    class Twice(Made):
        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            pooled = x.mean((2, 3))
            x = x * pooled[:, :, None, None]
            return self.end(x.mean((2, 3)) + pooled)  # type: ignore[operator, no-any-return]

    with pytest.raises(FullconvError, match="computed from the whole image by Twice"):
        convolutionalize(random_weights(Twice(fc())), size=WINDOW)
