"""Models on disk: saved, loaded, damaged and replaced."""

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
from functools import partial
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
    """A copy of the original in the folder of a run."""
    return Path(shutil.copytree(saved, tmp_path / "run" / "model"))


@pytest.fixture(scope="module")
def other(make_model: MakeModel) -> Model:
    return make_model(seed=1)


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the description in all three places."""
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


def assert_round_trip(model: Model, folder: Path) -> Model:
    """Save and load a model, and compare everything that it stores and computes."""
    loaded = load_model(save_model(model, folder))
    assert same(loaded.network, model.network)
    assert not loaded.network.training
    assert loaded.config() == model.config()
    assert (loaded.labels, loaded.card) == (model.labels, model.card)
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        assert torch.equal(loaded.network(image).full(), model.network(image).full())
    return loaded


@pytest.mark.parametrize("upsampling", ["bilinear", "learned_skips", "learned"])
@pytest.mark.parametrize("stride", [8, 32])
def test_a_loaded_model_equals_the_saved_one(
    make_model: MakeModel, tmp_path: Path, upsampling: str, stride: int
) -> None:
    names, colors = ("Straße", 'a "b"', "路"), ((1, 2, 3), (0, 0, 0), (255, 254, 253))
    options = {"upsampling": upsampling, "stride": stride}
    model = make_model(names, colors=colors, training={"a": [1, None]}, metrics=METRICS, **options)
    loaded = assert_round_trip(model, tmp_path / "model")
    assert (loaded.network.stride, loaded.network.upsampling) == (stride, upsampling)
    assert (loaded.training, loaded.metrics) == ({"a": [1, None]}, METRICS)


def test_less_common_fields_are_kept(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    model.network = FCN(model.card, 3, stride=8, border="zeros", placement="half_pixel").eval()
    model.labels = Labels(model.labels.names, ignore_index=9)
    model.short_side = 33
    model.card = BackboneCard(
        "timm", "test_resnet", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 1 / 3), license="MIT"
    )
    loaded = assert_round_trip(model, tmp_path / "model")
    assert (loaded.network.border, loaded.network.backbone.placement) == ("zeros", "half_pixel")
    assert (loaded.labels.ignore_index, loaded.short_side) == (9, 33)


def test_models_before_border_and_placement(folder: Path) -> None:
    rewritten(folder, lambda table: (table.pop("border"), table.pop("placement")))
    network = load_model(folder).network
    assert (network.border, network.backbone.placement) == ("replicate", "exact")


def test_images_are_normalized_by_the_card(make_model: MakeModel) -> None:
    model = make_model()
    model.card = BackboneCard("timm", "test_resnet", mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 3, 4, 3)
    normalized = model.normalize(images)
    assert (normalized.dtype, normalized.shape) == (torch.float32, (2, 3, 4, 3))
    for channel, (mean, std) in enumerate([(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)]):
        expected = [(x - mean) / std for x in (0.0, 0.2, 1.0)]
        assert normalized[1, channel, 2].tolist() == pytest.approx(expected)


def test_memory_format_and_training_mode_do_not_change_the_file(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model()
    plain = (save_model(model, tmp_path / "plain") / "model.safetensors").read_bytes()
    model.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    last = (save_model(model, tmp_path / "last") / "model.safetensors").read_bytes()
    assert last == plain
    assert model.network.training


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


def test_a_module_with_a_shared_tensor_is_saved_and_required_to_load(tmp_path: Path) -> None:
    model = Model(FCN(Tied(), 2, stride=8), Labels(("a", "b")), BackboneCard("module", "Tied"))
    path = save_model(model, tmp_path / "model")
    assert same(load_model(path, backbone=Tied()).network, model.network)
    error = refused(path)
    assert "was trained on a module of your own (Tied); a model contains no code" in error.message
    assert error.hint == f"fc.load({str(path)!r}, backbone=Tied())"


def test_the_folder_contains_no_code(folder: Path, original: Model) -> None:
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
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(original.config())


def test_loading_needs_no_internet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert load_model(folder).labels.names == ("sky", "road", "tree")


def test_a_run_a_folder_and_the_file_alone_load(folder: Path, original: Model) -> None:
    expected = original.network
    for path in (folder, folder.parent, folder / "model.safetensors", str(folder)):
        assert same(load_model(path).network, expected)
    alone = folder.parent / "renamed.safetensors"
    shutil.move(folder / "model.safetensors", alone)
    shutil.rmtree(folder)
    assert same(load_model(alone).network, expected)


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


def truncate(folder: Path, size: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])


def write_weights(folder: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors", metadata)


def write_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)


def remove_key(folder: Path, key: str) -> None:
    rewritten(folder, lambda table: table.pop(key))


def future_format(folder: Path) -> None:
    rewritten(folder, lambda table: table.update(format="fullconv/2"))


Damage = Callable[[Path], Any]
DAMAGES: list[tuple[Damage, str, str]] = [
    (shutil.rmtree, "no model at {folder}: it does not exist.", "fullconv train DATA"),
    (lambda f: [path.unlink() for path in f.iterdir()],
     "no model at {folder}: the folder is empty.", "fullconv train DATA"),
    (lambda f: (f / "model.safetensors").unlink(),
     "the folder contains README.md, config.json; expected model.safetensors and config.json.",
     "fullconv train DATA"),
    (lambda f: (f / "config.json").unlink(),
     "{folder} has no config.json; a model folder contains model.safetensors, config.json and",
     "fc.load('{folder}/model.safetensors')   # the weights describe themselves"),
    *((partial(flip_bit, position=position),
       "model.safetensors was altered or does not belong to its config.json: the checksums",
       "copy the whole model folder again") for position in (-1, -1000, 200_000)),
    (lambda f: edit_config(f, lambda t: t.update(classes=["a", "b", "c"], mean=[0, 0, 0])),
     "was altered: it differs from the header of the weights in classes, mean.", "fc.load("),
    (lambda f: edit_config(f, lambda t: t.update(more=1)), "of the weights in more.", "fc.load("),
    (lambda f: write_config(f, b"{"), "is not a JSON object: Expecting property name", "fc.load("),
    (lambda f: write_config(f, b""), "is not a JSON object: Expecting value", "fc.load("),
    (lambda f: write_config(f, b"\xff\xfe"), "is not a JSON object: 'utf-8' codec", "fc.load("),
    (lambda f: write_config(f, b"[]"), "is not a JSON object: list []", "fc.load("),
    (future_format, "has format 'fullconv/2'; this version reads 'fullconv/1'.",
     "git pull && make install"),
    (lambda f: (future_format(f), write_config(f, b"{}")), "has format 'fullconv/2'", "git pull"),
    *((partial(remove_key, key=key),
       f"the description in {{folder}}/model.safetensors is incomplete (KeyError '{key}')",
       "copy the model again, or fullconv train DATA")
      for key in ("backbone", "classes", "num_classes", "stride", "metrics", "training")),
    (lambda f: rewritten(f, lambda table: table["backbone"].update(color="red")),
     "is incomplete (TypeError ", "copy the model again"),
    (lambda f: rewritten(f, lambda table: table.update(num_classes=4)),
     "do not fit its description, FCN-8s on test_resnet: ", "copy the whole model folder again"),
    *((partial(write_weights, metadata={"fullconv": text}),
       "the description in the header of {folder}/model.safetensors is not a JSON object.",
       "copy the model again") for text in ("no json", "[]", "5")),
    *((partial(write_weights, metadata=metadata),
       "contains weights but is not a fullconv model: its header has no description.",
       'weights = "FILE.safetensors"') for metadata in (None, {"format": "pt"})),
    *((partial(truncate, size=size),
       "{folder}/model.safetensors is damaged or not a .safetensors file: ",
       "fullconv train DATA") for size in (0, 4, 100, 5000, -1)),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message", "hint"), DAMAGES)
def test_damaged_folders(folder: Path, damage: Damage, message: str, hint: str) -> None:
    damage(folder)
    error = refused(folder)
    assert message.format(folder=folder) in error.message
    assert hint.format(folder=folder) in error.hint


def test_a_missing_card_is_no_damage(folder: Path) -> None:
    (folder / "README.md").unlink()
    load_model(folder)


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


def test_a_saved_model_replaces_the_previous_one_and_leftovers(folder: Path, other: Model) -> None:
    for end in (".new", ".old"):
        leftover = folder.with_name(f"model{end}")
        leftover.mkdir()
        (leftover / "rest").write_text("half")
    save_model(other, folder)
    assert same(load_model(folder).network, other.network)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Limit the size of files: the kernel refuses more, for root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def failing(owner: Any, name: str, error: BaseException, nth: int) -> Iterator[None]:
    """Raise an error in the nth call of a function."""
    calls, function = [], getattr(owner, name)

    def fail(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == nth:
            raise error
        return function(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield


NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
IO_ERROR = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        *((partial(small_disk, size), "File too large") for size in (0, 1000, 1_000_000)),
        *((partial(failing, os, "fsync", NO_SPACE, n), NO_SPACE.strerror) for n in (1, 2, 3)),
        *((partial(failing, Path, "rename", IO_ERROR, n), IO_ERROR.strerror) for n in (1, 2)),
    ],
)
def test_a_failure_to_save_costs_the_new_model_only(
    folder: Path, other: Model, original: Model, failure: Any, reason: str
) -> None:
    with pytest.raises(FullconvError) as caught, failure():
        save_model(other, folder)
    assert caught.value.message == (
        f"the model could not be written to {folder}: {reason}. The previous model in {folder} is "
        "untouched."
    )
    assert caught.value.hint == "df -h"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]
    assert same(load_model(folder).network, original.network)


def test_a_failure_to_save_without_a_previous_model(other: Model, tmp_path: Path) -> None:
    with pytest.raises(FullconvError) as caught, small_disk(1000):
        save_model(other, tmp_path / "model")
    assert caught.value.message.endswith("File too large.")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError, match=r"could not be written to .*Not a directory"):
        save_model(other, tmp_path / "file" / "model")


def test_the_hint_restores_a_model_after_an_interruption_between_the_renames(
    folder: Path, other: Model, original: Model
) -> None:
    with pytest.raises(KeyboardInterrupt), failing(Path, "rename", KeyboardInterrupt(), 2):
        save_model(other, folder)
    assert not folder.exists()
    for path in (folder, folder.parent):
        error = refused(path)
        assert "saving was interrupted" in error.message
        assert error.hint == f"mv {folder.with_name('model.old')} {folder}"
    _, source, target = error.hint.split()
    shutil.move(source, target)
    assert same(load_model(folder).network, original.network)
    # Saving again also restores it, whether or not that succeeds.
    shutil.move(target, source)
    with pytest.raises(FullconvError), small_disk(1000):
        save_model(other, folder)
    assert same(load_model(folder).network, original.network)
    save_model(other, folder)
    assert same(load_model(folder).network, other.network)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]


def test_a_model_of_version_0_1(folder: Path) -> None:
    old = json.loads((Path(__file__).with_name("old") / "config.json").read_text())
    rewritten(folder, lambda t: t.update(training=old["training"], metrics=old["metrics"]))
    model = load_model(folder)
    assert model.training["data"]["images"]["train"] == 330
    assert model.training["settings"]["lr"] == 0.003
    assert model.metrics["protocol"]["images"] == 40
    assert "fullconv train scenes --backbone resnet10t" in model_card(old | {
        "training": model.training, "metrics": model.metrics,
    })  # fmt: skip
