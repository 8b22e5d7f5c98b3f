"""Filters as text.

    filter    = term {"or" term}          term = factor {"and" factor}
    factor    = "not" factor | "(" filter ")" | condition
    condition = KEY ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") VALUE | KEY "in" "(" VALUE {"," VALUE} ")" | "has" KEY
    VALUE     = number | true | false | word | text in "quotes" or 'quotes', where \\ stands before a quote or a \\

A word begins with a letter or "_", and has letters (of any script), digits and _ . - in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fgsbir_edge.errors import FilterError
from fgsbir_edge.gallery.filters import MAX_DEPTH, All, Any, Compare, Filter, Has, Is, Not, OneOf, Operator, Scalar

MAX_CHARACTERS = 100_000
_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:[^\"\\]|\\[\"'\\])*\"|'(?:[^'\\]|\\[\"'\\])*')"
    r"|(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.-]))"
    r"|(?P<word>[^\W\d][\w.-]*)|(?P<sign>==|!=|<=|>=|[=<>(),]))"
)
_ESCAPED = re.compile(r"\\(.)")
_END = "its end"


@dataclass(frozen=True)
class _Token:
    kind: str  # "text", "number", "word", "sign" or "end"
    text: str
    at: int


def parse_filter(text: str) -> Filter:
    """Read a filter. Raises FilterError naming the place that is wrong."""
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"a filter of {len(text)} characters; the most is {MAX_CHARACTERS}")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._source, self._tokens, self._next, self._depth = text, _tokens(text), 0, 0

    def whole(self) -> Filter:
        found = self._any()
        if self._token.kind != "end":
            raise self._wrong("'and' or 'or'")
        return found

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> str:
        """The next word or sign where it is one of these, else ""."""
        token = self._token
        if token.kind in ("word", "sign") and token.text in texts:
            self._next += 1
            return token.text
        return ""

    def _any(self) -> Filter:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Filter:
        parts = [self._factor()]
        while self._take("and"):
            parts.append(self._factor())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _factor(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"a filter is nested more than {MAX_DEPTH} deep; write it flatter")
        try:
            if self._take("not"):
                return Not(self._factor())
            if self._take("("):
                found = self._any()
                self._expect(")")
                return found
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Filter:
        if self._take("has"):
            return Has(self._key())
        key = self._key()
        if self._take("in"):
            self._expect("(")
            values = [self._value()]
            while self._take(","):
                values.append(self._value())
            self._expect(")")
            return OneOf(key, tuple(values))
        sign = self._take("=", "==", "!=", "<", "<=", ">", ">=")
        if not sign:
            raise self._wrong("an operator: = != < <= > >= or in (...)")
        value = self._value()
        if sign in ("=", "=="):
            return Is(key, value)
        if sign == "!=":
            return Not(Is(key, value))
        operator: Operator = sign  # type: ignore[assignment]  # one of the four that are left
        return Compare(key, operator, value)  # type: ignore[arg-type]  # it refuses others than numbers

    def _key(self) -> str:
        token = self._token
        if token.kind != "word":
            raise self._wrong("a key")
        self._next += 1
        return token.text

    def _value(self) -> Scalar:
        token = self._token
        self._next += 1
        if token.kind == "text":
            return _ESCAPED.sub(r"\1", token.text[1:-1])
        if token.kind == "number":
            return int(token.text) if token.text.lstrip("+-").isdecimal() and len(token.text) < 20 else float(token.text)
        if token.kind == "word":
            return {"true": True, "false": False}.get(token.text, token.text)
        self._next -= 1
        raise self._wrong("a number, true, false, a word or a text in quotes")

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._wrong(repr(sign))

    def _wrong(self, expected: str) -> FilterError:
        token = self._token
        found = _END if token.kind == "end" else repr(token.text[:40])
        before = self._source[max(0, token.at - 40) : token.at].strip()
        return FilterError(
            f"filter: after {before!r} comes {found}, expected {expected}; such as 'price<50 and brand=\"red oak\"'"
        )


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    stripped = text.rstrip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            rest = stripped[at:].lstrip()
            raise FilterError(f"filter: {rest[:40]!r} cannot be read; put text that is not one word in quotes")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match.group(kind), match.start(kind)))
        at = match.end()
    return [*found, _Token("end", "", len(text))]
