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
    assert "was trained on a module of your own (Tied); a model holds no code" in error.message
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


# What may be wrong with a folder. Each message is read whole.


def test_nothing_there(tmp_path: Path) -> None:
    error = refused(tmp_path / "gone")
    assert error.message == (
        f"no model at {tmp_path / 'gone'}: nothing there; expected model.safetensors and "
        "config.json."
    )
    assert error.hint == "fullconv train DATA"


def test_what_is_near_is_proposed(tmp_path: Path, original: Model) -> None:
    """Runs in the folder, the last first; beside a name that is wrong the most alike first."""
    for number, name in enumerate(("crack", "roads", "cracks")):
        save_model(original, tmp_path / "my runs" / name / "model")
        os.utime(tmp_path / "my runs" / name, (number, number))
    (tmp_path / "my runs" / "notes").mkdir()
    runs = tmp_path / "my runs"
    error = refused(runs)
    listed = ", ".join(str(runs / name) for name in ("cracks", "roads", "crack"))
    assert error.message.endswith(f"config.json. There are models at {listed}.")
    assert error.hint == f"fullconv inspect '{runs / 'cracks'}'"
    error = refused(runs / "road")
    assert error.message.startswith(f"no model at {runs / 'road'}: nothing there; expected ")
    assert error.hint == f"fullconv inspect '{runs / 'roads'}'"
    assert refused(runs / "notes").hint == "fullconv train DATA"  # that is no misspelt name


def test_an_empty_folder(tmp_path: Path) -> None:
    assert (
        f"no model at {tmp_path}: the folder holds nothing; expected" in refused(tmp_path).message
    )


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no model at .: the folder holds nothing; expected" in refused(Path()).message


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    assert "the folder holds 0.txt, 1.txt, 2.txt, " in refused(tmp_path).message
    assert "7.txt, ...; expected model.safetensors" in refused(tmp_path).message


def test_a_run_that_has_not_saved_a_model_yet(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    (tmp_path / "checkpoint").mkdir()
    assert "the folder holds checkpoint, config.toml; expected" in refused(tmp_path).message


def test_the_weights_are_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for path in (folder, folder.parent):
        assert (
            "the folder holds README.md, config.json; expected model.saf" in refused(path).message
        )


def test_config_json_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    error = refused(folder)
    assert error.message == (
        f"{folder} has no config.json; a model folder holds model.safetensors, config.json and "
        "README.md."
    )
    # The hint works.
    weights = folder / "model.safetensors"
    assert error.hint == f"fc.load({str(weights)!r})   # the weights describe themselves"
    assert load_model(weights).labels.names == ("sky", "road", "tree")


def test_the_model_card_is_not_needed(folder: Path) -> None:
    (folder / "README.md").unlink()
    load_model(folder)


@pytest.mark.parametrize("position", [-1, -1000, 200_000])
def test_one_bit_of_the_weights_was_altered(folder: Path, position: int) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[position] ^= 1
    weights.write_bytes(content)
    error = refused(folder)
    assert error.message == (
        f"{weights} was altered or does not belong to its config.json: the checksums differ."
    )
    assert error.hint == "copy the whole model folder again"


def test_config_json_was_altered(folder: Path) -> None:
    config = folder / "config.json"
    table = json.loads(config.read_text())
    table["classes"][0] = "water"
    table["mean"] = [0, 0, 0]
    config.write_text(json.dumps(table))
    error = refused(folder)
    assert error.message == (
        f"{config} was altered: classes, mean differ from what the weights say."
    )
    assert "fc.load(" in error.hint


def test_config_json_has_a_key_more(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "more": 1}))
    assert "config.json was altered: its keys differ" in refused(folder).message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON: Expecting property name"),
        (b"", "is not JSON: Expecting value"),
        (b"\xff\xfe", "is not JSON: 'utf-8' codec can't decode"),
        (b"[]", "is not JSON: expected an object, found list"),
    ],
)
def test_config_json_is_no_json(folder: Path, content: bytes, said: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert f"{folder / 'config.json'} {said}" in refused(folder).message


def test_a_format_of_the_future(folder: Path) -> None:
    rewritten(folder, lambda table: table.update(format="fullconv/2"))
    for path in (folder, folder / "model.safetensors"):
        error = refused(path)
        assert "has format 'fullconv/2'; this version reads 'fullconv/1'." in error.message
        assert error.hint == "git pull && make install"


def test_a_format_of_the_future_that_keeps_its_checksum_elsewhere(folder: Path) -> None:
    rewritten(folder, lambda table: table.update(format="fullconv/2"))
    (folder / "config.json").write_text("{}")
    assert "has format 'fullconv/2'" in refused(folder).message


@pytest.mark.parametrize(
    "key", ["backbone", "classes", "num_classes", "stride", "upsampling", "metrics", "training"]
)
def test_the_description_lacks_a_key(folder: Path, key: str) -> None:
    rewritten(folder, lambda table: table.pop(key))
    error = refused(folder)
    assert f"the description in {folder / 'model.safetensors'} is incomplete: " in error.message
    assert repr(key) in error.message


def test_the_description_has_a_strange_backbone(folder: Path) -> None:
    rewritten(folder, lambda table: table["backbone"].update(colour="red"))
    assert "is incomplete: TypeError" in refused(folder).message
    assert "colour" in refused(folder).message


def test_the_description_is_of_another_network(folder: Path) -> None:
    rewritten(folder, lambda table: table.update(num_classes=4))
    error = refused(folder)
    assert "does not fit the FCN-8s on test_resnet that it is said to be" in error.message
    assert "size mismatch for score" in error.message
    assert error.hint == "copy the whole model folder again"


@pytest.mark.parametrize("described", ["no json", "[]", "5"])
def test_the_description_in_the_header_is_no_object(folder: Path, described: str) -> None:
    weights = folder / "model.safetensors"
    save_file({"a": torch.zeros(1)}, weights, {"fullconv": described})
    message = refused(folder).message
    assert message == f"the description in the header of {weights} is not a JSON object."


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, path, metadata)
    error = refused(path)
    assert error.message == (
        f"{path} holds weights but no fullconv model (no description in its header)."
    )
    assert "in a backbone card" in error.hint


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_file(folder: Path, kept: int) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:kept])
    error = refused(folder)
    assert f"{weights} is damaged or not a .safetensors file: " in error.message
    assert error.hint == "fullconv train DATA"


def test_a_photo_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(1000))
    assert "is damaged or not a .safetensors file" in refused(path).message


def test_a_pickle_is_no_model_of_ours(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "model.pt")
    assert (
        "no model that labels pixels and is known: its layers are a;"
        in refused(tmp_path / "model.pt").message
    )
    torch.save({"a": nn.Linear(1, 1)}, tmp_path / "model.safetensors")  # by content, not by name
    assert "a pickle that needs code" in refused(tmp_path / "model.safetensors").message


# Writing in place of the model that is there.


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
        assert "the last saving was interrupted" in error.message
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
