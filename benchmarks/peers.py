"""Compare Fullconv's ResNet-18 FCN-8s with popular networks on a CPU.

`predict`: from an image to its label map, 21 classes, 320 x 480, one image. `train`: one step on a
batch of 8. Each peer runs as its documentation shows: eager, float32, channels first, and its own
code for the label map. Weights are random: times, not accuracies. Writes results/peers.json.

    pip install --no-deps --target PEERS segmentation-models-pytorch torchfcn
    python benchmarks/peers.py --peers PEERS
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from elsewhere import Elsewhere
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from method import MissingError, Section, compare, parser, run
from torch import Tensor, nn

from fullconv.core.hardware import use_huge_pages
from fullconv.core.labels import Labels
from fullconv.core.settings import Settings
from fullconv.inference.predictor import Predictor
from fullconv.models.model import Model, load_model
from fullconv.network.fcn import FCN
from fullconv.training.auto_settings import resolve_settings
from fullconv.training.lightning_module import TrainingModule
from fullconv.training.train import lightning_precision

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from others import Taught, torchfcn_models

CLASSES = 21
SIZE, QUICK_SIZE = (320, 480), (64, 96)
OURS = "Fullconv ResNet-18 FCN-8s"
COMPILED = f"{OURS}, compiled"
TAUGHT = "ResNet-18 FCN-32s as taught"
UNET, FPN, DEEPLAB = (f"smp {name} resnet18" for name in ("Unet", "FPN", "DeepLabV3+"))
TORCHVISION, TORCHFCN = "torchvision fcn_resnet50", "torchfcn FCN8s VGG16"
# Targets: how many times as long a peer takes, with default settings and compiled.
WANTED = {TAUGHT: (3.5, 5.5), UNET: (5, 8), TORCHVISION: (18, 28), TORCHFCN: (38, 58)}


def taught_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Compute the textbook's loss: a mean per image, summed over the batch."""
    return F.cross_entropy(scores, target, reduction="none").mean(1).mean(1).sum()


def _smp(name: str) -> nn.Module:
    try:
        smp = importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise MissingError(f"segmentation-models-pytorch ({error}); see --peers") from None
    return getattr(smp, name)("resnet18", encoder_weights=None, classes=CLASSES)


def _torchvision() -> nn.Module:
    from torchvision.models.segmentation import fcn_resnet50

    return fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)


def _torchfcn() -> nn.Module:
    models = torchfcn_models()
    if models is None:
        raise MissingError("torchfcn; see --peers")
    network: nn.Module = models.FCN8s(n_class=CLASSES)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # all zeros until weights are copied in
            nn.init.kaiming_normal_(module.weight)
    return network


def _first(output: Any) -> Tensor:
    return output["out"] if isinstance(output, dict) else output


# name -> the network, and its authors' code from logits to class ids
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    TAUGHT: (partial(Taught, CLASSES), lambda scores: scores.argmax(1)),
    UNET: (lambda: _smp("Unet"), lambda scores: scores.argmax(1)),
    FPN: (lambda: _smp("FPN"), lambda scores: scores.argmax(1)),
    DEEPLAB: (lambda: _smp("DeepLabV3Plus"), lambda scores: scores.argmax(1)),
    TORCHVISION: (_torchvision, lambda scores: scores.argmax(1)),
    TORCHFCN: (_torchfcn, lambda scores: scores.max(1)[1]),
}


def peers(
    arguments: argparse.Namespace, make: Callable[..., Callable[[], object]]
) -> dict[str, Callable[[], object]]:
    """Return the available peers, each in its own process; name the missing ones."""
    size, found = QUICK_SIZE if arguments.quick else SIZE, {}
    for name in NETWORKS:
        try:
            found[name] = Elsewhere(make, name, size, arguments.peers)
        except MissingError as reason:
            print(f"without {name}: {reason}", flush=True)
    return found


def peer_step(name: str, size: tuple[int, int], folder: Path | None) -> Callable[[], object]:
    """Return a training step of a peer."""
    _look_in(folder)
    images, target = a_batch(size)
    batch = images.float() / 128 - 1, target.long()
    return eager_step(
        NETWORKS[name][0](), batch, taught_loss if name == TAUGHT else F.cross_entropy
    )


def peer_label_map(name: str, size: tuple[int, int], folder: Path | None) -> Callable[[], object]:
    """Return a peer's way from a normalized image to its label map."""
    _look_in(folder)
    build, ids = NETWORKS[name]
    network = build().eval()
    images = torch.from_numpy(a_image(size)).permute(2, 0, 1)[None].float().contiguous() / 128 - 1

    def label_map() -> Tensor:
        with torch.inference_mode():
            return ids(_first(network(images)))

    return label_map


def _look_in(folder: Path | None) -> None:
    if folder:
        sys.path.append(str(folder.resolve()))


def fullconv_model(classes: int, *, stride: int = 8, spread: float = 0.0) -> Model:
    """Build a ResNet-18 FCN with random weights.

    Args:
        spread: standard deviation of the segmentation head; 0 leaves it as training starts.
    """
    torch.manual_seed(0)
    network = FCN("resnet18", classes, stride=stride)
    if spread:
        for score in network.score.values():
            nn.init.normal_(score.weight, std=spread)
    labels = Labels(tuple(f"class {k}" for k in range(classes)))
    return Model(network, labels, network.backbone.card)


class Bare:
    """Take one training step of `fullconv train` on a prepared batch when called.

    There is no loading and no loop.
    """

    def __init__(self, classes: int, images: Tensor, target: Tensor) -> None:
        size = tuple(images.shape[2:])
        given = Settings(pretrained=False, batch_size=len(images), crop=size, device="cpu")
        settings, _ = resolve_settings(given)
        model = fullconv_model(classes)
        model.network.to(memory_format=torch.channels_last)
        self.training = TrainingModule(
            model, settings, class_weights=None, protocol={}, folder=Path("unused")
        )
        self.trainer = _NoTrainer()
        self.training.trainer = self.trainer
        self.training.train()
        chosen = self.training.configure_optimizers()
        self.optimizer = chosen["optimizer"]
        self.scheduler = chosen["lr_scheduler"]["scheduler"]
        self.precision = lightning_precision(settings.precision, settings.device)
        mixed = self.precision != "32-true"
        self.plugin = MixedPrecision(self.precision, "cpu") if mixed else Precision()
        self.batch = images, target

    def __call__(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        with self.plugin.forward_context():
            loss = self.training.training_step(self.batch, 0)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()


class _NoTrainer:
    estimated_stepping_batches = 1_000_000


# Lightning loads callbacks from entry points of packages. This one records the time, and
# `fullconv train` stays unchanged.
_CLOCK = '''
import os, time
from lightning.pytorch import Callback

class Clock(Callback):
    """Notes when batches and validation begin and end, and how many images there were."""
    def note(self, *what):
        with open(os.environ["SPEED_CLOCK"], "a") as file:
            print(*what, file=file)
    def on_train_epoch_start(self, trainer, module):
        self.started, self.images = time.monotonic(), 0
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.ended, self.images = time.monotonic(), self.images + len(batch[0])
    def on_validation_start(self, trainer, module):
        self.note("train", self.images, self.ended - self.started)
        self.images = 0
    def on_validation_batch_end(self, trainer, module, outputs, batch, index, dataloader_idx=0):
        self.images += len(batch[0])
    def on_validation_epoch_end(self, trainer, module):
        self.note("validation", self.images, time.monotonic() - self.ended)
'''


def linked_camvid(folder: Path, counts: tuple[int, int]) -> Path:
    """Link CamVid's training split, and its test split for validation."""
    shared = os.environ.get("FULLCONV_SHARED")
    source = Path(shared or "").resolve() / "data/camvid"
    if not shared or not source.is_dir():
        raise MissingError("CamVid: FULLCONV_SHARED names the folder that holds data/camvid")
    for split, name, count in zip(("train", "test"), ("train", "val"), counts, strict=True):
        for ending in ("", "annot"):
            (folder / f"{name}{ending}").mkdir(parents=True)
            for file in sorted((source / f"{split}{ending}").iterdir())[:count]:
                (folder / f"{name}{ending}" / file.name).symlink_to(file)
    return folder


def train_rates(
    data: Path, batch: int, crop: tuple[int, int], epochs: int, threads: int
) -> dict[str, list[float]]:
    """Run `fullconv train` in a process; return images per second of all epochs but the first.

    Training lasts from the start of an epoch to its last step, validation from there to its last
    image; model and checkpoint are written after that.
    """
    words = ["train", str(data), "--backbone", "resnet18", "--no-pretrained", "--stride", "8"]
    words += ["--batch-size", str(batch), "--crop", *map(str, crop), "--epochs", str(epochs)]
    with tempfile.TemporaryDirectory() as name:
        offer = Path(name, "packages", "speed_clock-0.dist-info")
        offer.mkdir(parents=True)
        (offer / "METADATA").write_text("Metadata-Version: 2.1\nName: speed-clock\nVersion: 0\n")
        (offer / "entry_points.txt").write_text(
            "[lightning.pytorch.callbacks_factory]\nclock = speed_clock:Clock\n"
        )
        (offer.parent / "speed_clock.py").write_text(_CLOCK)
        paths = [str(offer.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        notes = Path(name, "clock.txt")
        surroundings = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "SPEED_CLOCK": str(notes),
            "OMP_NUM_THREADS": str(threads),
        }
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "fullconv",
                *words,
                "--device",
                "cpu",
                "--out",
                f"{name}/run",
            ],
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        rates: dict[str, list[float]] = {"train": [], "validation": []}
        for line in notes.read_text().splitlines():
            what, images, seconds = line.split()
            rates[what].append(int(images) / float(seconds))
    return {what: values[1:] for what, values in rates.items()}


def eager_step(network: nn.Module, batch: tuple[Tensor, Tensor], loss: Any) -> Callable[[], None]:
    """Take a training step in float32, channels first, with SGD."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, weight_decay=1e-3)
    images, target = batch

    def step() -> None:
        loss(_first(network(images)), target).backward()
        optimizer.step()
        optimizer.zero_grad()  # free the gradients while other networks run

    return step


def a_image(size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) uint8 of large soft shapes with a little noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 9, generator=generator)
    soft = F.interpolate(coarse, size=size, mode="bicubic")[0].clamp(0, 1)
    noisy = soft + 0.03 * torch.randn(3, *size, generator=generator)
    return (255 * noisy.clamp(0, 1)).byte().permute(1, 2, 0).contiguous().numpy()


def a_batch(size: tuple[int, int], count: int = 8) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) uint8 and ids (N, H, W) uint8 without ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    image = torch.from_numpy(a_image(size)).permute(2, 0, 1)
    shifted = [image.roll(17 * k, dims=2) for k in range(count)]
    coarse = torch.randint(CLASSES, (count, size[0] // 32, size[1] // 32), generator=generator)
    target = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)
    return torch.stack(shifted), target.to(torch.uint8)


def predict(arguments: argparse.Namespace) -> Section:
    """Measure milliseconds from an image to its label map."""
    image = a_image(QUICK_SIZE if arguments.quick else SIZE)
    model = load_model(arguments.model) if arguments.model else None
    predictors = {OURS: Predictor(model or fullconv_model(CLASSES, spread=0.05), device="cpu")}
    compiled = _compiled(arguments.model, image)
    if compiled:
        predictors[COMPILED] = compiled
    variants = {name: _ours(predictor, image) for name, predictor in predictors.items()}
    variants |= peers(arguments, peer_label_map)
    timings = compare(variants, rounds=arguments.rounds)
    section = Section(facts={"milliseconds": timings.to_dict(), "size": image.shape[:2]})
    section.facts["our_weights"] = "trained" if arguments.model else "random"
    section.facts["engine"] = predictors[OURS].runtime.describe()
    for which, ours in enumerate(predictors):
        for name in (name for name in NETWORKS if name in variants):
            wanted = WANTED[name][which] if name in WANTED else None
            title = f"{name} / {'compiled' if which else 'as chosen'}"
            section.figures.append(timings.figure(title, ours, name, at_least=wanted))
    return section


def _compiled(model: Path | None, image: np.ndarray) -> Predictor | None:
    """Return a compiled predictor that has run once, or None with a printed reason."""
    if "compile" not in inspect.signature(Predictor).parameters:
        print("without compile: Predictor has no such option", flush=True)
        return None
    loaded = load_model(model) if model else fullconv_model(CLASSES, spread=0.05)
    try:
        predictor = Predictor(loaded, device="cpu", compile=True)
        predictor.label_map(image)
    except Exception as error:  # for example without a C++ compiler
        print(f"without compile: {type(error).__name__}: {error}", flush=True)
        return None
    return predictor


def _ours(predictor: Predictor, image: np.ndarray) -> Callable[[], object]:
    return lambda: predictor.label_map(image)


def train(arguments: argparse.Namespace) -> Section:
    """Measure images per second of a training step."""
    images, target = a_batch(QUICK_SIZE if arguments.quick else SIZE)
    bare = Bare(CLASSES, images, target)
    variants: dict[str, Callable[[], object]] = {OURS: bare}
    variants |= peers(arguments, peer_step)
    rounds = min(arguments.rounds, 5)
    timings = compare(variants, rounds=rounds, warmup=1)
    rates = {name: len(images) / timings.spread(name, scale=1).median for name in variants}
    facts = {"images_per_second": rates, "precision": bare.precision, "rounds": rounds}
    section = Section(facts=facts)
    for name in list(variants)[1:]:
        section.figures.append(timings.figure(name, OURS, name, images=len(images)))
    return section


def main() -> None:
    made = parser(__doc__, rounds=15)
    made.add_argument("--peers", type=Path, help="folder of pip install --target")
    made.add_argument("--model", type=Path, help="a trained ResNet-18 FCN-8s in place of a fresh")
    arguments = made.parse_args()
    use_huge_pages()  # as the command line does
    sys.exit(run("peers", {"predict": predict, "train": train}, arguments))


if __name__ == "__main__":
    main()
