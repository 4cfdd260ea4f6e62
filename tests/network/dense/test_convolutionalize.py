"""Convolutionalized classifiers of timm and torchvision against the classifiers themselves; sizes,
positions, caveats and refusals."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from sliding import CHANNELS, STRIDE, WINDOW, Small, over_crops, random_image, random_weights
from torch import Tensor, nn

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.network.backbone import resolve_card
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.dense.convolutionalize import DenseClassifier, convolutionalize

# Small kin of each head: pool-fc, pool-norm-fc, pool-conv-fc, a convolutional fc6, conv-pool and so
# on, of both libraries. benchmarks/classifiers.py has many more.
CLASSIFIERS: list[str | BackboneCard] = [
    "test_resnet",  # ClassifierHead
    "test_convnext",  # NormMlpClassifierHead
    "test_efficientnet",
    "test_mambaout",  # channels last, an MLP behind the pooling
    "lcnet_035",  # pool, conv, activation, fc
    BackboneCard("timm", "densenet121", {"block_config": (1, 1, 1, 1), "growth_rate": 8}),
    BackboneCard("timm", "mobilenetv2_035", {"pad_type": "same"}),
    "torchvision:squeezenet1_1",  # conv, pool
    "torchvision:shufflenet_v2_x0_5",  # mean in the forward
]


def name_of(classifier: Any) -> str:
    return str(getattr(classifier, "name", classifier))


def stirred(module: nn.Module) -> nn.Module:
    """Statistics of batch norm, and scales and biases of any norm, unlike those it starts with."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(getattr(child, "running_var", None), Tensor):
                child.running_mean.normal_(0, 0.2, generator=generator)
                child.running_var.uniform_(0.7, 1.5, generator=generator)
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
            elif parameter.ndim == 1:
                parameter.uniform_(0.7, 1.3, generator=generator)
    return module.eval()


def untouched(classifier: str | BackboneCard) -> nn.Module:
    card = resolve_card(classifier)
    make = timm.create_model if card.source == "timm" else torchvision.models.get_model
    return stirred(make(card.name, **card.options))


@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=name_of)
def test_on_its_own_size_it_is_the_classifier(classifier: str | BackboneCard) -> None:
    module = untouched(classifier)
    dense = convolutionalize(module)
    side = dense.size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected, scores = module(images), dense(images)
        larger = dense(torch.zeros(1, 3, side + 64, side + 32 + 7))
    assert scores.shape == (2, 1000, 1, 1)
    scale = float(expected.abs().max())
    assert float(expected.std()) > 1e-2 * scale
    assert float((scores[:, :, 0, 0] - expected).abs().max()) <= 1e-5 * scale
    assert 0 < dense.difference < 1e-5
    stride = round(dense.grid.stride)
    assert larger.shape[2] == 1 + 64 // stride
    assert larger.shape[3] in (1 + 32 // stride, 2 + 32 // stride)  # padding may fit one more
    assert larger.shape[3] == 1 + 32 // stride or dense.step == 1


def test_alexnets_fc6_is_a_convolution_of_6_x_6() -> None:
    """Its scores, from the definition in float64: sums of products over each window."""
    module = torchvision.models.alexnet().eval()
    dense = convolutionalize(module)
    assert (dense.grid.stride, dense.grid.field) == (32, 355)  # the paper's table 1
    outputs: dict[str, Tensor] = {}
    layers = dict(dense.network.named_modules())
    names = [name for name, layer in layers.items() if name.startswith("classifier.")]
    assert [(n, layers[n].kernel_size) for n in names if isinstance(layers[n], nn.Conv2d)] == [
        ("classifier.1", (6, 6)),
        ("classifier.4", (1, 1)),
        ("classifier.6", (1, 1)),
    ]
    for name in ("features", "classifier.1", "classifier.4"):
        layers[name].register_forward_hook(
            lambda _m, _a, out, n=name: outputs.update({n: out.clone()})
        )
    with torch.inference_mode():
        scores = dense(torch.randn(1, 3, 256, 288, generator=torch.Generator().manual_seed(0)))
    assert scores.shape == (1, 1000, 2, 3)
    fc6, fc7, fc8 = (module.classifier[k] for k in (1, 4, 6))
    units = [0, 7, 4095]
    weight = fc6.weight[units].detach().double().view(3, 256, 6, 6).numpy()
    maps = outputs["features"][0].double().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(maps, (6, 6), axis=(1, 2))  # (C, 2, 3, 6, 6)
    expected = np.einsum("kcuv,cijuv->kij", weight, windows)
    expected += fc6.bias[units].detach().double().numpy()[:, None, None]
    np.testing.assert_allclose(outputs["classifier.1"][0, units].numpy(), expected, atol=1e-5)
    for layer, given_, built in (
        (fc7, outputs["classifier.1"].relu(), outputs["classifier.4"]),
        (fc8, outputs["classifier.4"].relu(), scores),
    ):
        rows = layer.weight[:9].detach().double() @ given_[0].double().flatten(1)
        expected = rows + layer.bias[:9].detach().double()[:, None]
        np.testing.assert_allclose(built[0, :9].flatten(1), expected, atol=1e-5)


def small_vgg() -> nn.Module:
    """torchvision's VGG in a few channels."""
    vgg = torchvision.models.vgg
    layers = vgg.make_layers([4, "M", 6, "M", 8, "M", 8, "M", 8, "M"])
    module = vgg.VGG(layers, num_classes=5, init_weights=False)
    module.classifier = nn.Sequential(
        *(nn.Linear(8 * 49, 16), nn.ReLU(True), nn.Dropout()),
        *(nn.Linear(16, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5)),
    )
    return random_weights(module)


def test_timms_vgg_has_convolutions_already_and_pools_what_they_give() -> None:
    module = timm.models.vgg.VGG([4, "M", 6, "M", 8, "M", 8, "M", 8, "M"], 5)
    module.pre_logits = timm.models.vgg.ConvMlp(8, 16, 7)
    module.head.fc = nn.Linear(16, 5)
    random_weights(module)
    dense = convolutionalize(module)
    images = torch.randn(1, 3, 256, 224, dtype=torch.float64)
    with torch.inference_mode():
        maps, scores = module.features(images), dense(images)
        assert scores.shape == (1, 5, 2, 1)
        for i in range(2):
            torch.testing.assert_close(
                scores[:, :, i, 0], module.forward_head(maps[:, :, i : i + 7])
            )


def test_vggs_fc6_is_a_convolution_of_7_x_7() -> None:
    module = small_vgg()
    dense = convolutionalize(module, size=224)
    assert not dense.is_local
    images = torch.randn(1, 3, 288, 256, dtype=torch.float64)
    with torch.inference_mode():
        maps, scores = module.features(images), dense(images)
        assert maps.shape[2:] == (9, 8)
        for i in range(3):
            for j in range(2):
                cut = maps[:, :, i : i + 7, j : j + 7].flatten(1)
                torch.testing.assert_close(scores[:, :, i, j], module.classifier(cut))


@settings(max_examples=20)
@given(st.integers(WINDOW, 70), st.integers(WINDOW, 70))
def test_without_padding_every_cell_of_any_size_is_the_crop(height: int, width: int) -> None:
    dense, classifier = local()
    images = random_image(height, width)
    with torch.no_grad():
        scores = dense(images)
    expected = over_crops(classifier, images)
    torch.testing.assert_close(scores, expected, rtol=1e-11, atol=1e-11)
    rows, columns = scores.shape[2:]
    assert (rows, columns) == tuple((n - WINDOW) // STRIDE + 1 for n in (height, width))
    top, left, bottom, right = dense.window(rows - 1, columns - 1)
    assert (top, left) == ((rows - 1) * STRIDE, (columns - 1) * STRIDE)
    assert bottom <= height < bottom + STRIDE
    assert right <= width < right + STRIDE
    # The gaze of a cell is the middle of its window.
    assert dense.grid.center(rows - 1) == (top + bottom - 1) / 2


@cache
def local() -> tuple[DenseClassifier, nn.Module]:
    classifier = random_weights(Small(nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 25, 4))))
    return convolutionalize(classifier, size=WINDOW), classifier


def test_alexnet_without_padding_is_exact_at_each_cell() -> None:
    """The real one's layers and strides, in a few channels, all padding taken out."""
    module = torchvision.models.alexnet()
    layers: list[nn.Module] = []
    channels = 3
    for layer in module.features:
        if isinstance(layer, nn.Conv2d):
            layer = nn.Conv2d(channels, 8, layer.kernel_size, layer.stride)
            channels = 8
        layers.append(layer)
    module.features = nn.Sequential(*layers)
    module.avgpool = nn.AdaptiveAvgPool2d(2)
    module.classifier = nn.Sequential(nn.Dropout(), nn.Linear(32, 6), nn.ReLU(), nn.Linear(6, 3))
    random_weights(module)
    side = 227  # that two cells need
    with torch.no_grad():
        assert module.features(torch.zeros(1, 3, side, side).double()).shape[2:] == (2, 2)
        assert module.features(torch.zeros(1, 3, side - 1, side).double()).shape[2:] == (1, 2)
    dense = convolutionalize(module, size=side)
    assert dense.is_local
    assert dense.caveats() == []
    images = random_image(side + 32, side + 70)
    with torch.no_grad():
        scores = dense(images)
    expected = over_crops(module, images, window=side, stride=32)
    assert scores.shape == (2, 3, 2, 3)
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-10)


def test_squeeze_excite_is_named_and_what_it_does_is_so() -> None:
    """Equal on its own size; on a larger image the cells change with what lies far from them."""
    module = untouched("test_efficientnet")
    dense = convolutionalize(module)
    (text,) = dense.caveats()
    assert text.startswith("sees the whole image: SqueezeExcite (global pooling). On images of")
    assert not dense.is_local
    images = torch.randn(1, 3, dense.size + 1024, dense.size)
    other = images.clone()
    other[:, :, -64:] += 1
    with torch.inference_mode():
        assert not torch.equal(dense(images)[:, :, 0], dense(other)[:, :, 0])
    plain = convolutionalize(untouched("test_resnet"))
    images = torch.randn(1, 3, 160 + 512, 160)
    other = images.clone()
    other[:, :, -64:] += 1
    with torch.inference_mode():
        before, after = plain(images), plain(other)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])
    (text,) = plain.caveats()
    assert text.startswith("because of padding, cells see up to 323 pixels, where a crop")


@settings(max_examples=8)
@given(st.integers(0, 70), st.integers(0, 70))
def test_padding_that_depends_on_the_size_keeps_its_phase(down: int, right: int) -> None:
    """SAME padding: what is left over below and right is cut, so that each cell stays itself."""
    dense = same()
    assert dense.step == 32
    assert "images are cropped to 96 x 96 pixels plus multiples of 32" in dense.caveats()[1]
    images = torch.randn(1, 3, 96 + down, 96 + right)
    with torch.inference_mode():
        scores = dense(images)
        cut = dense(images[:, :, : 96 + down // 32 * 32, : 96 + right // 32 * 32])
    assert scores.shape[2:] == (1 + down // 32, 1 + right // 32)
    assert torch.equal(scores, cut)


class Shortcut(nn.Module):
    """Halves by a convolution that rounds up, and beside it by a pooling that rounds down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.pool = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.pool(x)


@pytest.mark.parametrize("level", range(4))
def test_networks_that_run_at_some_sizes_only(level: int) -> None:
    """At every size: a map that is odd at one level alone is met at some of them."""
    layers = [
        Shortcut(4 if k else 3) if k == level else nn.Conv2d(4 if k else 3, 4, 2, stride=2)
        for k in range(4)
    ]
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    dense = convolutionalize(nn.Sequential(*layers, end), size=64)
    assert dense.step == 16
    with torch.inference_mode():
        for side in range(64, 97):
            rows, columns = dense(torch.zeros(1, 3, side, 160 - side)).shape[2:]
            assert (rows, columns) == (1 + (side - 64) // 16, 1 + (96 - side) // 16)


@cache
def same() -> DenseClassifier:
    card = BackboneCard("timm", "mobilenetv2_035", {"pad_type": "same"})
    return convolutionalize(card, size=96)


def test_what_the_result_knows() -> None:
    dense = fc.convolutionalize("test_resnet", size=96)
    assert isinstance(dense, DenseClassifier)
    assert (dense.size, dense.num_classes, dense.name) == (96, 1000, "timm test_resnet")
    assert dense.names[281] == "tabby, tabby cat"
    assert dense.proof.cells == (2, 3)
    assert max(dense.proof.native, dense.proof.windows) == dense.difference
    assert dense.window(1, 2) == (32, 64, 128, 160)
    assert not any(module.training for module in dense.modules())
    assert convolutionalize(local()[1], size=WINDOW).names == ()


def test_the_grid_is_where_the_cells_look() -> None:
    """By the gradient: along the rows, a cell of an untrained ResNet looks at offset + 32 i."""
    dense = convolutionalize("test_resnet", size=96).double()
    scores = fc.geometry.probe(dense, size=(96 + 512, 96))
    assert scores.stride == dense.grid.stride == 32
    reach = (96 + 512) // 2
    center = min((dense.grid.center(i) for i in range(17)), key=lambda c: abs(c - reach))
    assert abs(scores.center(round((center - dense.grid.offset) / 32)) - center) < 32


def test_a_module_of_ones_own_stays_as_it_was() -> None:
    module = random_weights(Small(nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 25, 4))))
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    dense = convolutionalize(module, size=WINDOW)
    for parameter in dense.parameters():
        parameter.data.zero_()
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert all(child.training for child in module.modules())


def test_it_can_be_trained() -> None:
    dense, _ = local()
    images = random_image(WINDOW + STRIDE, WINDOW)
    dense(images).sum().backward()
    assert all(parameter.grad is not None for parameter in dense.parameters())
    dense.zero_grad()


@pytest.mark.parametrize(
    ("classifier", "message", "hint"),
    [
        ("test_vit", "scores are computed from the whole image by Attention (attention)", "move"),
        (
            BackboneCard("timm", "swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}),
            "timm swin_tiny_patch4_window7_224 accepts only images of 224 x 224 pixels, so it "
            "cannot be convolutionalized",
            "fc.convolutionalize(",
        ),
        (
            "resmlp_12_224",
            "timm resmlp_12_224 cannot be convolutionalized: the output of PatchEmbed is no map of "
            "rows",
            "fc.",
        ),
        ("no_such_net", "timm has no network 'no_such_net'", "resnet18"),
    ],
    ids=name_of,
)
def test_networks_that_cannot_are_refused_by_name(classifier: Any, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        convolutionalize(classifier)
    assert message.lower() in caught.value.message.lower()
    assert caught.value.hint.startswith(hint)


def test_images_that_are_too_small() -> None:
    with pytest.raises(FullconvError) as caught:
        local()[0](random_image(WINDOW - 1, 40))
    assert "the image has 20 x 40 pixels (height x width); Small needs at least 21 x 21" in (
        caught.value.message
    )
    assert "interpolate(images, (21, 21)" in caught.value.hint
