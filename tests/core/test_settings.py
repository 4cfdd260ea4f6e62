"""Options of training: their ranges, errors and old names, and TOML."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.core.config_file import read_config, to_toml
from fullconv.core.errors import FullconvError
from fullconv.core.settings import CHOICES, RENAMED, Settings, TrainOptions, rename_option
from fullconv.models.migrate import migrate_settings

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# Surrogates are no text: UTF-8 has none.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def round_trip(settings: Settings) -> Settings:
    return Settings.from_dict(tomllib.loads(to_toml({"train": settings.to_dict()}))["train"])


def test_none_is_left_out_and_is_none_again() -> None:
    table = Settings().to_dict()
    assert not {"crop", "lr"} & set(table)
    assert Settings.from_dict(table) == round_trip(Settings()) == Settings()


@given(
    text=TEXTS,
    rate=st.floats(min_value=1e-300, allow_infinity=False),
    low=st.floats(min_value=1e-10, max_value=1),
    high=st.floats(min_value=1, max_value=1e22),
    crop=st.none() | st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
    flip=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_setting_survives_toml(
    text: str, rate: float, low: float, high: float, crop: Any, flip: bool, seed: int
) -> None:
    settings = Settings(backbone=text, lr=rate, scale=(low, high), crop=crop, flip=flip, seed=seed)
    assert round_trip(settings) == settings


@pytest.mark.parametrize(
    "value",
    [
        *('a "quoted" name', "C:\\new\\table", "two\nlines", "\r", "\t", "\x00\x1f\x7f", ""),
        "Straße 路",
        *(1e-10, 1e16, 1e300, 0.1, -0.0, 5e-324),
    ],
)  # fmt: skip
def test_awkward_values_survive_toml(value: str | float) -> None:
    assert tomllib.loads(to_toml({"data": {"root": value}})) == {"data": {"root": value}}


@given(st.lists(TEXTS | FLOATS | st.integers(-(2**63), 2**63 - 1) | st.booleans()))
def test_any_list_of_plain_values_survives_toml(values: list[Any]) -> None:
    loaded = tomllib.loads(to_toml({"a": {"values": values}}))["a"]["values"]
    assert loaded == values
    assert [type(v) for v in loaded] == [type(v) for v in values]


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        *(("epoch", "epochs"), ("learning_rate", "lr"), ("lr0", "lr"), ("imgsz", "crop")),
        *(("freeze", "freeze_backbone"), ("weights", "init_from"), ("optimiser", "optimizer")),
        ("xyzzy", None),
    ],
)
def test_unknown_key_names_ours(key: str, ours: str | None) -> None:
    with pytest.raises(FullconvError) as caught:
        Settings.from_dict({key: 5})
    if ours is None:
        message, hint = f"there is no option {key!r}.", "fullconv train --help"
    else:
        message, hint = f"there is no option {key!r}; use {ours!r}.", f"{ours} = 5"
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_old_configuration_is_refused_with_all_its_new_names() -> None:
    old = {"rate": 0.01, "epochs": 3, "batch": 4, "pictures_every": 5, "start": "runs/first"}
    with pytest.raises(FullconvError) as caught:
        Settings.from_dict(old)
    assert caught.value.message == (
        "some options have new names: rate is now lr, batch is now batch_size, "
        "pictures_every is now log_images_every, start is now init_from."
    )
    lines = 'lr = 0.01\nbatch_size = 4\nlog_images_every = 5\ninit_from = "runs/first"'
    assert caught.value.hint == lines


OLD_VALUES = [
    ("rate", 0.01), ("backbone_rate", 0.01), ("summed_rate", 1e-10), ("bias_rate", 2.0),
    ("stage_rate", 0.5), ("batch", 4), ("start", "runs/first"), ("frozen", True),
    ("accumulate", 2), ("color", 0.3), ("pictures_every", 5), ("inputs", "depth"),
    *(("accelerator", name) for name in ("auto", "cpu", "gpu", "cuda", "mps")),
]  # fmt: skip


@pytest.mark.parametrize(("old", "value"), OLD_VALUES)
def test_the_hint_of_an_old_name_is_accepted(old: str, value: Any) -> None:
    with pytest.raises(FullconvError) as caught:
        Settings.from_dict({old: value})
    table = tomllib.loads(caught.value.hint)
    assert list(table) == [RENAMED[old]]
    assert getattr(Settings.from_dict(table), RENAMED[old]) == rename_option(old, value)[1]
    assert Settings.from_dict(migrate_settings({old: value})) == Settings.from_dict(table)


def test_new_names_exist() -> None:
    names = {option.name for option in fields(Settings)}
    assert set(RENAMED.values()) <= names
    assert not set(RENAMED) & names


def test_keywords_of_train_are_the_settings() -> None:
    assert {option.name: option.type for option in fields(Settings)} == {
        name: hint.__forward_arg__ for name, hint in TrainOptions.__annotations__.items()
    }


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_taken_and_nothing_else(name: str) -> None:
    for value in CHOICES[name]:
        assert getattr(Settings.from_dict({name: value}), name) == value
    wrong = 7 if name == "stride" else "best"
    with pytest.raises(FullconvError) as caught:
        Settings.from_dict({name: wrong})
    assert caught.value.message.startswith(f"{name} is {wrong!r}; it must be one of ")
    assert all(str(value) in caught.value.message for value in CHOICES[name])
    default = getattr(Settings(), name)
    assert caught.value.hint == f"--{name.replace('_', '-')} {default}"


LOGGERS = "it must be tensorboard, wandb, or both"
OUT_OF_RANGE = [
    ("epochs", 0, "epochs is 0; it must be 1 or more", "--epochs 50"),
    ("batch_size", -1, "1 or more", "--batch-size 8"),
    ("devices", 0, "1 or more", "--devices 1"),
    ("nodes", 0, "1 or more", "--nodes 1"),
    ("patience", -1, "0 or more", "--patience 0"),
    ("color_jitter", -0.1, "0 or more", "--color-jitter 0.3"),
    ("workers", -1, "0 or more", "--workers 2"),
    ("weight_decay", -0.1, "0 or more", "--weight-decay 0.002"),
    ("lr", 0, "lr is 0.0; it must be more than 0", "--lr 0.002"),
    ("backbone_lr", -1, "more than 0", "--backbone-lr 0.002"),
    ("seed", -1, "from 0 to 4294967295", "--seed 0"),
    ("seed", 2**32, "from 0 to 4294967295", "--seed 0"),
    ("label_smoothing", 1, "from 0 to below 1", "--label-smoothing 0.0"),
    ("crop", (0, 64), "two sizes of 1 or more", "--crop 321 481"),
    ("scale", (2, 1), "two factors, low to high", "--scale 0.5 2.0"),
    ("scale", (0, 1), "two factors, low to high", "--scale 0.5 2.0"),
    ("logger", "mlflow", f"'mlflow'; {LOGGERS}", "--logger tensorboard"),
    ("logger", "wandb,wandb", LOGGERS, "--logger tensorboard"),
]


@pytest.mark.parametrize(("name", "value", "message", "hint"), OUT_OF_RANGE)
def test_values_out_of_range_are_refused(name: str, value: Any, message: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        Settings.from_dict({name: value})
    assert message in caught.value.message
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('stride = "eight"', "stride is 'eight'; it must be a whole number."),
        ("stride = 8.0", "stride is 8.0; it must be a whole number."),
        ('epochs = "x"', "epochs is 'x'; it must be a whole number."),
        ("epochs = 1.5", "epochs is 1.5; it must be a whole number."),
        ("epochs = true", "epochs is True; it must be a whole number."),
        ('lr = "fast"', "lr is 'fast'; it must be a number."),
        ("lr = nan", "lr is nan; it must be a number."),
        ("lr = inf", "lr is inf; it must be a number."),
        ('flip = "yes"', "flip is 'yes'; it must be true or false."),
        ("flip = 1", "flip is 1; it must be true or false."),
        ("backbone = 18", "backbone is 18; it must be text."),
        ("crop = 64", "crop is 64; it must be two whole numbers."),
        ("crop = [64]", "crop is [64]; it must be two whole numbers."),
        ("crop = [64.5, 64]", "it must be two whole numbers."),
        ('crop = ["a", "b"]', "it must be two whole numbers."),
        ("scale = [1]", "scale is [1]; it must be two numbers."),
        ("scale = []", "scale is []; it must be two numbers."),
        ("seed = 1979-05-27", "it must be a whole number."),
        ("batch_size = {}", "batch_size is {}; it must be a whole number."),
    ],
)
def test_values_of_the_wrong_kind_are_refused(line: str, message: str) -> None:
    with pytest.raises(FullconvError) as caught:
        Settings.from_dict(tomllib.loads(line))
    assert message in caught.value.message
    assert caught.value.hint.startswith(f"--{line.split()[0].replace('_', '-')}")


def test_whole_numbers_lists_paths_and_numpys_numbers_are_taken_as_plain_ones() -> None:
    numbers = {"lr": 1, "scale": [1, np.float32(2)], "crop": [64, np.int64(96)]}
    others = {"epochs": np.int64(3), "backbone": Path("card.toml"), "logger": "wandb, tensorboard"}
    settings = Settings.from_dict({**numbers, **others})
    plain: dict[str, Any] = {"lr": 1.0, "scale": (1.0, 2.0), "crop": (64, 96), "epochs": 3}
    assert settings == Settings(**plain, backbone="card.toml", logger="wandb, tensorboard")
    assert type(settings.epochs) is int
    assert type(settings.scale[1]) is float
    assert round_trip(settings) == settings


def test_a_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    tables = {"data": {"root": "/a b"}, "train": Settings(epochs=3).to_dict()}
    path.write_text(to_toml(tables), encoding="utf-8")
    assert read_config(path)["data"] == {"root": "/a b"}
    assert Settings.from_dict(read_config(path)["train"]) == Settings(epochs=3)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (None, "there is no configuration at", "fullconv train DATA"),
        (b"[train", "is not a TOML file", "[train]\nstride = 8"),
        (b"\xff\xfe", "is not a TOML file", "[train]\nstride = 8"),
        (b"epochs = 5", "has 'epochs' at its top level; expected only", "[train]\nepochs = 5"),
        (b'data = "here"', "has 'data' at its top level", '[train]\ndata = "here"'),
        (b"[training]\nepochs = 5", "has 'training' at its top level", "[train]"),
        (b"[data]\nroot = 5", "root is 5; expected the folder", 'root = "DATA"'),
    ],
)
def test_a_faulty_configuration_is_refused(
    tmp_path: Path, content: bytes | None, message: str, hint: str
) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FullconvError) as caught:
        read_config(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint == hint


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(FullconvError, match="cannot be read: Is a directory") as caught:
        read_config(tmp_path)
    assert caught.value.hint == "fullconv train --config RUN/config.toml"
