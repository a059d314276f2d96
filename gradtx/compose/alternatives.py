"""The alternatives `a|b` of a regular expression, each as a pattern that needs it to match."""

import functools
import re

_TOKEN = re.compile(
    r"""(?P<plain> \\\D | \[\^?\]?(?:\\.|[^\]\\])*\] | \(\?\#[^)]*\) | \(\?P=\w+\) | \(\?[aiLmsux]+\) )
      | (?P<number> \\\d | \(\?\( )
      | (?P<open> \( (?: \? (?: P<\w+> | <?[=!] | > | [aiLmsux]*(?:-[imsx]+)?: ) )? )
      | (?P<bar> \| )
      | (?P<close> \) )
      | (?P<other> . )""",
    re.VERBOSE | re.DOTALL,
)
_MARK = "gradtx_alternative"


@functools.lru_cache(maxsize=512)
def alternatives(pattern: re.Pattern[str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """The texts of all nonempty alternatives, at the top and in groups, and for each a pattern.

    That pattern matches what the whole matches by way of this alternative: an empty group marks its
    end, and the match fails unless that group was passed. Alternatives of negative lookarounds are
    left out, since they match by failing. Of a verbose pattern, and of one with numbered references
    or conditions, none are given: their text cannot be split or marked safely.
    """
    text = re.sub(r"^\(\?[aiLmsux]+\)", "", pattern.pattern)
    if pattern.flags & re.VERBOSE:
        return ()
    return tuple(
        (text[start:end], re.compile(f"(?:{text[:end]}(?P<{_MARK}>){text[end:]})(?({_MARK})|(?!))", pattern.flags))
        for start, end in _spans(text)
    )


def _spans(text: str) -> list[tuple[int, int]]:
    """Where the alternatives are that may be marked, the outer ones last."""
    found: list[tuple[int, int]] = []
    # Of each group: whether it, or one around it, is negative, and where its alternatives start.
    groups: list[tuple[bool, list[int]]] = [(False, [0])]
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "number":
                return []
            case "open":
                if "x" in token[0] and token[0].endswith(":"):
                    return []
                groups.append((groups[-1][0] or token[0].endswith("!"), [token.end()]))
            case "bar":
                groups[-1][1].append(token.end())
            case "close":
                found += _of_group(*groups.pop(), token.start())
    return found + _of_group(*groups.pop(), len(text))


def _of_group(negative: bool, starts: list[int], end: int) -> list[tuple[int, int]]:
    spans = zip(starts, [*(start - 1 for start in starts[1:]), end], strict=True)
    return [] if negative or len(starts) == 1 else [(start, stop) for start, stop in spans if start < stop]
