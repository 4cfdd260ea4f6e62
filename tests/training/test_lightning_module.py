"""One step of an FCN and its checkpoints, without a training run around them."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.core.settings import Settings
from fullconv.data.synthetic.scenes import LABELS
from fullconv.models.model import Model
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.training.auto_settings import resolve_settings
from fullconv.training.callbacks import Checkpoints
from fullconv.training.lightning_module import TrainingModule


@pytest.fixture
def make(tmp_path):
    """Build a `TrainingModule` on a trainer of 10 steps."""
    torch.manual_seed(0)
    card = BackboneCard("timm", "resnet10t")

    def call(network=None, class_weights=None, heads=None, **options):
        network = network or FCN(card, len(LABELS), stride=8)
        options = {"lr": 0.01, "backbone_lr": 0.001, "weight_decay": 0.1, **options}
        module = TrainingModule(
            Model(network, LABELS, card, heads=heads or {}),
            Settings(**options),
            class_weights=class_weights,
            protocol={},
            folder=tmp_path,
        )
        module.trainer = SimpleNamespace(
            estimated_stepping_batches=10, global_step=0, precision="32-true"
        )
        return module

    return call


@pytest.fixture
def training(make):
    return make()


def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (2, 3, 33, 65), generator=generator, dtype=torch.uint8)
    target = torch.randint(len(LABELS), (2, 33, 65), generator=generator, dtype=torch.uint8)
    target[:, :5] = 255
    return images, target


def groups_by_name(training, optimizer, lr="lr"):
    """Return the learning rate and weight decay of each parameter by its name."""
    groups = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            groups[id(parameter)] = group[lr], group["weight_decay"]
    return {name: groups[id(p)] for name, p in training.network.named_parameters()}


def test_the_loss_is_cross_entropy_over_the_labeled_pixels(training):
    images, target = batch()
    training.eval()
    loss = training.training_step((images, target), 0).detach()
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    full = training.network((images / 255 - mean) / std).full()
    expected = cross_entropy(full.double(), target.long(), ignore_index=255)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_batch_without_a_labeled_pixel_has_loss_zero_and_moves_nothing(training):
    images, target = batch()
    loss = training.training_step((images, torch.full_like(target, 255)), 0)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in training.network.parameters())


def test_validation_counts_labeled_pixels_only(training):
    images, target = batch()
    training.eval()
    training.on_validation_start()
    with torch.inference_mode():
        training.validation_step((images, target), 0)
        predicted = training.network(training.model.normalize(images)).labels()
    confusion = training.confusions[0].compute().numpy()[:-1, :-1]  # the last: ignored
    expected = np.zeros_like(confusion)
    for truth, guess in zip(target.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if truth != 255:
            expected[truth, guess] += 1
    assert (confusion == expected).all()


def test_learning_rates_and_decay_by_group(training):
    optimizer = training.configure_optimizers()["optimizer"]
    parameters = dict(training.network.named_parameters())
    for name, (lr, decay) in groups_by_name(training, optimizer, "max_lr").items():
        assert lr == (0.001 if name.startswith("backbone.") else 0.01), name
        assert decay == (0.0 if parameters[name].ndim == 1 else 0.1), name


def test_biases_have_a_learning_rate_of_their_own_and_normalization_has_not(make):
    training = make(bias_lr_factor=2, schedule="fixed", optimizer="sgd")
    optimizer = training.configure_optimizers()  # no schedule
    groups = groups_by_name(training, optimizer)
    assert groups["score.stride32.bias"] == (0.02, 0.0)
    assert groups["score.stride32.weight"] == (0.01, 0.1)
    assert groups["backbone.pyramid.bn1.bias"] == (0.001, 0.0)  # of a batch norm
    assert groups["backbone.pyramid.bn1.weight"] == (0.001, 0.0)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert not optimizer.param_groups[0]["nesterov"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["poly", "onecycle", "fixed"])
def test_optimizers_and_schedules(make, optimizer, schedule):
    """The learning rates of all groups keep their ratio; all but fixed ones end near 0."""
    chosen = make(optimizer=optimizer, schedule=schedule).configure_optimizers()
    if schedule == "fixed":
        assert type(chosen).__name__.lower() == optimizer
        return
    assert type(chosen["optimizer"]).__name__.lower() == optimizer
    assert chosen["lr_scheduler"]["interval"] == "step"
    groups, scheduler = chosen["optimizer"].param_groups, chosen["lr_scheduler"]["scheduler"]
    rates = [[group["lr"] for group in groups]]
    for _ in range(10):
        chosen["optimizer"].step()
        scheduler.step()
        rates.append([group["lr"] for group in groups])
    peak, last = np.max(rates, axis=0), rates[-1]
    assert sorted({*peak.tolist()}) == pytest.approx([0.001, 0.01], rel=0.01)
    assert max(last) < 1e-4
    np.testing.assert_allclose(rates, np.outer([row[0] / peak[0] for row in rates], peak))


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.path.write_bytes(b"old")

    def full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    trainer = SimpleNamespace(save_checkpoint=full, is_global_zero=True)
    with pytest.raises(FullconvError, match="No space left on device") as caught:
        checkpoints.save(trainer)
    assert "previous checkpoint and the best model are untouched" in caught.value.message
    assert checkpoints.path.read_bytes() == b"old"
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("seconds", "batches", "passes", "expected"),
    [(3600, 4, 1, []), (-1, 4, 1, [0, 1, 2]), (-1, 7, 3, [2, 5])],
    ids=["minutes apart", "not at the last batch", "not between the passes of a step"],
)
def test_checkpoints_within_an_epoch(tmp_path, seconds, batches, passes, expected):
    (tmp_path / "checkpoint").mkdir()
    saved = []
    trainer = SimpleNamespace(
        save_checkpoint=lambda path: (saved.append(index), path.touch()),
        is_global_zero=True,
        num_training_batches=batches,
        world_size=1,
        accumulate_grad_batches=passes,
    )
    checkpoints = Checkpoints(tmp_path, seconds=seconds)
    for index in range(batches):
        checkpoints.on_train_batch_end(trainer, None, None, None, index)
    assert saved == expected


def test_a_frozen_backbone_keeps_its_weights_and_its_running_means(make):
    frozen = make(freeze_backbone=True, schedule="fixed", optimizer="sgd", lr=1.0)
    before = copy.deepcopy(frozen.network.state_dict())
    optimizer = frozen.configure_optimizers()
    frozen.training_step(batch(), 0).backward()
    optimizer.step()
    changed = {k for k, v in frozen.network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(name.startswith("score.") for name in changed)
    assert frozen.network.score.training
    assert not any(m.training for m in frozen.network.backbone.modules())


def test_the_converted_learning_rate_moves_weights_as_the_summed_loss_does():
    """Two steps of heavy learning as in the published solvers: momentum 0.99, weight decay, biases
    at twice the learning rate; in float64 with a loss that is summed over the labeled pixels."""
    torch.manual_seed(0)
    images = torch.randn(1, 4, 6, 5, dtype=torch.float64)
    target = torch.randint(3, (1, 6, 5))
    target[:, :2] = 255
    summed, momentum, decay = 1e-3, 0.99, 5e-2
    report = SimpleNamespace(
        class_pixels={"train": [20]},  # labeled pixels
        ignored_pixels={"train": 10},
        dataset=SimpleNamespace(splits={"train": ["image"]}),
    )
    options = {"crop": (0, 0), "batch_size": 1, "class_weights": "none", "weight_decay": decay}
    settings, _ = resolve_settings(Settings(sum_loss_lr=summed, **options), [report])
    layer = nn.Conv2d(4, 3, 1).double()
    weight, bias = (p.detach().clone() for p in layer.parameters())
    moved = [torch.zeros_like(weight), torch.zeros_like(bias)]
    lr, mean_decay = settings.lr, settings.weight_decay
    groups = [
        {"params": [layer.weight], "lr": lr, "weight_decay": mean_decay},
        {"params": [layer.bias], "lr": 2 * lr},
    ]
    ours = torch.optim.SGD(groups, momentum=momentum)
    for _ in range(2):
        ours.zero_grad()
        cross_entropy(layer(images), target, ignore_index=255).backward()
        ours.step()
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        scores = conv2d(images, weight, bias)
        loss = cross_entropy(scores, target, ignore_index=255, reduction="sum")
        of_weight, of_bias = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():  # Caffe: v = m v + rate (gradient + decay w); w = w - v
            moved[0] = momentum * moved[0] + summed * (of_weight + decay * weight)
            moved[1] = momentum * moved[1] + 2 * summed * of_bias
            weight, bias = weight - moved[0], bias - moved[1]
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.bias.detach(), bias, rtol=1e-12, atol=0)


def test_the_loss_of_several_heads_is_the_sum(make):
    """Also where they ignore different ids; each with its own class weights."""
    order = Labels(("wall", "far", "near"))
    network = FCN(BackboneCard("timm", "resnet10t"), len(LABELS) + 3, stride=8).eval()
    for score in network.score.values():
        torch.nn.init.normal_(score.weight, std=0.1)
    weights = [torch.rand(len(LABELS)) + 0.1, torch.tensor([1.0, 3.0, 0.2])]
    two = make(network, weights, {"order": order}).eval()
    images, target = batch()
    second = (target % 4).masked_fill(target % 4 == 3, 255)
    loss = two.training_step((images, torch.stack([target, second], 1)), 0).detach()
    full = network(two.model.normalize(images)).full().double()
    parts = zip(full.split([len(LABELS), 3], 1), (target, second), weights, strict=True)
    expected = sum(
        cross_entropy(part, ids.long(), weight.double(), ignore_index=255)
        for part, ids, weight in parts
    )
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
