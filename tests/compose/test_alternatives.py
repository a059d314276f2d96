"""Alternatives of regular expressions: which are found, and that each pattern matches by way of its own alone."""

import itertools
import re

import pytest

from gradtx.compose.alternatives import alternatives


def texts(pattern: str) -> list[str]:
    return [text for text, _ in alternatives(re.compile(pattern))]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", []),
        ("a|b", ["a", "b"]),
        ("(?i)a|b", ["a", "b"]),
        (".*/(bias|scale)", ["bias", "scale"]),
        ("x(?:a|(?P<n>b|c)d)+y|z", ["b", "c", "a", "(?P<n>b|c)d", "x(?:a|(?P<n>b|c)d)+y", "z"]),
        ("(a|)b", ["a"]),
        (r"\(a\|b\)|[|(]c[]|]|[^]|]", [r"\(a\|b\)", "[|(]c[]|]", "[^]|]"]),
        ("(?#a|b)c", []),
        ("(?!.*(a|b)).*|c", ["(?!.*(a|b)).*", "c"]),
        ("(?<!a|b)c", []),
        ("(?=a|b).(?<=a|b)(?i:A|B)?", ["a", "b", "a", "b", "A", "B"]),
        ("(?P<n>a|b)(?P=n)", ["a", "b"]),
        (r"(a|b)\1", []),
        ("(a)?(?(1)b|c)", []),
        ("(?x) a | b  # c | d", []),
        ("(?x: a | b )", []),
    ],
)
def test_what_is_found(pattern: str, expected: list[str]) -> None:
    assert texts(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "word", "used"),
    [
        ("(a|b)+", "ab", ["a", "b"]),
        ("(a|b)+", "aa", ["a"]),
        ("(a|ab)(c|bc)", "abc", ["a", "ab", "c", "bc"]),
        ("(a|b)?c", "c", []),
        ("(a|b)*?c|d", "bc", ["b", "(a|b)*?c"]),
        ("(?i)(A|b)c", "aC", ["A"]),
        ("(?=.*(a|b)).*", "xb", ["b"]),
    ],
)
def test_a_pattern_matches_by_way_of_its_alternative(pattern: str, word: str, used: list[str]) -> None:
    assert [text for text, marked in alternatives(re.compile(pattern)) if marked.fullmatch(word)] == used


@pytest.mark.parametrize("pattern", ["a|b|ab", "(a|b)(b|a)?", "((a|ab)|b)*", "(?:a|(?:b|c)+)a|(?P<x>b|)c", "(?P<n>a|b).*(?P=n)"])
def test_a_word_matches_by_way_of_some_alternative(pattern: str) -> None:
    """On all short words: no alternative matches what the whole does not, and what the whole matches some alternative does."""
    whole, top = re.compile(pattern), alternatives(re.compile(pattern))
    for word in map("".join, itertools.chain.from_iterable(itertools.product("abc", repeat=n) for n in range(1, 5))):
        by_way = any(marked.fullmatch(word) for _, marked in top)
        assert by_way == bool(whole.fullmatch(word)), word
