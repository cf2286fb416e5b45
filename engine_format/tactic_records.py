"""Tactic records between their dataclasses and msgpack, for headers of plans and for timing caches. Reading is strict."""

from collections.abc import Mapping
from typing import Any

from engine_format import fields
from engine_format.layout import MAX_INT
from engine_format.targets import OpaqueValue, RecordChooser, TacticRecord, TargetGpu

_CHOOSERS = {c.value: c for c in RecordChooser}


def encoded_record(record: TacticRecord) -> list[Any]:
    """A record as files have it."""
    r = record
    opaque = {k: dict(v) if isinstance(v, Mapping) else v for k, v in r.opaque.items()}
    return [
        *(r.signature, r.key, r.claims, r.maker, opaque, r.workspace_nbytes, list(r.kernels), r.time_us, r.chosen_by.value),
    ]


def decoded_record(raw: Any, kernels: int) -> TacticRecord:
    """The record of a section with so many kernels. Raises Fault."""
    signature, key, claims, maker, opaque, workspace, launched, time, chooser = fields.fields(raw, "a tactic record", 9)
    if time is not None and (type(time) is not float or not 0 <= time < float("inf")):
        raise fields.unexpected("a time in microseconds", time, 7)
    if type(chooser) is not str or chooser not in _CHOOSERS:
        raise fields.unexpected(f"one of {', '.join(_CHOOSERS)}", chooser, 8)
    return TacticRecord(
        signature=fields.text(signature, 0),
        key=fields.text(key, 1),
        claims=None if claims is None else fields.integer(claims, 1, MAX_INT, 2),
        maker=fields.text(maker, 3),
        opaque=fields.mapping(opaque, _opaque, 4),
        workspace_nbytes=fields.integer(workspace, 0, MAX_INT, 5),
        kernels=fields.sequence(launched, lambda n: fields.integer(n, 0, kernels - 1), 6),
        time_us=time,
        chosen_by=_CHOOSERS[chooser],
    )


def encoded_gpu(gpu: TargetGpu | None) -> list[Any] | None:
    """A GPU as files have it."""
    return None if gpu is None else [gpu.name, gpu.multiprocessors, gpu.l2_nbytes]


def decoded_gpu(raw: Any) -> TargetGpu | None:
    """The GPU, None for nil. Raises Fault."""
    if raw is None:
        return None
    name, multiprocessors, l2_nbytes = fields.fields(raw, "a GPU", 3)
    counted = fields.integer(multiprocessors, 1, MAX_INT, 1), fields.integer(l2_nbytes, 0, MAX_INT, 2)
    return TargetGpu(fields.text(name, 0), *counted)


def _opaque(raw: Any) -> OpaqueValue:
    if type(raw) is dict:
        return fields.mapping(raw, fields.number)
    if type(raw) in (str, bytes):
        value: OpaqueValue = raw
        return value
    return fields.number(raw)
