"""Values at the edges of what may be: what an edit puts in the place of an ordinary one."""

import random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    -2,
    4,
    7,
    8,
    16,
    63,
    64,
    65,
    127,
    128,
    255,
    1 << 20,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**62,
    2**63 - 1,
    -(2**63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, 1e-5, 1e30, -1e30, float("inf"), float("-inf"), float("nan"))
STRINGS = (
    b"", b"a", b"linear", b"nearest", b"cubic", b"constant", b"reflect", b"SAME_UPPER", b"VALID", b"NOTSET", b"tanh", b"none",
    b"reverse", b"bidirectional", b"mul", b"ij,jk->ik", b"...i,i->", b"\xff\xfe", b"\0", b"x" * 300, "käse".encode(),
)  # fmt: skip
SIZES = (0, 1, 1, 2, 2, 3, 4, 5, 8, 64, 65, 1 << 16, 2**31, 2**62, 2**63 - 1)
TYPES = tuple(v for v in TensorProto.DataType.values() if v)


def integer(rng: random.Random) -> int:
    return rng.choice(INTEGERS[:9]) if rng.random() < 0.7 else rng.choice(INTEGERS)


def integers(rng: random.Random, most: int = 5) -> list[int]:
    return [integer(rng) for _ in range(rng.randrange(most + 1))]


def shape(rng: random.Random) -> list[int]:
    """Sizes of a tensor that is held in memory: few elements, or none."""
    return [rng.choice((0, 1, 1, 2, 2, 3, 4)) for _ in range(rng.randrange(5))]


def tensor(rng: random.Random, name: str) -> onnx.TensorProto:
    """A small tensor: integers more often than anything else, as they are sizes, axes and indices."""
    draw = rng.random()
    if draw < 0.05:
        return helper.make_tensor(name, TensorProto.STRING, [2], [rng.choice(STRINGS), b"b"])
    sizes = [rng.randrange(4)] if rng.random() < 0.6 else shape(rng)
    count = int(np.prod(sizes))
    if draw < 0.65:
        values = np.array([integer(rng) for _ in range(count)], np.int64).reshape(sizes)
        return numpy_helper.from_array(values if rng.random() < 0.8 else values.astype(np.int32), name)
    values = np.array([rng.choice(FLOATS) for _ in range(count)], np.float64).reshape(sizes)
    with np.errstate(all="ignore"):
        kind: Any = rng.choice((np.float32, np.float32, np.float16, np.float64, np.bool_, np.complex64, np.uint8, np.int8))
        return numpy_helper.from_array(values.astype(kind), name)
