"""Models on disk: back as they were, never half there, and a message for all that may be wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.models.model import FORMAT, Model, load_model, save_model
from fullconv.models.model_card import model_card
from fullconv.network.backbone_card import BackboneCard
from fullconv.network.fcn import FCN

MakeModel = Callable[..., Model]
FILES = ["README.md", "config.json", "model.safetensors"]
METRICS = {
    "mean_iou": 0.5,
    "pixel_accuracy": 0.75,
    "protocol": {"images": 4, "split": "val", "data_fingerprint": "ab12" * 16},
}


@pytest.fixture(scope="module")
def original(make_model: MakeModel) -> Model:
    return make_model()


@pytest.fixture(scope="module")
def saved(original: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(original, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A fresh copy of the original, in a run's folder."""
    return Path(shutil.copytree(saved, tmp_path / "run" / "model"))


@pytest.fixture(scope="module")
def other(make_model: MakeModel) -> Model:
    return make_model(seed=1)


def same(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The model with another description, in all three places, as a maker of it would write it."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    table = json.loads(config.read_text())
    table.pop("weights_sha256")
    change(table)
    save_file(load_file(weights), weights, {"fullconv": json.dumps(table)})
    table["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    config.write_text(json.dumps(table))
    return folder


def refused(path: Path) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        load_model(path)
    return caught.value


@pytest.mark.parametrize("upsampling", ["bilinear", "learned_skips", "learned"])
@pytest.mark.parametrize("stride", [8, 32])
def test_a_model_comes_back_to_the_bit(
    make_model: MakeModel, tmp_path: Path, upsampling: str, stride: int
) -> None:
    names = ("Straße", 'a "b"', "路")
    colors = ((1, 2, 3), (0, 0, 0), (255, 254, 253))
    model = make_model(
        names, colors=colors, upsampling=upsampling, stride=stride, training={"a": [1, None]}
    )
    found = load_model(save_model(model, tmp_path / "model"))
    assert same(found.network, model.network)
    assert not found.network.training
    assert (found.network.stride, found.network.upsampling) == (stride, upsampling)
    assert found.labels == Labels(names, colors)
    assert found.card == model.card
    assert found.training == {"a": [1, None]}
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        assert torch.equal(found.network(image).full(), model.network(image).full())


def test_border_and_placement_are_kept(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    card = model.card
    model.network = FCN(card, 3, stride=8, border="zeros", placement="half_pixel").eval()
    found = load_model(save_model(model, tmp_path / "model"))
    assert found.network.border == "zeros"
    assert found.network.backbone.placement == "half_pixel"
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        assert torch.equal(found.network(image).full(), model.network(image).full())


def test_a_model_from_before_there_was_a_choice_of_either(folder: Path) -> None:
    rewritten(folder, lambda table: (table.pop("border"), table.pop("placement")))
    network = load_model(folder).network
    assert (network.border, network.backbone.placement) == ("replicate", "exact")


def test_mean_std_ignore_index_and_metrics_are_kept(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(metrics=METRICS)
    model.labels = Labels(model.labels.names, ignore_index=9)
    model.card = BackboneCard(
        "timm", "test_resnet", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 1 / 3), license="MIT"
    )
    found = load_model(save_model(model, tmp_path / "model"))
    assert found.labels.ignore_index == 9
    assert found.card == model.card
    assert found.metrics == METRICS


def test_images_are_normalised_by_the_card(make_model: MakeModel) -> None:
    model = make_model()
    model.card = BackboneCard("timm", "test_resnet", mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 3, 4, 3)
    found = model.normalize(images)
    assert found.dtype == torch.float32
    assert found.shape == (2, 3, 4, 3)
    for channel, (mean, std) in enumerate([(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)]):
        expected = [(x - mean) / std for x in (0.0, 0.2, 1.0)]
        assert found[1, channel, 2].tolist() == pytest.approx(expected)


def test_a_model_in_channels_last_and_in_training_mode_is_saved_alike(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model()
    plain = save_model(model, tmp_path / "plain") / "model.safetensors"
    model.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    assert (
        save_model(model, tmp_path / "last") / "model.safetensors"
    ).read_bytes() == plain.read_bytes()
    assert model.network.training


def test_a_backbone_with_one_tensor_under_two_names_is_saved(tmp_path: Path) -> None:
    backbone = Tied()
    model = Model(FCN(backbone, 2, stride=8), Labels(("a", "b")), BackboneCard("module", "Tied"))
    found = load_model(save_model(model, tmp_path / "model"), backbone=Tied())
    assert same(found.network, model.network)


def test_a_module_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    model = Model(FCN(Tied(), 2, stride=8), Labels(("a", "b")), BackboneCard("module", "Tied"))
    error = refused(save_model(model, tmp_path / "model"))
    assert "was trained on a module of your own (Tied); a model contains no code" in error.message
    assert error.hint == f"fc.load({str(tmp_path / 'model')!r}, backbone=Tied())"


def test_the_folder_holds_weights_json_and_text_and_nothing_that_runs(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]
    weights = (folder / "model.safetensors").read_bytes()
    for path in folder.iterdir():
        assert not path.stat().st_mode & 0o111, path
        content = path.read_bytes()
        assert not content.startswith((b"PK", b"\x80", b"#!")), path  # zip (torch.save), pickle
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("weights_sha256") == hashlib.sha256(weights).hexdigest()
    assert json.loads(header.pop("__metadata__")["fullconv"]) == config
    assert config["format"] == FORMAT
    assert config["classes"] == ["sky", "road", "tree"]
    assert not any("import" in str(value) or "module" in str(value) for value in config.values())


def test_a_model_loads_with_the_network_cut_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_model(folder).labels.names == ("sky", "road", "tree")


def test_the_run_the_folder_and_the_file_alone_are_all_the_model(
    folder: Path, original: Model
) -> None:
    expected = original.network
    for path in (folder, folder.parent, folder / "model.safetensors", str(folder)):
        assert same(load_model(path).network, expected)
    alone = folder.parent / "renamed.safetensors"
    shutil.move(folder / "model.safetensors", alone)
    shutil.rmtree(folder)
    assert same(load_model(alone).network, expected)


def test_the_card_lies_beside_it(folder: Path, original: Model) -> None:
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(original.config())


# What may be wrong with a folder.


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def flip_bit(folder: Path, position: int) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[position] ^= 1
    weights.write_bytes(content)


def cut(folder: Path, size: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])


def write_weights(folder: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors", metadata)


def write_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)


def future_format(folder: Path) -> None:
    rewritten(folder, lambda table: table.update(format="fullconv/2"))


Damage = Callable[[Path], Any]
DAMAGES: list[tuple[Damage, str, str]] = [
    (shutil.rmtree, "no model at {folder}: it does not exist.", "fullconv train DATA"),
    (
        lambda f: [path.unlink() for path in f.iterdir()],
        "no model at {folder}: the folder is empty.",
        "fullconv train DATA",
    ),
    (
        lambda f: (f / "model.safetensors").unlink(),
        "the folder contains README.md, config.json; expected model.safetensors and config.json.",
        "fullconv train DATA",
    ),
    (
        lambda f: (f / "config.json").unlink(),
        "{folder} has no config.json; a model folder contains model.safetensors, config.json and",
        "fc.load('{folder}/model.safetensors')   # the weights describe themselves",
    ),
    *(
        (
            lambda f, position=position: flip_bit(f, position),
            "model.safetensors was altered or does not belong to its config.json: the checksums",
            "copy the whole model folder again",
        )
        for position in (-1, -1000, 200_000)
    ),
    (
        lambda f: edit_config(f, lambda t: t.update(classes=["a", "b", "c"], mean=[0, 0, 0])),
        "was altered: it differs from the header of the weights in classes, mean.",
        "fc.load(",
    ),
    (lambda f: edit_config(f, lambda t: t.update(more=1)), "of the weights in more.", "fc.load("),
    (lambda f: write_config(f, b"{"), "is not a JSON object: Expecting property name", "fc.load("),
    (lambda f: write_config(f, b""), "is not a JSON object: Expecting value", "fc.load("),
    (lambda f: write_config(f, b"\xff\xfe"), "is not a JSON object: 'utf-8' codec", "fc.load("),
    (lambda f: write_config(f, b"[]"), "is not a JSON object: list []", "fc.load("),
    (
        future_format,
        "has format 'fullconv/2'; this version reads 'fullconv/1'.",
        "git pull && make install",
    ),
    (lambda f: (future_format(f), write_config(f, b"{}")), "has format 'fullconv/2'", "git pull"),
    *(
        (
            lambda f, key=key: rewritten(f, lambda table: table.pop(key)),
            f"the description in {{folder}}/model.safetensors is incomplete (KeyError '{key}')",
            "copy the model again, or fullconv train DATA",
        )
        for key in ("backbone", "classes", "num_classes", "stride", "metrics", "training")
    ),
    (
        lambda f: rewritten(f, lambda table: table["backbone"].update(color="red")),
        "is incomplete (TypeError ",
        "copy the model again",
    ),
    (
        lambda f: rewritten(f, lambda table: table.update(num_classes=4)),
        "do not fit its description, FCN-8s on test_resnet: ",
        "copy the whole model folder again",
    ),
    *(
        (
            lambda f, text=text: write_weights(f, {"fullconv": text}),
            "the description in the header of {folder}/model.safetensors is not a JSON object.",
            "copy the model again",
        )
        for text in ("no json", "[]", "5")
    ),
    *(
        (
            lambda f, metadata=metadata: write_weights(f, metadata),
            "contains weights but is not a fullconv model: its header has no description.",
            'weights = "FILE.safetensors"',
        )
        for metadata in (None, {"format": "pt"})
    ),
    *(
        (
            lambda f, size=size: cut(f, size),
            "{folder}/model.safetensors is damaged or not a .safetensors file: ",
            "fullconv train DATA",
        )
        for size in (0, 4, 100, 5000, -1)
    ),
]


@pytest.mark.parametrize(("damage", "message", "hint"), DAMAGES)
def test_damaged_folders(folder: Path, damage: Damage, message: str, hint: str) -> None:
    damage(folder)
    error = refused(folder)
    assert message.format(folder=folder) in error.message
    assert hint.format(folder=folder) in error.hint


def test_files_without_config_or_card_still_load(folder: Path) -> None:
    (folder / "README.md").unlink()
    load_model(folder)
    (folder / "config.json").unlink()
    assert load_model(folder / "model.safetensors").labels.names == ("sky", "road", "tree")


def test_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    message = refused(tmp_path).message
    assert "the folder contains 0.txt, 1.txt, 2.txt, " in message
    assert "7.txt and 2 more; expected model.safetensors" in message
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(1000))
    assert "is damaged or not a .safetensors file" in refused(tmp_path / "photo.jpg").message
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "no model at .: the folder is empty" in refused(Path()).message


def test_models_nearby_are_suggested(tmp_path: Path, original: Model) -> None:
    """In a folder the newest first; for a misspelled name the most similar first."""
    runs = tmp_path / "my runs"
    for number, name in enumerate(("crack", "roads", "cracks")):
        save_model(original, runs / name / "model")
        os.utime(runs / name, (number, number))
    (runs / "notes").mkdir()
    error = refused(runs)
    listed = ", ".join(str(runs / name) for name in ("cracks", "roads", "crack"))
    assert error.message.endswith(f"There are models at {listed}.")
    assert error.hint == f"fullconv inspect '{runs / 'cracks'}'"
    error = refused(runs / "road")
    assert error.message.startswith(f"no model at {runs / 'road'}: it does not exist. There are")
    assert error.hint == f"fullconv inspect '{runs / 'roads'}'"
    assert refused(runs / "notes").hint == "fullconv train DATA"  # an existing folder


# Replacing a model.


def test_a_newer_model_takes_the_place_of_the_older(folder: Path, other: Model) -> None:
    save_model(other, folder)
    assert same(load_model(folder).network, other.network)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def test_leftovers_of_an_interrupted_saving_are_not_in_the_way(folder: Path, other: Model) -> None:
    for end in (".new", ".old"):
        left = folder.with_name(f"model{end}")
        left.mkdir()
        (left / "rest").write_text("half")
    save_model(other, folder)
    assert same(load_model(folder).network, other.network)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel itself refuses, for root too. Only around
    the call in question: pytest's own output may go to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 1000, 1_000_000])
def test_a_disk_that_fills_up_costs_the_new_model_only(
    folder: Path,
    other: Model,
    original: Model,
    size: int,
) -> None:
    with pytest.raises(FullconvError) as caught, small_disk(size):
        save_model(other, folder)
    assert caught.value.message == (
        f"the model could not be written to {folder}: File too large. The previous model in "
        f"{folder} is untouched."
    )
    assert caught.value.hint == "df -h"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]
    assert same(load_model(folder).network, original.network)


def test_a_full_disk_without_a_model_before(other: Model, tmp_path: Path) -> None:
    with pytest.raises(FullconvError) as caught, small_disk(1000):
        save_model(other, tmp_path / "model")
    assert caught.value.message.endswith("File too large.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_disk_that_is_full_only_when_the_file_is_flushed(
    folder: Path,
    other: Model,
    original: Model,
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
) -> None:
    calls = []
    real = os.fsync

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FullconvError, match="No space left on device"):
        save_model(other, folder)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]
    assert same(load_model(folder).network, original.network)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_rename_that_fails_brings_the_previous_model_back(
    folder: Path,
    other: Model,
    original: Model,
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
) -> None:
    real, calls = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(
        FullconvError, match=r"Input/output error\. The previous model in .* untouch"
    ):
        save_model(other, folder)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]
    assert same(load_model(folder).network, original.network)


def test_interrupted_between_the_two_renames_the_hint_brings_it_back(
    folder: Path, other: Model, original: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Path.rename, []

    def stop(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt  # as a power cut would: nothing is tidied up
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            save_model(other, folder)
    assert not folder.exists()
    for path in (folder, folder.parent):
        error = refused(path)
        assert "saving was interrupted" in error.message
        assert error.hint == f"mv {folder.with_name('model.old')} {folder}"
    _, source, target = error.hint.split()
    shutil.move(source, target)
    assert same(load_model(folder).network, original.network)


def test_saving_again_after_that_goes_well(folder: Path, other: Model) -> None:
    folder.rename(folder.with_name("model.old"))
    with pytest.raises(FullconvError), small_disk(1000):
        save_model(other, folder)
    # A second mishap does not cost the one good copy.
    load_model(folder)
    save_model(other, folder)
    assert same(load_model(folder).network, other.network)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def test_a_folder_that_cannot_be_made(original: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError) as caught:
        save_model(original, tmp_path / "file" / "model")
    assert "could not be written to" in caught.value.message
    assert "Not a directory" in caught.value.message


class Tied(nn.Module):
    """Feature maps at strides 8, 16 and 32; two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 9, stride=8, padding=4)
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.third = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.third.weight = self.second.weight

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        a = self.first(x)
        b = self.second(a)
        return [a, b, self.third(b)]


def test_a_model_of_version_0_1_loads_with_the_names_of_today(folder: Path) -> None:
    old = json.loads((Path(__file__).with_name("old") / "config.json").read_text())
    rewritten(folder, lambda t: t.update(training=old["training"], metrics=old["metrics"]))
    model = load_model(folder)
    assert model.training["data"]["images"]["train"] == 330
    assert model.training["settings"]["lr"] == 0.003
    assert model.metrics["protocol"]["images"] == 40
    assert "fullconv train scenes --backbone resnet10t" in model_card(old | {
        "training": model.training, "metrics": model.metrics,
    })  # fmt: skip
