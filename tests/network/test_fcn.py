from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from others import Taught
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.backbone import build
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.network.kernels import reference

SAME = BackboneCard("timm", "mobilenetv2_035", {"pad_type": "same"})
CONVNEXT = BackboneCard("timm", "convnext_atto", {"depths": (1, 1, 1, 1)})
SWIN = BackboneCard(
    "timm",
    "swin_tiny_patch4_window7_224",
    {"embed_dim": 6, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)},
)


VIT = BackboneCard("timm", "vit_tiny_patch16_224", {"embed_dim": 24, "num_heads": 1, "depth": 3})


class Vgg(nn.Module):
    """Five stages of 3x3 and 2x2 pooling; a list of maps, a dict of them, or class scores."""

    def __init__(self, returned: str = "list", *, padding: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the same weights whatever ran before
            torch.manual_seed(3)
            self.convs = nn.ModuleList(
                nn.Conv2d(3 if i == 0 else 6, 6, 3, padding=padding) for i in range(5)
            )
            self.head = nn.Linear(6, 4)
        self.returned = returned

    def forward(self, x: Tensor) -> Any:
        maps = []
        for conv in self.convs:
            x = nn.functional.max_pool2d(nn.functional.leaky_relu(conv(x), 0.3), 2)
            maps.append(x)
        if self.returned == "scores":
            return self.head(x.mean((2, 3)))
        return maps[1:] if self.returned == "list" else {f"x{i}": m for i, m in enumerate(maps)}


class Centered(nn.Module):
    """Stride by padded convolutions, as in a ResNet: offset 0 at every stride."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.convs = nn.ModuleList(
                nn.Conv2d(3 if i == 0 else 6, 6, 3, stride=2, padding=1) for i in range(5)
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for conv in self.convs:
            maps.append(x := nn.functional.leaky_relu(conv(x), 0.3))
        return maps[1:]


def lively(net: FCN, seed: int = 0) -> FCN:
    """Every tap counts, and scores vary from cell to cell: after the first images, zero-started
    skips would be silent and batch statistics far off."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.ones_(module.weight)
    with torch.no_grad():
        net.train()
        for _ in range(2):
            net(torch.randn(2, 3, 160, 160, generator=generator))
        net.eval()
        features = net.backbone(torch.randn(1, 3, 160, 160, generator=generator))
        for score, feature in zip(net.score.values(), features, strict=True):
            spread = feature.std(dim=(2, 3)).mean() * feature.shape[1] ** 0.5
            score.weight.copy_(torch.randn(score.weight.shape, generator=generator) / spread)
            score.bias.copy_(-score(feature).mean(dim=(0, 2, 3)))
    return net


def random_image(height: int, width: int, seed: int = 1) -> Tensor:
    """Noise of three sizes: what networks answer to differs from place to place."""
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    fine, wide = (nn.functional.avg_pool2d(noise, k, 1, k // 2) for k in (9, 41))
    return noise + 3 * fine + 20 * wide


def assert_same(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Labels and scores (N, H, W), (N, K, H, W) of the same places: equal but for ties."""
    labels, scores = actual
    assert labels.shape == expected[0].shape
    assert labels.numel() > 500
    assert len(labels.unique()) >= 2  # else there would be nothing to see
    differing = labels != expected[0]
    best = scores.topk(2, dim=1).values
    assert bool(((best[:, 0] - best[:, 1])[differing] < 1e-4).all())
    assert differing.float().mean() < 1e-3


# Small networks, each with half its widest field: a symmetric one, a SAME one, VGG, ConvNeXt.
NETWORKS: dict[str, Any] = {
    "resnet10t": "resnet10t",
    "mobilenetv2": "mobilenetv2_035",
    "same": SAME,
    "vgg": Vgg(),
    "unpadded": Vgg(padding=0),
    "convnext": CONVNEXT,
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def net(request: pytest.FixtureRequest) -> FCN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return lively(FCN(copy.deepcopy(NETWORKS[request.param]), 5, stride=8))


@torch.no_grad()
def read(net: FCN, image: Tensor) -> tuple[Tensor, Tensor]:
    scores = net(image)
    return scores.labels(), scores.full()


AFTER = [(added, 3) for added in (1, 7, 16, 31)] + [(7, 2), (31, 2)]
BEFORE = [(32, 2), (96, 2), (32, 3)]


@pytest.mark.parametrize(
    ("start", "added", "axis"),
    [*((0, *case) for case in AFTER), *((case[0], *case) for case in BEFORE)],
)
def test_added_pixels_change_nothing_far_from_them(
    net: FCN, start: int, added: int, axis: int
) -> None:
    """The image begins at the pixel `start` of the larger one."""
    reach = int(net.backbone.grids[-1].field / 2) + 33  # a pixel is read up to 32 px away
    long = reach + (77 if start else 97)  # of no special remainder
    image = random_image(50 if start else 40, long + added)
    if axis == 2:
        image = image.transpose(2, 3).contiguous()
    labels, full = read(net, image.narrow(axis, start, long))
    more_labels, more_full = read(net, image)
    begin, count = reach if start else 0, long - reach  # of what is far from the added pixels
    assert_same(
        (labels.narrow(axis - 1, begin, count), full.narrow(axis, begin, count)),
        (
            more_labels.narrow(axis - 1, start + begin, count),
            more_full.narrow(axis, start + begin, count),
        ),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (64, 96), (65, 97)])
def test_every_size_comes_out_as_it_went_in(net: FCN, size: tuple[int, int]) -> None:
    with torch.no_grad():
        scores = net(random_image(*size))
    assert scores.size == size
    assert scores.labels().shape == (1, *size)
    assert scores.full().isfinite().all()
    assert scores.loss(torch.zeros(1, *size, dtype=torch.uint8)).isfinite()


@pytest.mark.parametrize("stride", [32, 16, 8, 4])
def test_strides_have_the_papers_names(stride: int) -> None:
    net = FCN(Vgg(), 3, stride=stride)
    assert net.name == f"FCN-{stride}s"
    assert len(net.score) == [32, 16, 8, 4].index(stride) + 1
    scores = net(torch.zeros(2, 3, 70, 45))
    assert (scores.grid.stride, scores.grid.offset) == (stride, (stride - 1) / 2)
    assert scores.values.shape[:2] == (2, 3)
    assert scores.values.dtype == torch.float32


@pytest.mark.parametrize("upsampling", ["bilinear", "learned_skips"])
@pytest.mark.parametrize("source", [Vgg, Centered])
def test_new_skips_change_nothing(source: Any, upsampling: str) -> None:
    """The paper: an FCN-8s that starts from an FCN-32s begins with unchanged predictions. Exactly:
    its scores at the stride-8 cells are the stride-32 ones read there, by way of stride 16."""
    torch.manual_seed(3)
    coarse = FCN(source(), 4, stride=32).eval()
    fine = FCN(source(), 4, stride=8, upsampling=upsampling).eval()
    result = fine.load_state_dict(coarse.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(k.startswith(("score.", "skip_upsampling.")) for k in result.missing_keys)
    image = random_image(90, 121)
    with torch.no_grad():
        scores32, scores8 = coarse(image), fine(image)
        counts = [feature.shape[2:] for feature in fine.backbone(image)]
    values, grid = scores32.values, scores32.grid
    assert values.std() > 1e-4
    for finer, count in list(zip(fine.backbone.grids, counts, strict=True))[-2::-1]:
        rows, columns = (
            reference.interpolation_matrix(grid, have, finer, want).float()
            for have, want in zip(values.shape[2:], count, strict=True)
        )
        values, grid = reference.interpolate(values, rows, columns), finer
    torch.testing.assert_close(scores8.values, values, rtol=0, atol=1e-5)
    if source is Centered:
        # Where fine cells sit on the coarse ones, a line stays a line: the scores of every pixel
        # are the same, up to the outermost fine cell.
        full8, full32 = (scores.full()[:, :, :89, :121] for scores in (scores8, scores32))
        torch.testing.assert_close(full8, full32, rtol=0, atol=1e-5)
        assert (scores8.labels() == scores32.labels()).float().mean() > 0.999


def test_every_tap_reaches_the_scores() -> None:
    net = lively(FCN(Vgg(), 4, stride=8))
    image = random_image(64, 64)
    with torch.no_grad():
        before = net(image).values.clone()
        for score in net.score.values():
            score.bias.data[2] += 1.0
            after = net(image).values
            difference = after - before
            assert difference[:, 2].sub(1).abs().max() < 1e-5  # added, once, everywhere
            assert difference[:, [0, 1, 3]].abs().max() < 1e-5
            before = after


@pytest.mark.parametrize("upsampling", ["bilinear", "learned_skips", "learned"])
def test_gradients_reach_every_parameter_after_one_step(upsampling: str) -> None:
    torch.manual_seed(3)
    net = FCN(Vgg(), 4, stride=8, upsampling=upsampling)
    optimizer = torch.optim.SGD([p for n, p in net.named_parameters() if "head" not in n], lr=0.1)
    target = torch.randint(0, 4, (2, 51, 43))
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 51, 43)).loss(target).backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        if "head" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_the_coarsest_score_starts_small_and_the_skips_at_zero() -> None:
    net = FCN("test_resnet", 6, stride=8)
    weights = {name: score.weight for name, score in net.score.items()}
    assert list(weights) == ["stride8", "stride16", "stride32"]
    assert weights["stride8"].abs().max() == weights["stride16"].abs().max() == 0
    assert 0.005 < weights["stride32"].std() < 0.02
    assert all(score.bias.abs().max() == 0 for score in net.score.values())


@pytest.mark.parametrize(
    "source", ["test_resnet", SAME, SWIN, CONVNEXT, "list", "dict", "scores", "unpadded"]
)
@pytest.mark.parametrize("upsampling", ["learned_skips", "learned"])
def test_learned_upsampling_starts_as_bilinear(source: Any, upsampling: str) -> None:
    """For offsets 0, 3.5 and the negative ones of unpadded networks; odd sizes."""
    if source in ("list", "dict", "scores"):
        source = Vgg(source)
    elif source == "unpadded":
        source = Vgg(padding=0)
    plain = FCN(source, 3, stride=8).eval()
    learned = FCN(plain.backbone, 3, stride=8, upsampling=upsampling).eval()
    for score in plain.score.values():
        nn.init.normal_(score.weight, std=0.2)
    learned.score.load_state_dict(plain.score.state_dict())
    for size in ((65, 47), (31, 1)):
        with torch.no_grad():
            expected, scores = plain(random_image(*size)), learned(random_image(*size))
        assert scores.grid == (Grid(1, 0) if upsampling == "learned" else expected.grid)
        assert scores.full().shape == (1, 3, *size)
        torch.testing.assert_close(scores.full(), expected.full(), rtol=0, atol=1e-5)


def test_learned_upsampling_at_stride_32_and_4() -> None:
    for stride in (32, 4):
        plain = FCN("test_resnet", 2, stride=stride).eval()
        learned = FCN(plain.backbone, 2, stride=stride, upsampling="learned").eval()
        learned.score.load_state_dict(plain.score.state_dict())
        image = random_image(37, 50)
        with torch.no_grad():
            actual, expected = learned(image).full(), plain(image).full()
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("returned", ["list", "dict", "scores"])
def test_modules_of_ones_own_train(returned: str) -> None:
    torch.manual_seed(3)
    net = FCN(Vgg(returned), 3, stride=8)
    net(torch.randn(1, 3, 50, 40)).loss(torch.zeros(1, 50, 40).long()).backward()
    # A classifier is cut behind submodules: the last pooling is none.
    expected = [6, 6] if returned == "scores" else [6, 6, 6]
    assert [score.in_channels for score in net.score.values()] == expected


@pytest.mark.parametrize(
    ("source", "stride", "offset"),
    [(SWIN, 4, 1.5), ("torchvision:mobilenet_v3_small", 16, 0), (VIT, 16, 7.5)],
    ids=["channels last", "torchvision", "vision transformer"],
)
def test_other_backbones(source: Any, stride: int, offset: float) -> None:
    net = FCN(source, 3, stride=stride).eval()
    scores = net(random_image(45, 61))
    assert (scores.grid.stride, scores.grid.offset) == (stride, offset)
    assert scores.labels().shape == (1, 45, 61)


def test_scores_stay_single_under_mixed_precision() -> None:
    net = lively(FCN(Vgg(), 4, stride=8))
    image = random_image(50, 70)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = net(image)
    assert scores.values.dtype == torch.float32
    with torch.no_grad():
        exact = net(image)
    assert (scores.values - exact.values).abs().max() < 0.1 * exact.values.std()


POOLED = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
STRETCHED = {"placement": "stretched"}


@pytest.mark.parametrize(
    ("backbone", "options", "message", "hint"),
    [
        ("resnet18", {"num_classes": 0}, "num_classes is 0; it must be 1 or more", "=21"),
        ("resnet18", {"upsampling": "cubic"}, "unknown upsampling 'cubic'; choose", "bilinear"),
        ("resnet18", {"stride": 2}, "at stride 2. Its strides are: 4, 8, 16, 32.", "--stride 4"),
        ("resnet18", {"border": "mirror"}, "unknown border 'mirror'; choose", "replicate"),
        ("resnet18", {"placement": "left"}, "unknown placement 'left'; choose", "exact"),
        (
            "test_resnet",
            {**STRETCHED, "upsampling": "learned"},
            "factor of stretched scores",
            "half",
        ),
        (build("test_resnet", stride=8), STRETCHED, "'exact', not 'stretched'", 'ent="stretched"'),
        ("resnet1848", {}, "timm has no network 'resnet1848'", "--backbone resnet18"),
        ("nowhere.toml", {}, "no backbone card at nowhere.toml", "ls"),
        (POOLED, {}, "Sequential has no layer at stride 4, 8, 16 or 32: ", "return [x8, x16, x32]"),
    ],
)
def test_errors_read_well(backbone: Any, options: Any, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        FCN(backbone, **{"num_classes": 2, **options})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_it_can_be_the_network_that_courses_build() -> None:
    """Equal scores, gradients and first step, on an image of multiples of 32."""
    torch.manual_seed(3)
    theirs = Taught(21).eval()
    theirs.upsampling.bias.requires_grad_(False).zero_()  # zero, and ours has none
    options = {"upsampling": "learned", "placement": "half_pixel", "border": "zeros"}
    ours = FCN("torchvision:resnet18", 21, stride=32, **options).eval()
    names = ["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"]
    for name, module in zip(names, theirs.trunk, strict=True):
        if name:
            ours.backbone.pyramid.get_submodule(name).load_state_dict(module.state_dict())
    ours.score["stride32"].load_state_dict(theirs.scores.state_dict())
    torch.testing.assert_close(
        ours.final_upsampling.weight, theirs.upsampling.weight, rtol=0, atol=1e-7
    )
    images, target = torch.randn(1, 3, 64, 96), torch.randint(0, 21, (1, 64, 96))
    scores, reference_result = ours(images), theirs(images)
    assert scores.full().shape == reference_result.shape
    scale = reference_result.detach().abs().max().item()
    torch.testing.assert_close(scores.full(), reference_result, rtol=0, atol=1e-5 * scale)
    scores.loss(target).backward()
    nn.functional.cross_entropy(reference_result, target).backward()
    for weight, expected in (
        (ours.final_upsampling.weight, theirs.upsampling.weight),
        (ours.score["stride32"].weight, theirs.scores.weight),
        (ours.backbone.pyramid.get_submodule("conv1").weight, theirs.trunk[0].weight),
    ):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("stride", "upsampling"), [(32, "bilinear"), (16, "learned"), (8, "bilinear"), (8, "learned")]
)
def test_zeros_outside_and_half_pixels_are_plain_transposed_convolutions(
    stride: int, upsampling: str
) -> None:
    """Kernel 2 s, padding s / 2, as in the textbooks: from stride to stride, then to the pixels."""
    options = {"upsampling": upsampling, "placement": "half_pixel", "border": "zeros"}
    net = lively(FCN("test_resnet", 4, stride=stride, **options))
    image = random_image(64, 96)
    with torch.no_grad():
        features = net.backbone(image)
        total, coarse = None, 32
        for feature, step in zip(reversed(features), (32, 16, 8), strict=False):
            assert feature.shape[2:] == (64 // step, 96 // step)
            score = net.score[f"stride{step}"](feature)
            total = score if total is None else score + textbook(total, coarse // step)
            coarse = step
        torch.testing.assert_close(
            net(image).full(), textbook(total, stride), rtol=0, atol=1e-5 * float(total.abs().max())
        )


def textbook(x: Tensor, factor: int) -> Tensor:
    line = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
    weight = (line[:, None] * line).expand(x.shape[1], 1, -1, -1)
    return nn.functional.conv_transpose2d(
        x, weight, stride=factor, padding=factor // 2, groups=x.shape[1]
    )


@pytest.mark.parametrize("stride", [32, 8])
def test_stretched_scores_are_those_of_interpolate(stride: int) -> None:
    net = lively(FCN("test_resnet", 4, stride=stride, placement="stretched"))
    for size in ((64, 96), (1, 1), (50, 71), (33, 129)):
        image = random_image(*size)
        with torch.no_grad():
            features = net.backbone.pyramid(image)[-len(net.score) :]
            total = None
            for feature, score in zip(features[::-1], reversed(net.score.values()), strict=True):
                actual = score(feature)
                if total is not None:
                    shape = actual.shape[2:]
                    actual = actual + nn.functional.interpolate(total, shape, mode="bilinear")
                total = actual
            scores = net(image)
        expected = nn.functional.interpolate(total, size, mode="bilinear")
        atol = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(scores.full(), expected, rtol=0, atol=atol)
        best = expected.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 10 * atol
        assert (scores.labels() == expected.argmax(1))[clear].all()


def test_stretched_scores_of_networks_that_must_pad() -> None:
    for source in (SAME, Vgg()):
        scores = FCN(source, 3, stride=8, placement="stretched")(random_image(1, 45))
        assert scores.labels().shape == (1, 1, 45)


def test_a_built_backbone_is_taken_as_it_is() -> None:
    backbone = build("test_resnet", stride=8)
    net = FCN(backbone, 3, stride=8)
    assert net.backbone is backbone
