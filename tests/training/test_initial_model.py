"""The model that a run starts from: what is copied from an earlier model, and what is not."""

import copy

import pytest
import torch
from pyramid import Pyramid
from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.models.model import Model
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN
from fullconv.training.initial_model import require_backbone, transfer_weights

LABELS = Labels(("sky", "road", "tree"))
OTHERS = Labels(("cat", "dog", "tree"))


def fresh(stride, labels=LABELS, seed=99, **options):
    torch.manual_seed(seed)
    return FCN(Pyramid(), len(labels), stride=stride, **options).eval()


def model_of(stride, **options):
    network = fresh(stride, seed=stride, **options)
    for score in network.score.values():
        nn.init.normal_(score.weight)
    return Model(network, LABELS, BackboneCard("module", "Pyramid"))


def transfer(earlier, network, labels=LABELS):
    return transfer_weights(Model(network, labels, earlier.card), earlier)


@pytest.mark.parametrize("size", [(65, 97), (129, 33)])  # 32 k + 1: no stride needs padding
@pytest.mark.parametrize(("coarse", "fine"), [(32, 16), (16, 8), (32, 8)])
def test_a_finer_network_first_predicts_what_the_coarser_one_predicts(coarse, fine, size):
    earlier, network = model_of(coarse), fresh(fine)
    levels = ", ".join(f"stride{s}" for s in (8, 16, 32) if s >= coarse)
    assert transfer(earlier, network) == f"its backbone and its scores at {levels}"
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        before, after = earlier.network(images), network(images)
    assert after.values.shape[2] > before.values.shape[2]
    torch.testing.assert_close(after.full(), before.full(), atol=1e-5, rtol=1e-5)
    assert torch.equal(after.labels(), before.labels())
    assert len(before.labels().unique()) > 1


def test_other_sizes_are_padded_by_stride_and_alike_away_from_there():
    earlier, network = model_of(32), fresh(8)
    transfer(earlier, network)
    images = torch.randn(1, 3, 151, 170)
    with torch.no_grad():
        before, after = earlier.network(images).full(), network(images).full()
    assert (before - after).abs().max() > 1e-3
    far = 63 + 32  # the field of a cell, and one cell
    torch.testing.assert_close(after[..., :-far, :-far], before[..., :-far, :-far])


def test_other_classes_get_fresh_scores_on_the_same_backbone():
    earlier, network = model_of(16), fresh(16, OTHERS)
    scores = copy.deepcopy(network.score.state_dict())
    parts = transfer(earlier, network, OTHERS)
    assert parts == "its backbone; the scores start untrained because the classes differ"
    for key, value in network.score.state_dict().items():
        assert torch.equal(value, scores[key])
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, earlier.network.backbone.state_dict()[key])


def test_learned_skips_are_kept_and_the_last_step_only_at_the_same_stride():
    earlier = model_of(16, upsampling="learned")
    with torch.no_grad():
        for step in (*earlier.network.skip_upsampling.values(), earlier.network.final_upsampling):
            step.weight += 1
    same, finer = fresh(16, upsampling="learned"), fresh(8, upsampling="learned")
    images = torch.randn(1, 3, 65, 65)
    transfer(earlier, same)
    torch.testing.assert_close(same(images).values, earlier.network(images).values)
    own = copy.deepcopy(finer.final_upsampling.state_dict())
    transfer(earlier, finer)
    assert torch.equal(finer.final_upsampling.weight, own["weight"])
    kept = finer.skip_upsampling["stride32"].weight
    assert torch.equal(kept, earlier.network.skip_upsampling["stride32"].weight)


def test_another_backbone_is_refused():
    other = FCN("resnet10t", len(LABELS), stride=16)
    with pytest.raises(FullconvError) as caught:
        transfer(model_of(16), other)
    assert "an FCN-16s on Pyramid, whose weights differ" in caught.value.message
    assert "such as backbone.pyramid.conv1.0.weight" in caught.value.message
    assert caught.value.hint == "--backbone module:Pyramid"


@pytest.mark.parametrize(
    "name", ["resnet18", "timm:resnet18", "resnet18.a1_in1k", "torchvision:vgg16", "else:a"]
)
def test_names_that_exist_or_are_checked_later(name):
    require_backbone(name)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("resnet1", "timm has no network 'resnet1'; the nearest are resnet18, ", "resnet18"),
        ("mobilnetv2_100", "timm has no network", "mobilenetv2_100"),
        ("torchvision:resnt18", "torchvision has no network 'resnt18'", "torchvision:resnet18"),
        ("????", "timm has no network '????'.", "resnet18"),
    ],
)
def test_a_misspelled_name_gets_the_nearest(name, message, hint):
    with pytest.raises(FullconvError) as caught:
        require_backbone(name)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == f"--backbone {hint}"


def test_a_card_with_a_misspelled_name(tmp_path):
    card = tmp_path / "card.toml"
    card.write_text('source = "torchvision"\nname = "resnt18"\n')
    with pytest.raises(FullconvError, match="torchvision has no network 'resnt18'") as caught:
        require_backbone(str(card))
    assert caught.value.hint == f'name = "resnet18"   # in {card}'
    with pytest.raises(FullconvError):
        require_backbone(str(tmp_path / "gone.toml"))
