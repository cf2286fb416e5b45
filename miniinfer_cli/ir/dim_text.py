"""Dimensions read from text, as ``str`` writes them."""

import re

from miniinfer_cli.ir.dims import Dim, UnwieldyDim, floor_divide, maximum, minimum, symbol

_TOKEN = re.compile(r"\s*(floor\(\(|(?:min|max)\(|\d+|[^\s+\-*/()\d,\[\]][^\s+\-*/(),\[\]]*|[+\-*/(),])")

_CHOICES = {"min(": minimum, "max(": maximum}


_MOST_TOKENS = 4096


def parse_dim(text: str) -> Dim:
    """The dimension written as ``str(dim)`` writes it. Raises ValueError on anything else, and on what is too long."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text.replace(" ", "") or not tokens:
        raise ValueError(f"not a dimension: {text!r}")
    if len(tokens) > _MOST_TOKENS:
        raise ValueError(f"a dimension of {len(tokens)} parts, at most {_MOST_TOKENS} are read")
    try:
        dim, rest = _parse_sum(tokens)
    except UnwieldyDim as error:
        raise ValueError(error.message) from None
    except RecursionError:
        raise ValueError("a dimension of functions too deep within each other") from None
    if rest:
        raise ValueError(f"not a dimension: {text!r}")
    return dim


def split_dims(text: str) -> list[str]:
    """The dimensions of a shape's text, which commas separate: those of ``min(a,b)`` do not."""
    parts, depth = [""] if text.strip() else [], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _parse_sum(tokens: list[str]) -> tuple[Dim, list[str]]:
    total: Dim = 0
    sign = 1
    while True:
        if tokens and tokens[0] in "+-":
            sign = -1 if tokens[0] == "-" else 1
            tokens = tokens[1:]
        value, tokens = _parse_product(tokens)
        total = total + value * sign
        if not tokens or tokens[0] not in "+-":
            return total, tokens


def _parse_product(tokens: list[str]) -> tuple[Dim, list[str]]:
    value: Dim = 1
    while True:
        if not tokens:
            raise ValueError("a dimension ends too early")
        head, tokens = tokens[0], tokens[1:]
        if head == "floor((":
            inner, tokens = _parse_sum(tokens)
            if tokens[:3] != [")", "/", "("]:
                raise ValueError("a floor() in a dimension is malformed")
            divisor, tokens = _parse_sum(tokens[3:])
            if tokens[:2] != [")", ")"] or divisor == 0:
                raise ValueError("a floor() in a dimension is malformed")
            value = value * floor_divide(inner, divisor)
            tokens = tokens[2:]
        elif head in _CHOICES:
            first, tokens = _parse_sum(tokens)
            if tokens[:1] != [","]:
                raise ValueError(f"a {head}) in a dimension is malformed")
            second, tokens = _parse_sum(tokens[1:])
            if tokens[:1] != [")"]:
                raise ValueError(f"a {head}) in a dimension is malformed")
            value = value * _CHOICES[head](first, second)
            tokens = tokens[1:]
        elif head.isdigit():
            value = value * int(head)
        elif head in "+-*/(),":
            raise ValueError(f"unexpected {head!r} in a dimension")
        else:
            value = value * symbol(head)
        if not tokens or tokens[0] != "*":
            return value, tokens
        tokens = tokens[1:]
