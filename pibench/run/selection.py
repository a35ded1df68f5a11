"""`-k EXPRESSION`, as pytest has it: words that occur in the case's id, with `and`, `or`, `not` and parentheses."""

from __future__ import annotations

import re

from pibench.errors import UsageError

_TOKEN = re.compile(r"\s*(?:(\(|\))|([^\s()]+))")
_REMEDY = "write words and `and`, `or`, `not`, parentheses, such as -k 'masked and not wan'"
MAX_TOKENS = 200


def matches(expression: str, text: str) -> bool:
    """Return whether the expression holds for the text (case does not matter)."""
    tokens = [a or b for a, b in _TOKEN.findall(expression)]
    if not tokens or len(tokens) > MAX_TOKENS:
        raise UsageError(f"the expression {expression[:80]!r} is empty or too long", where="-k", remedy=_REMEDY)
    value, rest = _either(tokens, text.lower())
    if rest:
        raise UsageError(f"{expression!r} makes no sense from {rest[0]!r} on", where="-k", remedy=_REMEDY)
    return value


def _either(tokens: list[str], text: str) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, text)
    while tokens and tokens[0].lower() == "or":
        other, tokens = _both(tokens[1:], text)
        value = value or other
    return value, tokens


def _both(tokens: list[str], text: str) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, text)
    while tokens and tokens[0].lower() == "and":
        other, tokens = _one(tokens[1:], text)
        value = value and other
    return value, tokens


def _one(tokens: list[str], text: str) -> tuple[bool, list[str]]:
    if not tokens:
        raise UsageError("the expression ends too early", where="-k", remedy=_REMEDY)
    first, rest = tokens[0].lower(), tokens[1:]
    if first == "not":
        value, rest = _one(rest, text)
        return not value, rest
    if first == "(":
        value, rest = _either(rest, text)
        if not rest or rest[0] != ")":
            raise UsageError("a parenthesis is not closed", where="-k", remedy=_REMEDY)
        return value, rest[1:]
    if first in {"and", "or", ")"}:
        raise UsageError(f"{tokens[0]!r} stands where a word should", where="-k", remedy=_REMEDY)
    return first in text, rest
