"""What the values of flags look like: their parsing, and what a wrong value says."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.errors import UsageError
from miniinfer_cli.limits import chosen_limits
from miniinfer_cli.wording import as_flags

_MOST_ELEMENTS = 1 << 50  # of one input: beyond every memory, and its bytes can still be counted in 64 bits
_MOST_DIGITS = 20  # of one size of an input, and of a limit
_MOST_SIZE_DIGITS = 18  # of a size to tune at: below 2^63


class ShapesParam(click.ParamType):
    """``name:1x3x224x224``, several separated by commas; gives a dict of name to sizes. The name may hold colons."""

    name = "name:1x3x224x224"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, tuple[int, ...]]:
        """See click.ParamType."""
        if isinstance(value, dict):
            return value
        shapes: dict[str, tuple[int, ...]] = {}
        for part in value.split(","):
            name, colon, text = part.rpartition(":")
            if not colon or not name or not re.fullmatch(r"\d+(x\d+)*|", text):
                self.fail(f"{part!r} is not of the form name:1x3x224x224", param, ctx)
            if name in shapes:
                self.fail(f"input {name!r} is given twice", param, ctx)
            sizes = text.split("x") if text else []
            # Python refuses to read numbers of thousands of digits.
            if any(len(d) > _MOST_DIGITS for d in sizes) or math.prod(map(int, sizes)) > _MOST_ELEMENTS:
                self.fail(f"{name}: an input has {_MOST_ELEMENTS} elements at most, got {_shortened(text)}", param, ctx)
            shapes[name] = tuple(map(int, sizes))
        return shapes


class _PairParam(click.ParamType):
    """Two texts with ``=`` between them, neither of which is empty."""

    def _pair(
        self, value: str, halves: tuple[str, str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        first, _, second = halves
        if not first or not second:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return first, second


class InputParam(_PairParam):
    """``name=file``; gives the pair. The name of a file may hold ``=``, that of an input does not."""

    name = "name=file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        name, path = self._pair(value, value.partition("="), param, ctx)
        return name, Path(path)


class PercentilesParam(click.ParamType):
    """``90,95,99``; gives a tuple of floats in (0, 100]."""

    name = "P,P,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        try:
            percents = tuple(float(p) for p in value.split(","))
        except ValueError:
            percents = ()
        if not percents or not all(0 < p <= 100 for p in percents):
            self.fail(f"{value!r} is not a list of percentages between 0 and 100", param, ctx)
        return percents


class BytesParam(click.ParamType):
    """``500000000``, ``512M``, ``2G``, ``1.5GiB``: a number of bytes above 0, with units of 1024; gives an int."""

    name = "BYTES|2G"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click.ParamType."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,20}(?:\.\d{1,9})?)([KMGT]?)(?:i?B)?", value.strip(), re.IGNORECASE)
        nbytes = int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if found else 0
        if nbytes < 1:
            self.fail(f"{value!r} is not a number of bytes above 0, as 500000000 or 2G", param, ctx)
        return nbytes


class FiniteRange(click.FloatRange):
    """A finite number of a range; a range alone lets NaN through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class TacticParam(_PairParam):
    """``NODE=KEY``; gives the pair. The name of a node may hold ``=``, a key does not."""

    name = "NODE=KEY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """See click.ParamType."""
        return value if isinstance(value, tuple) else self._pair(value, value.rpartition("="), param, ctx)


class TypeParam(click.ParamType):
    """``f16``, or ``name:f16`` for one input or output; gives the name, ``*`` where there is none, and the element type."""

    name = "TYPE|NAME:TYPE"
    types = ("f32", "f16", "bf16")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        name, colon, dtype = str(value).rpartition(":")
        if dtype not in self.types or (colon and not name):
            self.fail(f"{value!r} is not one of {', '.join(self.types)}, nor NAME:TYPE", param, ctx)
        return name or "*", dtype


class SizesParam(click.ParamType):
    """``batch=1,8,64``; gives the name and the sizes."""

    name = "DIM=N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, tuple[int, ...]]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = value.rpartition("=")
        if not name or not re.fullmatch(rf"\d{{1,{_MOST_SIZE_DIGITS}}}(,\d{{1,{_MOST_SIZE_DIGITS}}})*", sizes, re.ASCII):
            self.fail(f"{value!r} is not of the form batch=1,8,64", param, ctx)
        return name, tuple(map(int, sizes.split(",")))


class CountsParam(click.ParamType):
    """``4``, or several as ``1,2,4,8``: whole numbers from 1 to ``most``; gives a tuple of them, the smallest first."""

    name = "N,N,..."

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(re.fullmatch(rf"-?\d{{1,{_MOST_DIGITS}}}", part.strip(), re.ASCII) for part in parts):
            self.fail(f"{value!r} is not a whole number, nor several as 1,2,4,8", param, ctx)
        counts = sorted(map(int, parts))
        for count in counts:
            if not 1 <= count <= self.most:
                self.fail(f"{count} is not in the range 1<=x<={self.most}.", param, ctx)
        twice = next((a for a, b in itertools.pairwise(counts) if a == b), None)
        if twice is not None:
            self.fail(f"{twice} is given twice", param, ctx)
        return tuple(counts)


class LimitParam(click.ParamType):
    """``NAME=VALUE``; gives the pair."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """See click.ParamType."""
        if isinstance(value, tuple):
            return value
        name, _, number = value.partition("=")
        if not re.fullmatch(rf"\d{{1,{_MOST_DIGITS}}}", number, re.ASCII):
            self.fail(f"{value!r} is not of the form NAME=VALUE, with a whole number", param, ctx)
        try:
            chosen_limits({name: int(number)})
        except UsageError as error:
            self.fail(f"{as_flags(error.message)}; {as_flags(error.hint)}", param, ctx)
        return name, int(number)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
