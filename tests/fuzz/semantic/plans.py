"""Edits of a plan's header, its digest made right afterwards: attributes, nodes, types, graphs, host nodes, target sections."""

import copy
import random
from functools import reduce
from pathlib import Path
from typing import Any

import msgpack

from engine_format import PlanError
from engine_format.decode import decode_header
from tests.engine_format.samples import document_of, with_header
from tests.fuzz.semantic import edges, seeds
from tests.fuzz.test_structures import places

_DIMS = ("N", "N+1", "2*N", "floor((N)/(2))", "min(N,8)", "?a.0", "-N", "N*N*N", "max(0,N-2)", "1", "")
_TYPES = (
    "f32",
    "f16",
    "i64",
    "i32",
    "bool",
    "u8",
    "str",
    "bf16",
    "c64",
    "i4",
    "f8e4m3fn",
    "tensor",
    "sequence",
    "map",
    "optional",
)
_OPS = (
    "Add", "Reshape", "Conv", "MatMul", "If", "Loop", "Scan", "Gather", "Slice", "Resize", "OnnxReference", "TopK",
    "Cast", "LSTM", "Attention", "NonMaxSuppression", "Range", "Transpose", "ConstantOfShape", "Pad", "Einsum", "Unique",
    "FusedPointwise",
)  # fmt: skip
_TRIES, _UNSOUND_SHARE = 12, 0.02


def edited_plan(rng: random.Random, kept: Path) -> bytes:
    """The file of a plan of any model, edited; most edits leave a file that is sound as such."""
    return edited(rng, seeds.sound_plan(rng, kept))


def edited(rng: random.Random, data: bytes, often: str = "graph") -> bytes:
    """The file of a plan after one to three edits, most of them below the key ``often`` of its header."""
    document = document_of(data)
    edits = rng.choice((1, 1, 1, 2, 3))
    for _ in range(_TRIES * edits):
        changed = copy.deepcopy(document)
        _edit(rng, changed, often)
        if _is_sound(changed) or rng.random() < _UNSOUND_SHARE:
            document, edits = changed, edits - 1
        if not edits:
            break
    return with_header(data, msgpack.packb(document))


def _is_sound(document: dict[str, Any]) -> bool:
    """Whether the file's format lets it pass, so that the graph's meaning is what is tried."""
    try:
        decode_header(msgpack.packb(document))
    except (PlanError, ValueError):
        return False
    return True


def _edit(rng: random.Random, document: dict[str, Any], often: str) -> None:
    everywhere = places(document)
    # The graph is what engines are made of; the places in it are chosen more often than their share.
    inner = [p for p in everywhere if p[0] == often] if rng.random() < 0.8 else []
    target = rng.choice(inner or everywhere)
    parent = reduce(lambda value, step: value[step], target[:-1], document)
    draw, value = rng.random(), parent[target[-1]]
    if draw < 0.45:
        parent[target[-1]] = _other(rng, value)
    elif draw < 0.7:
        source = rng.choice([p for p in everywhere if p[-1] == target[-1]] or everywhere)
        parent[target[-1]] = copy.deepcopy(reduce(lambda value, step: value[step], source, document))
    elif draw < 0.78:
        del parent[target[-1]]
    elif draw < 0.86 and isinstance(parent, list):
        parent.insert(target[-1], copy.deepcopy(value))
    elif draw < 0.93 and isinstance(value, list):
        rng.shuffle(value)
    elif isinstance(value, dict):
        name = rng.choice(("axis", "axes", "perm", "to", "epsilon", "mode", "value", "body", "node", "input_types", "x"))
        value[name] = _scalar(rng)
    else:
        parent[target[-1]] = _scalar(rng)


def _other(rng: random.Random, value: Any) -> Any:
    """Something of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1)) if rng.random() < 0.3 else edges.integer(rng)
    if isinstance(value, float):
        return rng.choice(edges.FLOATS)
    if isinstance(value, str):
        return rng.choice(rng.choice((_DIMS, _TYPES, _OPS)))
    if isinstance(value, bytes):
        return _bytes(rng, value)
    if isinstance(value, list) and value:
        changed = list(value)
        changed[rng.randrange(len(value))] = _other(rng, rng.choice(value))
        return changed
    return _scalar(rng)


def _bytes(rng: random.Random, value: bytes) -> bytes:
    changed = bytearray(value)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(2)] = bytes([rng.randrange(256)] * rng.randrange(3))
    return bytes(changed)


def _scalar(rng: random.Random) -> Any:
    return rng.choice((
        None, True, False, edges.integer(rng), rng.choice(edges.FLOATS), rng.choice(_DIMS), rng.choice(_TYPES), rng.choice(_OPS),
        b"", b"\0" * 8, [], {}, edges.integers(rng), [rng.choice(edges.FLOATS)], ["a", ""],
        msgpack.ExtType(rng.randrange(6), b"x"),
    ))  # fmt: skip
