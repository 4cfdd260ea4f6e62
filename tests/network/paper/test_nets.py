from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from caffe_nets import MEAN_BGR, Blobs, drawn_blobs, scores_of
from others import torchfcn_models
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.data.synthetic import scenes
from fullconv.geometry.grid import Grid
from fullconv.geometry.trace_network import trace
from fullconv.network.backbone import build
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.network.paper import nets
from fullconv.network.paper.transplant import CAFFE_MEAN, CAFFE_STD
from fullconv.network.upsampling import bilinear_kernel

WIDTH = 1 / 16
SIZES = ((1, 1), (33, 50), (97, 64), (7, 115), (59, 77))
# net of caffe_nets -> the name of its backbone, its stride, and the network that its weights are of
NETS = {
    "32s": ("vgg16", 32, "vgg16"),
    "16s": ("vgg16", 16, "vgg16"),
    "8s": ("vgg16", 8, "vgg16"),
    "8s-atonce": ("vgg16-atonce", 8, "vgg16"),
    "alexnet": ("alexnet", 32, "alexnet"),
    "googlenet": ("googlenet", 32, "googlenet"),
}
SCORES = {"score_fr": "stride32", "score_pool4": "stride16", "score_pool3": "stride8"}


def narrow(name: str) -> BackboneCard:
    card = nets.paper_card(name)
    return replace(card, options={**card.options, "width": WIDTH})


def with_weights(name: str, stride: int, blobs: Blobs) -> FCN:
    """Ours with weights of Caffe, copied by hand: names, BGR to RGB, and nothing else."""
    net = FCN(narrow(name), 5, stride=stride).eval()
    layers = {n.replace(".", "/"): m for n, m in net.backbone.pyramid.named_modules()}
    layers |= {name: net.score[at] for name, at in SCORES.items() if at in net.score}
    with torch.no_grad():
        for layer, (weight, bias) in blobs.items():
            if layer not in layers:
                continue
            conv = layers[layer]
            first = layer in ("conv1_1", "conv1", "conv1/7x7_s2")
            conv.weight.copy_(weight.flip(1) if first else weight)
            conv.bias.copy_(bias)
    return net


def photo(height: int, width: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)


def as_caffe(image: Tensor) -> Tensor:
    """BGR, 0-255, less the mean, in float64."""
    return image.double().flip(1) - torch.tensor(MEAN_BGR, dtype=torch.float64).view(3, 1, 1)


def as_ours(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CAFFE_MEAN, CAFFE_STD))
    return (image.float() / 255 - mean) / std


@pytest.mark.parametrize("net", NETS)
def test_the_original_form_equals_the_caffe_definition(net: str) -> None:
    name, stride, weights = NETS[net]
    blobs = drawn_blobs(weights, classes=5, width=WIDTH)
    ours = with_weights(name, stride, blobs)
    for size in SIZES:
        image = photo(*size)
        with torch.no_grad():
            scores, expected = ours(as_ours(image)), scores_of(as_caffe(image), blobs, net)
        full, scale = scores.full(), expected.abs().max()
        assert full.shape == (1, 5, *size)
        assert expected.std() > 0.01 * scale  # there is something to compare
        assert (full - expected).abs().max() < 1e-5 * scale
        best = expected.topk(2, dim=1).values
        clear = (best[:, 0] - best[:, 1]) > 1e-4 * scale
        assert (scores.labels().long() == expected.argmax(1))[clear].all()


def test_every_skip_of_the_test_above_is_heard() -> None:
    blobs, image = drawn_blobs("vgg16", classes=5, width=WIDTH), as_caffe(photo(97, 64))
    scores = {net: scores_of(image, blobs, net) for net in ("32s", "16s", "8s", "8s-atonce")}
    for coarse, fine in (("32s", "16s"), ("16s", "8s"), ("8s", "8s-atonce")):
        apart = (scores[coarse] - scores[fine]).abs().max()
        assert apart > 0.01 * scores[coarse].abs().max()


@pytest.mark.parametrize("network", ["FCN32s", "FCN16s", "FCN8s", "FCN8sAtOnce"])
def test_the_original_form_equals_torchfcn(network: str) -> None:
    """The published package, in full width, where it can be imported."""
    models = torchfcn_models()
    if models is None:
        pytest.skip("torchfcn is not installed (pip install --no-deps --target DIR torchfcn)")
    peer = getattr(models, network)(n_class=5).eval()
    name = "paper:vgg16-atonce" if network == "FCN8sAtOnce" else "paper:vgg16"
    ours = FCN(name, 5, stride=int("".join(c for c in network[3:] if c.isdigit()))).eval()
    state = peer.state_dict()
    for key, value in ours.backbone.pyramid.state_dict().items():
        state[key].copy_(value)
    for layer, at in SCORES.items():
        if at in ours.score:
            for part, value in ours.score[at].named_parameters():
                nn.init.normal_(value, std=0.05)
                state[f"{layer}.{part}"].copy_(value.data)
    peer.load_state_dict(state)
    for height, width in SIZES:
        image = 60 * torch.randn(1, 3, height, width)
        with torch.no_grad():
            expected, full = peer(image), ours(image).full()
        assert (full - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16", [(8, -95.5), (16, -91.5), (32, 12.5)]),
        ("vgg16-atonce", [(8, -95.5), (16, -91.5), (32, 12.5)]),
        ("vgg16-aligned", [(8, 3.5), (16, 7.5), (32, 15.5)]),
        ("alexnet", [(8, -91), (16, -83), (32, 13)]),
        ("alexnet_owt", [(8, -91), (16, -83), (32, 13)]),
        ("alexnet-aligned", [(8, 0), (16, 0), (32, 16)]),
        ("googlenet", [(8, -91), (16, -83), (32, -67)]),
        ("googlenet-aligned", [(8, 0), (16, 0), (32, 0)]),
    ],
)
def test_grids(name: str, expected: list[tuple[float, float]]) -> None:
    grids = build(narrow(name), stride=8).grids
    assert [(grid.stride, grid.offset) for grid in grids] == expected


@pytest.mark.parametrize(("name", "field"), [("vgg16", 404), ("alexnet", 355)])
def test_receptive_fields_are_those_of_the_papers_first_table(name: str, field: int) -> None:
    for variant in (name, f"{name}-aligned"):
        assert build(narrow(variant), stride=32).grids[-1].field == field


def test_googlenets_field_in_the_papers_table_counts_the_average_pooling() -> None:
    """Its text says that the pooling was discarded, its table 907; without it are 715."""
    backbone, _ = nets.build_paper_backbone(narrow("googlenet"))
    assert trace(backbone)[-1].field == 715
    pooled = nn.Sequential(*backbone.children(), nn.AvgPool2d(7, 1))
    assert trace(pooled)[0].field == 907


def steps_of(name: str, stride: int) -> list[tuple[int, int]]:
    """Kernel and crop offset of every transposed convolution, from the grids alone: what lies
    before the first fine cell is cropped from the upsampled scores, or from the finer map."""
    grids = list(build(narrow(name), stride=stride).grids)
    steps, coarse = [], grids.pop()
    for fine in [*reversed(grids), Grid(1, 0)]:
        factor = round(coarse.stride / fine.stride)
        kernel, first = bilinear_kernel(factor, (coarse.offset - fine.offset) / fine.stride)
        steps.append((len(kernel), abs(first)))
        # The cropped map begins where the upsampled scores begin.
        coarse = Grid(fine.stride, fine.offset + fine.stride * first)
    return steps


@pytest.mark.parametrize(
    ("name", "stride", "published"),
    [
        ("vgg16", 32, [(64, 19)]),
        ("vgg16", 16, [(4, 5), (32, 27)]),
        ("vgg16", 8, [(4, 5), (4, 9), (16, 31)]),
        ("vgg16-atonce", 8, [(4, 5), (4, 9), (16, 31)]),
        ("alexnet", 32, [(63, 18)]),
    ],
)
def test_kernels_and_crop_offsets_are_the_published_ones(
    name: str, stride: int, published: list[tuple[int, int]]
) -> None:
    assert steps_of(name, stride) == published


def caffes_cells(pixels: int, *, ceil: bool) -> int:
    size = pixels + 2 * 100 - 2
    for _ in range(5):
        size = math.ceil(size / 2) if ceil else size // 2
    return size - 6


def test_pad_100_reaches_for_every_size_because_pooling_rounds_up() -> None:
    def too_small(pixels: int, ceil: bool) -> bool:
        return 32 * (caffes_cells(pixels, ceil=ceil) - 1) + 64 < 19 + pixels

    assert sum(too_small(pixels, ceil=False) for pixels in range(1, 2000)) == 746
    assert sum(too_small(pixels, ceil=True) for pixels in range(1, 2000)) == 0


@pytest.mark.parametrize(("name", "kernel", "crop"), [("vgg16", 64, 19), ("alexnet", 63, 18)])
def test_nothing_is_padded_and_nothing_comes_out_too_small(
    name: str, kernel: int, crop: int
) -> None:
    """For every size from 1 to 600, two at a time, by the shapes that come out."""
    backbone = build(narrow(name), stride=32).to("meta").eval()
    for pixels in range(1, 301):
        size = (pixels, 601 - pixels)
        with torch.no_grad():
            (feature,) = backbone(torch.empty(1, 3, *size, device="meta"))
        for count, cells in zip(size, feature.shape[2:], strict=True):
            assert backbone.pad_after(count) == 0
            assert cells == backbone.cells(0, count)
            assert 32 * (cells - 1) + kernel >= crop + count, count
            if name == "vgg16":
                assert cells == caffes_cells(count, ceil=True)


@pytest.mark.parametrize("pixels", [1, 31, 32, 33, 500])
def test_the_aligned_form_pads_to_multiples_of_32(pixels: int) -> None:
    backbone = build(narrow("vgg16-aligned"), stride=8)
    assert (pixels + backbone.pad_after(pixels)) % 32 == 0
    assert backbone.pad_after(pixels) < 32
    assert backbone.pad_before == 0


def test_dropout_is_of_single_elements() -> None:
    """A Dropout2d, as in the ports, leaves out whole channels."""
    net = FCN(narrow("vgg16"), 3, stride=32).train()
    with torch.no_grad():
        (feature,) = net.backbone(torch.randn(1, 3, 161, 161))
        (steady,) = net.eval().backbone(torch.randn(1, 3, 161, 161))
    dropped = (feature == 0).float().mean((0, 2, 3)) - (steady == 0).float().mean((0, 2, 3))
    assert ((dropped > 0.2) & (dropped < 0.8)).any()


@pytest.mark.parametrize(
    ("name", "border", "silent"), [("vgg16", "zeros", True), ("vgg16-aligned", "replicate", False)]
)
def test_released_networks_start_with_scores_of_zero(name: str, border: str, silent: bool) -> None:
    net = FCN(narrow(name), 3, stride=8)
    assert net.border == border
    weights = [score.weight.abs().max() for score in net.score.values()]
    assert (max(weights) == 0) == silent
    target = torch.zeros(1, 40, 40, dtype=torch.uint8)
    loss = net(torch.randn(1, 3, 40, 40)).loss(target)
    loss.backward()
    assert net.score["stride32"].weight.grad.abs().max() > 0
    if silent:
        assert float(loss.detach()) == pytest.approx(math.log(3))


def classifier(widths: list[int], dense: int) -> nn.Module:
    """A narrow VGG16 as torchvision builds it."""
    layers: list[nn.Module] = []
    channels = 3
    for block, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, widths[block], 3, padding=1), nn.ReLU()]
            channels = widths[block]
        layers.append(nn.MaxPool2d(2))
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    sizes = (channels * 49, dense, dense, 10)
    head: list[nn.Module] = []
    for i in range(3):
        head += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU(), nn.Dropout()]
    network.classifier = nn.Sequential(*head[:-2])
    return network


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_classifier_carry_over(tmp_path: Path, layout: str, suffix: str) -> None:
    """The aligned form on an image of 224 x 224: its middle cell sees what the classifier sees."""
    from safetensors.torch import save_file

    torch.manual_seed(2)
    network = classifier([4, 8, 16, 32, 32], 256).eval()
    with torch.device("meta"):
        wide = torchvision.models.vgg16(init_weights=False)
    assert list(network.state_dict()) == list(wide.state_dict())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if layout == "timm":  # it keeps the two as convolutions
        for name, (at, kernel) in {"fc1": (0, 7), "fc2": (3, 1)}.items():
            weight = state.pop(f"classifier.{at}.weight")
            state[f"pre_logits.{name}.weight"] = weight.reshape(256, -1, kernel, kernel)
            state[f"pre_logits.{name}.bias"] = state.pop(f"classifier.{at}.bias")
        for part in ("weight", "bias"):
            state[f"head.fc.{part}"] = state.pop(f"classifier.6.{part}")
    path = tmp_path / f"vgg16{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    card = replace(narrow("vgg16-aligned"), weights=path)
    backbone = build(card, stride=32).eval()
    assert backbone.card.mean == (0.485, 0.456, 0.406)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = F.relu(network.classifier[:4](network.features(image).flatten(1)))
        (feature,) = backbone(image)
    assert expected.std() > 0.01
    torch.testing.assert_close(feature[:, :, 3, 3], expected, rtol=1e-4, atol=1e-5)


def test_torchvisions_alexnet_carries_over(tmp_path: Path) -> None:
    with torch.device("meta"):
        wide = torchvision.models.alexnet().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in wide.items()}
    torch.manual_seed(2)

    def narrowed(shape: tuple[int, ...]) -> list[int]:
        # The first dense layer reads 256 channels of 6 x 6.
        return [n // 16 if n > 16 and n != 1000 else n for n in shape]

    state = {name: 0.1 * torch.randn(narrowed(shape)) for name, shape in shapes.items()}
    path = tmp_path / "alexnet.pth"
    torch.save(state, path)
    backbone = build(replace(narrow("alexnet_owt-aligned"), weights=path), stride=32).eval()
    image = torch.randn(1, 3, 225, 225)  # 32 k + 1: nothing is padded
    x = image
    with torch.no_grad():
        for layer, stride, pad in ((0, 4, 5), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            weight, bias = (state[f"features.{layer}.{part}"] for part in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=pad))
            if layer in (0, 3, 10):
                x = F.max_pool2d(x, 3, 2, 1)
        assert x.shape[2:] == (8, 8)
        x = x[:, :, :6, :6].flatten(1)
        for layer in (1, 4):
            x = F.relu(F.linear(x, *(state[f"classifier.{layer}.{p}"] for p in ("weight", "bias"))))
        (feature,) = backbone(image)
    assert x.std() > 0.01
    torch.testing.assert_close(feature[:, :, 2, 2], x, rtol=1e-4, atol=1e-4)


def test_pretrained_takes_torchvisions_weights(publish: Any) -> None:
    torch.manual_seed(2)
    state = classifier([4, 8, 16, 32, 32], 256).state_dict()
    requests = publish(state)
    backbone = build(narrow("vgg16"), stride=8, pretrained=True)
    assert requests == [{"progress": True, "check_hash": True}]
    kernel = backbone.pyramid.get_submodule("conv1_1").weight
    assert torch.equal(kernel, state["features.0.weight"])
    assert "ImageNet" in backbone.card.pretrained_on


def test_weights_out_of_reach_are_said(publish: Any) -> None:
    publish(OSError("no route to host"))
    with pytest.raises(FullconvError, match=r"weights of vgg16 are not on this .*no route"):
        build(narrow("vgg16"), stride=8, pretrained=True)
    with pytest.raises(FullconvError, match="no weights of alexnet to download") as caught:
        build(narrow("alexnet"), stride=32, pretrained=True)
    assert 'weights = "FILE.caffemodel"' in caught.value.hint


@pytest.mark.parametrize(
    ("backbone", "message", "hint"),
    [
        ("paper:vgg19", "the paper has no network 'vgg19'", "paper:vgg16"),
        ("paper:vgg16-small", "no network 'vgg16-small'; choose from", "paper:vgg16"),
        (
            BackboneCard("paper", "vgg19"),
            "no network 'vgg19'; choose from vgg16, alexnet, alexnet_owt, googlenet.",
            'name = "vgg16"',
        ),
        (
            BackboneCard("paper", "vgg16", {"form": "new"}),
            "options of vgg16 are {'form': 'new'}; expected only form (original or aligned)",
            "options = { form",
        ),
        (
            BackboneCard("paper", "vgg16", {"depth": 3}),
            "options of vgg16 are {'depth': 3}; expected only form",
            "options = { form",
        ),
        (
            narrow("alexnet"),
            "alexnet has no feature map at stride 4. Its strides are: 8, 16, 32.",
            "--stride 8",
        ),
    ],
)
def test_errors_read_well(backbone: Any, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        FCN(backbone, 2, stride=4)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_it_trains_saves_and_predicts_from_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from fullconv.cli.main import run

    data = tmp_path / "data"
    scenes.write(data, train=2, val=1, test=1, size=(48, 64))
    card = tmp_path / "card.toml"
    card.write_text(
        'source = "paper"\nname = "vgg16"\noptions = { form = "original", width = 0.0625 }\n'
    )
    out = tmp_path / "run"
    words = f"--batch-size 2 --crop 33 33 --workers 0 --epochs 1 --out {out} --json"
    assert run(["train", str(data), "--backbone", str(card), *words.split()]) == 0
    photo = next((data / "images/test").iterdir())
    predicted = ["predict", str(out), str(photo), "--out", str(tmp_path / "out")]
    assert run(predicted) == 0
    assert run(["inspect", str(out)]) == 0
    inputs = capfd.readouterr().out
    assert "FCN-8s on paper vgg16" in inputs
    assert "-95.5" in inputs
    assert list((tmp_path / "out").iterdir())
