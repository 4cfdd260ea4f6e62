"""Messages: English as text, Chinese from the catalog, and which language is spoken."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import pytest

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import (
    accepted_language,
    format_error,
    join,
    msg,
    nmsg,
    requested_language,
    set_language,
    translate,
)


def test_a_message_is_its_english_text() -> None:
    message = msg("{share:.1%} of {name!r}", share=0.25, name="a b")
    assert message == "25.0% of 'a b'"
    assert isinstance(message, str)
    assert str(FullconvError(message)) == "25.0% of 'a b'"
    assert nmsg("{count} image", "{count} images", 1) == "1 image"
    assert nmsg("{count} image of {n}", "{count} images of {n}", 0, n=5) == "0 images of 5"
    assert join(["a", msg("b {n}", n=1)], ", ") == "a, b 1"
    assert translate("plain") == "plain"
    assert translate(7) == 7


@pytest.mark.usefixtures("chinese")
def test_translation_reaches_the_values_of_a_message() -> None:
    count = nmsg("{count} image", "{count} images", 2)
    inner = join([msg("split {split}", split="val"), count], ", ")
    message = msg("{model} on {data}, {setting}", model="m", data="d", setting=inner)
    assert translate(message) == "m on d, split val, 2 images"
    assert translate(message, "zh") == "m，数据集 d，数据划分 val, 2 张图像"
    set_language("zh")
    assert translate(message) == translate(message, "zh")
    assert format_error(msg("missing argument {name}.", name="DATA"), "x") == (
        "错误：缺少参数 DATA。\n  试试：x"
    )
    assert translate(msg("no such {text}", text=msg("text")), "zh") == "no such 文本"
    assert message == "m on d, split val, 2 images"  # the English text stays


@pytest.mark.usefixtures("chinese")
def test_messages_cross_process_boundaries() -> None:
    for message in (
        msg("head {name}", name="depth"),
        nmsg("{count} thread", "{count} threads", 3),
        join(["a", msg("text")]),
    ):
        copy = pickle.loads(pickle.dumps(message))
        assert copy == message
        assert translate(copy, "zh") == translate(message, "zh")


@pytest.mark.parametrize(
    ("argv", "environ", "language"),
    [
        ([], {}, "en"),
        ([], {"LANG": "zh_CN.UTF-8"}, "zh"),
        ([], {"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ([], {"LC_ALL": "", "LC_MESSAGES": "zh", "LANG": "de_DE"}, "zh"),
        ([], {"LANG": "de_DE.UTF-8"}, "en"),
        (["--lang", "zh", "check"], {"LANG": "en_US"}, "zh"),
        (["check", "--lang=en"], {"LANG": "zh_CN"}, "en"),
        (["check", "--", "--lang", "zh"], {}, "en"),
        (["check", "--lang"], {}, "en"),
    ],
)
def test_requested_language(argv: list[str], environ: dict[str, str], language: str) -> None:
    assert requested_language(argv, environ) == language


def test_a_terminal_that_cannot_show_chinese_gets_english(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "latin-1", "no-such-encoding"):
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding=encoding))
        assert requested_language(["--lang", "zh"], {}) == "en"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("*", "en"),
        ("zh-CN", "zh"),
        ("ZH-Hans-CN,en;q=0.9", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr, zh;q=0.3", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=much", "zh"),
    ],
)
def test_accepted_language(header: str, language: str) -> None:
    assert accepted_language(header) == language
