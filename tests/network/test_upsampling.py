from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels.reference import full, interpolate, interpolation_matrix
from fullconv.network.upsampling import LearnedUpsampling, bilinear_kernel


def caffes_filter(size: int) -> list[float]:
    """`upsample_filt` of the original surgery.py, along one axis."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    return [1 - abs(i - center) / factor for i in range(size)]


@pytest.mark.parametrize("size", [4, 16, 32, 64])
def test_even_filters_are_those_of_the_original_code(size: int) -> None:
    kernel, _ = bilinear_kernel(size // 2, (size // 2 - 1) / 2)
    assert kernel.tolist() == pytest.approx(caffes_filter(size))


def test_the_odd_filter_of_alexnet() -> None:
    kernel, first = bilinear_kernel(32, 0)
    assert kernel.tolist() == pytest.approx(caffes_filter(63))
    assert first == -31


# Pairs of grids as backbones have them, fused and at the pixels: VGG, ResNet, DenseNet, VoVNet,
# Inception (padded above, so negative), ViT, and some that only arithmetic knows.
PAIRS = [
    (Grid(32, 15.5), Grid(16, 7.5)),
    (Grid(16, 7.5), Grid(8, 3.5)),
    (Grid(8, 3.5), Grid(1, 0)),
    (Grid(4, 1.5), Grid(1, 0)),
    (Grid(32, 0), Grid(16, 0)),
    (Grid(32, 0), Grid(1, 0)),
    (Grid(32, 14), Grid(16, 6)),
    (Grid(8, 2), Grid(1, 0)),
    (Grid(32, 28), Grid(16, 12)),
    (Grid(32, 5), Grid(16, -11)),
    (Grid(8, -19), Grid(1, 0)),
    (Grid(16, 7.5), Grid(1, 0)),
    (Grid(16, -40), Grid(8, 12)),
    (Grid(16, 40), Grid(8, -12)),
    (Grid(4, 0), Grid(4, 0)),
    (Grid(4, 3), Grid(4, 0)),
]


@pytest.mark.parametrize(("coarse", "fine"), PAIRS, ids=repr)
@pytest.mark.parametrize("cells", [(1, 1), (2, 5), (7, 4)])
@pytest.mark.parametrize("size", [(1, 1), (13, 30), (61, 8)])
def test_it_starts_as_bilinear_reading(
    coarse: Grid, fine: Grid, cells: tuple[int, int], size: tuple[int, int]
) -> None:
    scores = torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(4))
    layer = LearnedUpsampling(3, coarse, fine)
    rows, columns = (
        interpolation_matrix(coarse, have, fine, want).float()
        for have, want in zip(cells, size, strict=True)
    )
    expected = interpolate(scores, rows, columns)
    actual = layer(scores, size)
    assert actual.shape == (2, 3, *size)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    if fine == Grid(1, 0):
        torch.testing.assert_close(actual, full(scores, coarse, size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cells", [(1, 1), (2, 5), (7, 4)])
@pytest.mark.parametrize("shift", [0, 12.5, 15.5, -91])
def test_with_zeros_outside_it_is_a_plain_transposed_convolution(
    cells: tuple[int, int], shift: float
) -> None:
    """On a canvas with room on all sides, cell 0 put where the grid has it."""
    factor = 32 if shift != -91 else 8
    scores = torch.randn(1, 2, *cells, generator=torch.Generator().manual_seed(4))
    layer = LearnedUpsampling(2, Grid(factor, shift), Grid(1, 0), border="zeros")
    layer.weight.data.normal_()
    size = (61, 40)
    actual = layer(scores, size)
    plain = F.conv_transpose2d(scores, layer.weight, stride=factor)
    _, first = bilinear_kernel(factor, shift)
    for y in range(size[0]):
        for x in range(size[1]):
            at = (y - first, x - first)
            inside = 0 <= at[0] < plain.shape[2] and 0 <= at[1] < plain.shape[3]
            reference_result = plain[0, :, at[0], at[1]] if inside else torch.zeros(2)
            torch.testing.assert_close(actual[0, :, y, x], reference_result, rtol=0, atol=1e-4)


def test_classes_do_not_mix_at_the_start_but_may_learn_to() -> None:
    layer = LearnedUpsampling(3, Grid(8, 3.5), Grid(1, 0))
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 1] = 1
    fine = layer(scores, (30, 29))
    assert fine[:, 1].allclose(torch.ones(()))
    assert fine[:, [0, 2]].abs().max() == 0
    (fine[:, 0] * torch.randn(30, 29)).sum().backward()
    assert layer.weight.grad[1, 0].abs().min() > 0  # from class 1 to class 0


def test_every_weight_and_score_has_a_gradient() -> None:
    layer = LearnedUpsampling(2, Grid(16, 0), Grid(8, 0))
    scores = torch.randn(1, 2, 3, 5, requires_grad=True)
    layer(scores, (6, 9)).square().sum().backward()
    assert (layer.weight.grad != 0).all()
    assert (scores.grad != 0).all()


def test_double_precision_in_double_precision_out() -> None:
    layer = LearnedUpsampling(2, Grid(16, 0), Grid(8, 0))
    assert layer(torch.randn(1, 2, 3, 5).double(), (6, 9)).dtype == torch.float64


def test_only_whole_factors() -> None:
    message = r"needs a whole factor; stride 32 to stride 12 is 2\.66667"
    with pytest.raises(FullconvError, match=message):
        LearnedUpsampling(2, Grid(32, 0), Grid(12, 0))
