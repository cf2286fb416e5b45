"""What the values of trtexec's flags say: names in quotes, shapes, files, numbers, element types."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from miniinfer_cli.errors import UsageError

Shapes = Mapping[str, tuple[int, ...]]
EVERY = "*"
"""The name that stands for every input with no entry of its own."""

_MOST_DIGITS = 18
_MOST_ELEMENTS = 1 << 50
_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_OTHER_TYPES = ("int8", "int32", "int64", "bool", "uint8", "fp8", "int4")
_PLAIN_LAYOUTS = ("chw", "")


def _parts(text: str) -> Iterator[str]:
    """What stands between commas, but for those within single quotes."""
    for part in re.findall(r"(?:'[^']*'|[^,'])+", text.replace("\\'", "'")):
        yield part.strip()


def _named(flag: str, part: str, form: str) -> tuple[str, str]:
    """``name:value`` at its last colon, the name without its quotes."""
    name, colon, value = part.rpartition(":")
    name = name.strip().strip("'")
    if not colon or not name:
        raise UsageError(f"--{flag}: {part!r} is not of the form {form}", hint=f"write --{flag}={form}")
    return name, value.strip().strip("'")


def shapes(flag: str, text: str) -> dict[str, tuple[int, ...]]:
    """``name:1x3,'other:0':scalar``: sizes by the name of the input. Raises UsageError for another form."""
    found: dict[str, tuple[int, ...]] = {}
    for part in _parts(text):
        name, sizes = _named(flag, part, "name:1x3x224x224")
        if name in found:
            raise UsageError(f"--{flag}: input {name!r} is given twice", hint="leave one of them out")
        if sizes == "scalar":
            found[name] = ()
            continue
        if not re.fullmatch(rf"\d{{1,{_MOST_DIGITS}}}(x\d{{1,{_MOST_DIGITS}}})*", sizes, re.ASCII):
            raise UsageError(f"--{flag}: {sizes!r} is no shape of {name!r}", hint="write sizes as 1x3x224x224, or scalar")
        found[name] = tuple(map(int, sizes.split("x")))
        if math.prod(found[name]) > _MOST_ELEMENTS:
            raise UsageError(f"--{flag}: {sizes} of {name!r} is beyond what an array can be", hint="give smaller sizes")
    return found


def spread(given: Shapes, inputs: Mapping[str, int | None]) -> dict[str, tuple[int, ...]]:
    """The shapes by name, with ``*`` written out for all ``inputs`` (names and ranks) that have none and are of its rank."""
    named = {name: shape for name, shape in given.items() if name != EVERY}
    every = given.get(EVERY)
    rest = [] if every is None else [n for n, rank in inputs.items() if n not in named and rank in (None, len(every))]
    return {**named, **{name: every for name in rest if every is not None}}


def files(flag: str, text: str) -> tuple[tuple[str, Path], ...]:
    """``name:file,...``: files by the name of the input. Raises UsageError for another form."""
    pairs = (_named(flag, part, "name:file") for part in _parts(text))
    return tuple((name, Path(value)) for name, value in pairs)


def count(flag: str, text: str, least: int) -> int:
    """A whole number. Raises UsageError for anything else."""
    if not re.fullmatch(rf"\d{{1,{_MOST_DIGITS}}}", text, re.ASCII) or int(text) < least:
        raise UsageError(f"--{flag}: {text!r} is not a whole number from {least} on", hint=f"write --{flag}=N")
    return int(text)


def amount(flag: str, text: str) -> float:
    """A number from 0 on. Raises UsageError for anything else."""
    value = _float(text)
    if not 0 <= value < math.inf:
        raise UsageError(f"--{flag}: {text!r} is not a number from 0 on", hint=f"write --{flag}=N")
    return value


def percentiles(flag: str, text: str) -> tuple[float, ...]:
    """``90,95,99``. Raises UsageError for what is outside (0, 100]."""
    found = tuple(_float(part) for part in text.split(","))
    if not all(0 < p <= 100 for p in found):
        raise UsageError(f"--{flag}: {text!r} are not percentages above 0 and up to 100", hint=f"write --{flag}=90,95,99")
    return found


def word(flag: str, text: str, known: tuple[str, ...]) -> str:
    """One of the ``known`` words. Raises UsageError for another."""
    if text not in known:
        raise UsageError(f"--{flag}: {text!r} is not one of {', '.join(known)}", hint=f"write --{flag}={known[0]}")
    return text


def kept_layers(flag: str, text: str) -> tuple[str, ...]:
    """``layer:type,...``: the layers whose type is fp32; a ``*`` at the end of a name is left out. Raises UsageError."""
    kept = []
    for part in _parts(text):
        name, kind = _named(flag, part, "layer:fp32")
        if kind not in (*_TYPES, *_OTHER_TYPES):
            raise UsageError(f"--{flag}: {kind!r} is no element type", hint=f"they are {', '.join(_TYPES)}")
        if kind == "fp32" and name != EVERY:
            kept.append(name.removesuffix("*").removesuffix("/"))
    return tuple(kept)


def io_types(flag: str, text: str) -> tuple[str | None, ...]:
    """``fp16:chw,...``: an element type for each, None where it is not one of floats. Raises UsageError for other layouts."""
    found = []
    for part in _parts(text):
        kind, _, layout = part.partition(":")
        if kind not in _TYPES and kind not in _OTHER_TYPES:
            raise UsageError(f"--{flag}: {kind!r} is no element type", hint=f"they are {', '.join((*_TYPES, *_OTHER_TYPES))}")
        if layout not in _PLAIN_LAYOUTS:
            raise UsageError(f"--{flag}: there is no layout {layout!r} here", hint="inputs and outputs are dense: write chw")
        found.append(_TYPES.get(kind))
    return tuple(found)


def pool_sizes(flag: str, text: str) -> None:
    """``workspace:4096,...`` or a bare size. Raises UsageError for another form."""
    for part in text.split(","):
        if not re.fullmatch(r"(\w+:)?\d+(\.\d+)?[BKMGbkmg]?i?[Bb]?", part.strip(), re.ASCII):
            raise UsageError(f"--{flag}: {part!r} is no size of a pool", hint=f"write --{flag}=workspace:4096")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
