"""The timing cache: a file of the tactic records of any number of GPUs, for all models.

``magic, format, zero, digest of the rest, rest``: the numbers are little-endian of 32 bits; the rest is a msgpack list of target
sections, as headers of plans have them, without kernels.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgpack

from engine_format import fields
from engine_format.decode import SectionDecoder
from engine_format.encode import section_record
from engine_format.errors import PlanError
from engine_format.layout import DIGEST_NBYTES, FORMAT_VERSION, digest
from engine_format.replacing import replacing, resolved
from engine_format.strict import Fault, NotMsgpack, parse
from engine_format.targets import TargetSection

MAGIC = b"\x89MITIME\n"
_FORMAT = 1
_HEAD = struct.Struct(f"<8sII{DIGEST_NBYTES}s")
LIMIT_NBYTES = 256 << 20
"""A longer file is no timing cache."""


def parse_timing_cache(data: bytes) -> tuple[TargetSection, ...]:
    """The sections in the bytes of a timing cache. Raises PlanError for what is none, or is damaged."""
    if len(data) < _HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise PlanError("this is not a timing cache", offset=0)
    _, version, zero, expected = _HEAD.unpack_from(data)
    if version != _FORMAT or zero:
        raise PlanError(f"the timing cache has format {version}, and this release reads {_FORMAT}", offset=8)
    if digest(data[_HEAD.size :]) != expected:
        raise PlanError("the timing cache does not match its digest: the file is damaged", offset=_HEAD.size)
    try:
        return fields.sequence(parse(data[_HEAD.size :]), _section)
    except NotMsgpack as error:
        raise PlanError(error.message, offset=_HEAD.size + error.offset) from None
    except Fault as fault:
        raise PlanError(fault.message, offset=_HEAD.size) from None


def write_timing_cache(path: "str | os.PathLike[str]", sections: Sequence[TargetSection]) -> None:
    """Writes the sections' records, without kernels, in place of the file at ``path``; whole or not at all. Raises OSError."""
    said: list[Any] = [section_record(_without_kernels(s), ()) for s in sections]
    rest: bytes = msgpack.packb(said, use_bin_type=True)
    with replacing(resolved(path)) as file:
        file.write(_HEAD.pack(MAGIC, _FORMAT, 0, digest(rest)) + rest)


def _section(raw: Any) -> TargetSection:
    entry = SectionDecoder(FORMAT_VERSION).target(raw)
    if entry.kernels or entry.tactics or entry.gpu is None:
        raise Fault("a section of a timing cache holds records of a GPU alone")
    return TargetSection(entry.arch, entry.libraries, gpu=entry.gpu, records=entry.records)


def _without_kernels(section: TargetSection) -> TargetSection:
    records = tuple(replace(r, kernels=()) for r in section.records)
    return TargetSection(section.arch, section.libraries, gpu=section.gpu, records=records)
