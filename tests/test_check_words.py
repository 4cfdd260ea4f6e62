"""tools/check_words.py finds the words of STYLE.md, and the repository has none of them."""

from __future__ import annotations

import pytest
from scripts import script

words = script("tools/check_words.py", "check_words")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A picture of a street.", "picture"),
        ("Two data sets\nand their colours.", "data sets"),
        ("It lies in the folder.", "lies in"),
        ("Folders, with commas.", "with commas"),
        ("This is said once.", "is said"),
        ("Mend the trunk.", "Mend"),
    ],
)
def test_a_word_is_found_with_its_line(text: str, word: str) -> None:
    line, found_word, better = next(words.words_in(text))
    assert (line, found_word) == (1, word)
    assert better


@pytest.mark.parametrize(
    "text", ["`picture.png` and `data set`", "Recommend a truncated colored set."]
)
def test_code_and_similar_words_are_exempt(text: str) -> None:
    assert list(words.words_in(text)) == []


def test_python_is_checked_for_docstrings_comments_strings_and_variables() -> None:
    source = '''
def name_of(found):
    """Of an image."""
    one = "a picture"  # lies in a folder
    trunk_size = 3
    return one
'''
    hits = [hit for _, hit, _ in words.hits_in_python(source)]
    assert sorted(hits) == sorted(
        [
            "docstring begins with Of",
            "variable found",
            "variable one",
            "picture",
            "lies in",
            "trunk",
        ]
    )
    clean = 'def area(mask):\n    """Return the area in pixels."""\n    total = mask.sum()\n'
    assert list(words.hits_in_python(clean)) == []


@pytest.mark.slow
def test_the_source_and_the_documentation_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert words.main([]) == 0
    assert capsys.readouterr().out == "clean\n"


def test_only_the_words_that_a_file_needs_are_allowed() -> None:
    for name, allowed in words.ALLOWED.items():
        text = (words.ROOT / name).read_text(encoding="utf-8")
        assert allowed <= {word.lower() for _, word, _ in words.hits_in_python(text)}
