"""Files of ranges: a line ``name: bits`` for each value, as TensorRT's calibrators write them, whose files are read as well.

``bits`` are the hexadecimal digits of a big-endian f32: the largest magnitude over 127, which is the scale of int8, whatever
numbers they are for. The first line says who wrote the file, by which method, and for which numbers where these are no integers.
"""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from engine_format.replacing import replacing
from miniinfer_cli.errors import UsageError, refused, unwritable
from miniinfer_cli.ir.quantization import FP8, INT8, NumberFormat

_DIGITS = 8
_OURS = "miniinfer-1-"


def read_cache(path: Path, format: NumberFormat) -> dict[str, float] | None:
    """What a file has for each value, by its name; None where there is no such file.

    Raises UsageError for a file that cannot be read, holds something else, or was made here for another format.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UsageError("is no calibration cache: it is not text", hint=_FORM).at(str(path)) from None
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror or error}", path) from None
    made_for = _format_of(lines[0]) if lines else ""
    if made_for not in ("", format.name):
        raise UsageError(
            f"holds the scales of {made_for}, and {format.name} is asked for", hint="give another file: they end elsewhere"
        ).at(str(path))
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            name, _, bits = line.rpartition(":")
            scales[name.strip()] = _scale(bits.strip(), bool(name), number, path)
    if not scales:
        raise UsageError("is no calibration cache: it holds no scales", hint=_FORM).at(str(path))
    return scales


def _format_of(line: str) -> str:
    """The name of the numbers that a file of ours was made for, by its first line; empty for others."""
    if not line.startswith(_OURS):
        return ""
    return FP8.name if line.startswith(f"{_OURS}{FP8.name}-") else INT8.name


def write_cache(path: Path, method: str, scales: Mapping[str, float], format: NumberFormat) -> None:
    """Writes ``scales`` whole, or leaves the file as it was. Raises UsageError where it cannot be written."""
    own = "" if format is INT8 else f"{format.name}-"
    lines = [f"{_OURS}{own}{method}", *(f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items())]
    try:
        with replacing(os.fspath(path)) as file:
            file.write("\n".join([*lines, ""]).encode())
    except OSError as error:
        raise unwritable(error, path) from None


_FORM = "it begins with a line of its writer, then has a line 'name: bits of an f32 in hexadecimal digits' for each value"


def _scale(bits: str, has_name: bool, number: int, path: Path) -> float:
    try:
        if not has_name or len(bits) > _DIGITS:
            raise ValueError(bits)
        (scale,) = struct.unpack(">f", bytes.fromhex(bits.zfill(_DIGITS)))
    except ValueError:
        raise UsageError(f"line {number} is no scale: {bits[:40]!r}", hint=_FORM).at(str(path)) from None
    if not math.isfinite(scale):
        raise UsageError(f"line {number} has the scale {scale}, expected a finite number", hint=_FORM).at(str(path))
    return float(scale)
