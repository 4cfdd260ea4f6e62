from __future__ import annotations

import io
import itertools
import re
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fullconv.cli import main as cli
from fullconv.core import i18n as language
from fullconv.core.i18n import (
    Hole,
    Translation,
    format_error,
    pieces_of,
    requested_language,
    variants,
)

TABLE = language.read_table("zh")
ZH = language.translation("zh")
assert ZH is not None
TEMPLATES = [
    (kind, english, entry["zh"])
    for kind in language.KINDS
    for entry in TABLE.get(kind, ())
    for english in variants(entry)
]
OPEN = [t for t in TEMPLATES if any(isinstance(piece, Hole) for piece in pieces_of(t[1]))]


def holes(text: str) -> list[Hole]:
    return [piece for piece in pieces_of(text) if isinstance(piece, Hole)]


def filled(text: str, values: dict[str, str]) -> str:
    return "".join(p if isinstance(p, str) else values[p.name] for p in pieces_of(text))


def small(**kinds: list[tuple[str, str]]) -> Translation:
    table = {kind: [{"en": en, "zh": zh} for en, zh in rows] for kind, rows in kinds.items()}
    return Translation(table, "zh")


@pytest.mark.parametrize(("kind", "english", "chinese"), TEMPLATES)
def test_a_translation_has_the_values_of_its_text(kind: str, english: str, chinese: str) -> None:
    """Words may be left out, where Chinese needs none: `is`, `occurs`."""
    named = [hole.name for hole in holes(english)]
    values = {hole.name for hole in holes(english) if not hole.words}
    used = {hole.name for hole in holes(chinese)}
    assert len(set(named)) == len(named), f"one name for two holes: {english}"
    assert values <= used <= set(named), f"{english} -> {chinese}"


def test_no_english_text_is_translated_twice() -> None:
    def shape(english: str) -> tuple[Any, ...]:
        return tuple(p if isinstance(p, str) else None for p in pieces_of(english))

    shapes = [shape(english) for kind, english, _ in TEMPLATES]
    twice = {one for one in shapes if shapes.count(one) > 1}
    assert not twice


def test_no_two_holes_stand_side_by_side() -> None:
    """It would be open where one ends."""
    for _, english, _ in TEMPLATES:
        pieces = pieces_of(english)
        pairs = itertools.pairwise(pieces)
        assert not any(isinstance(a, Hole) and isinstance(b, Hole) for a, b in pairs), english


VALUES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.sampled_from(["data/a b.png", "C:\\x", "{0}", "'街景'", "a\nb", "第 1 行", "x, y", "0.5"]),
)
# What no text of ours is, nor a row of them.
WORDS = st.text("街景数据0123456789_%{}'", min_size=1, max_size=8)


@given(data=st.data())
@settings(max_examples=400)
def test_a_filled_template_gives_the_filled_translation(data: st.DataObject) -> None:
    _, english, chinese = data.draw(
        st.sampled_from([t for t in OPEN if t[0] in ("messages", "hints", "lines")])
    )
    values = {
        hole.name: data.draw(
            st.integers(0, 10**6).map(str) if hole.counts else WORDS if hole.words else VALUES
        )
        for hole in holes(english)
    }
    text = filled(english, values)
    # Where values hold the words around them, it is open which is which.
    assume(_is_only_reading(english, text))
    assert ZH is not None
    got = ZH.text(text)
    if sum(c.isalpha() for c in "".join(p for p in pieces_of(english) if isinstance(p, str))) < 6:
        return  # known by the words in its holes alone: see below
    assert got == filled(chinese, values)


def _is_only_reading(english: str, text: str) -> bool:
    """By regular expressions, which take as little as they can for each hole, and as much."""
    readings = []
    for any_ in ("(.+?)", "(.+)"):
        parts = [re.escape(p) if isinstance(p, str) else any_ for p in pieces_of(english)]
        found = re.fullmatch("".join(parts), text, re.DOTALL)
        readings.append(found and found.groups())
    return readings[0] is not None and readings[0] == readings[1]


@pytest.mark.parametrize(("kind", "english", "chinese"), OPEN)
def test_each_template_is_told_from_all_others(kind: str, english: str, chinese: str) -> None:
    """Filled with plain values it is not taken for another one."""
    letters = "".join(p for p in pieces_of(english) if isinstance(p, str))
    if sum(map(str.isalpha, letters)) < 6:
        pytest.skip("known by the words in its holes alone")
    values = {
        hole.name: str(number + 7) if hole.counts else f"v{number}"
        for number, hole in enumerate(holes(english))
    }
    assert ZH is not None
    inside = kind in ("words", "system")
    known = ZH._known(filled(english, values), inside, 0)
    assert known is not None
    assert known.text == filled(chinese, values)


def test_words_in_holes_are_translated_and_values_are_not() -> None:
    into = small(
        messages=[("there is no {what~} {path} here.", "没有{what} {path}。")],
        words=[("mask", "掩码"), ("{count} mask", "{count} 个掩码")],
    )
    assert into.text("there is no mask mask here.") == "没有掩码 mask。"
    assert into.text("there is no file mask here.") == "没有file mask。"


def test_a_count_is_a_number() -> None:
    into = small(messages=[("{count} files are lost.", "丢失 {count} 个文件。")])
    assert into.text("7 files are lost.") == "丢失 7 个文件。"
    assert into.text("my files are lost.") == "my files are lost."


def test_the_template_that_says_most_wins_together_with_its_words() -> None:
    into = small(
        messages=[
            ("{path}, shape {number}: {message~}", "{path}，形状 {number}：{message}"),
            ("{path} cannot be read: {error}.", "{path} 无法读取：{error}。"),
        ]
    )
    said = "a.json, shape 1: b.png cannot be read: it is empty."
    assert into.text(said) == "a.json，形状 1：b.png 无法读取：it is empty。"


def test_what_is_not_known_stays_as_it_is() -> None:
    into = small(messages=[("{path}: {message~}", "{path}: {message}")])
    assert into.text("a: b") == "a: b"
    assert into.text("line one\nline two") == "line one\nline two"


def test_a_command_stays_and_its_comment_is_translated() -> None:
    into = small(hints=[("or another folder", "或另一个文件夹")])
    assert into.text("df -h   # or another folder") == "df -h   # 或另一个文件夹"


def test_braces_and_quotes_in_values_stay() -> None:
    into = small(messages=[("no folder {path} is there.", "没有文件夹 {path}。")])
    assert into.text("no folder {a}'\"\n{{b}} is there.") == "没有文件夹 {a}'\"\n{{b}}。"


@pytest.mark.parametrize(
    ("words", "environ", "language_"),
    [
        ([], {}, "en"),
        ([], {"LANG": "zh_CN.UTF-8"}, "zh"),
        ([], {"LANG": "zh_TW"}, "zh"),
        ([], {"LANG": "zh_SG.utf8@x"}, "zh"),
        ([], {"LANG": "de_DE.UTF-8"}, "en"),
        ([], {"LANG": "zh_CN", "LC_ALL": "C"}, "en"),
        ([], {"LANG": "C", "LC_MESSAGES": "zh_CN"}, "zh"),
        ([], {"LANG": "zh_CN", "LC_ALL": ""}, "zh"),
        (["--lang", "zh", "check"], {"LANG": "C"}, "zh"),
        (["check", "--lang=en"], {"LANG": "zh_CN"}, "en"),
        (["check", "--", "--lang=zh"], {}, "en"),
        (["check", "--lang"], {}, "en"),
    ],
)
def test_the_language_of_a_command_line(
    words: list[str], environ: dict[str, str], language_: str
) -> None:
    assert requested_language(words, environ) == language_


def test_english_where_the_terminal_cannot_print_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert requested_language(["--lang", "zh"], {}) == "en"


MISTAKES = [
    (["check", "gone"], "没有文件夹 gone", "ls "),
    (["predict", "gone", "a.jpg"], "没有图像或文件夹 a.jpg", "fullconv predict MODEL photo.jpg"),
    (["chek"], '未知的命令 "chek"', "fullconv --help"),
    (["check"], "缺少 DATA", "fullconv check DATA"),
    (["check", "a", "b"], "多余的词：b", "fullconv check --help"),
    (["check", "--foo"], "未知的选项：--foo", "fullconv check --help"),
    (["evaluate", "a", "b", "--split", "x"], "无效", "fullconv evaluate --help"),
    (["train", "x", "--epochs", "a"], "整数", "fullconv train --help"),
    (["train", "x", "--epochs"], "需要一个值", "fullconv train --help"),
    (["convert", "gone", "out"], "没有文件夹或文件 gone", "ls "),
    (["heatmap", "resnet18", "gone.png", "--top", "0"], "--top 为 0", "--top 5"),
]


@pytest.mark.parametrize("words", ["option", "environment"])
@pytest.mark.parametrize(("argv", "chinese", "pasted"), MISTAKES)
def test_real_mistakes_in_chinese(
    argv: list[str],
    chinese: str,
    pasted: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in language.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    code = cli.run(argv)
    english = capsys.readouterr().err
    if words == "option":
        again = cli.run([*argv, "--lang", "zh"])
    else:
        monkeypatch.setenv("LANG", "zh_CN.UTF-8")
        again = cli.run(argv)
    told = capsys.readouterr().err
    language.speak("en")
    assert (code, again) == (1, 1)
    assert told.startswith("错误：")
    assert chinese in told
    line = english.strip().splitlines()[-1].removeprefix("  try: ").partition("   # ")[0]
    assert line.startswith(pasted)
    assert f"试试：{line}" in told


def test_results_in_json_are_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["doctor", "--json"])
    english = capsys.readouterr().out
    cli.run(["doctor", "--json", "--lang", "zh"])
    language.speak("en")
    told = capsys.readouterr().out
    numbers = re.compile(r"[\d.]+")  # what is free differs from one time to the next
    assert numbers.sub("", told) == numbers.sub("", english)


def test_a_report_in_chinese(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from fullconv.data.synthetic import scenes as drawn

    root = drawn.write(tmp_path / "scenes", train=2, val=1, test=0, size=(48, 64))
    (root / "images/train/street_0000.png").unlink(missing_ok=True)
    for path in list((root / "images/train").iterdir())[:1]:
        path.unlink()
    assert cli.run(["check", str(root), "--lang", "zh"]) == 0
    language.speak("en")
    out = capsys.readouterr().out
    assert "警告 unpaired-mask：略去：1 个掩码没有同名的图像。" in out
    assert "图像：train 1, val 1" in out
    assert "下一步：fullconv train" in out
    for line in out.splitlines():
        if not line.startswith(("下一步", "    ", "  fullconv")):
            assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", line), line


def test_a_failure_keeps_what_it_does_not_know() -> None:
    language.speak("zh")
    told = format_error("something strange: \x01 {}.", "xyz --foo")
    language.speak("en")
    assert told == "错误：something strange: \x01 {}.\n  试试：xyz --foo"
