"""RotaryEmbedding: pairs of each head's elements turned by angles that depend on the position."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank


def infer_rotary_embedding(
    x: TensorType,
    cos_cache: TensorType,
    sin_cache: TensorType,
    position_ids: TensorType | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> TensorType:
    """Same type as ``x``: [batch, heads, length, size], or [batch, length, heads * size] with ``num_heads``."""
    expect_rank("RotaryEmbedding", x, 3, 4)
    for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache)):
        rank = 3 if position_ids is None else 2
        if cache.rank not in (None, rank):
            given = "without" if position_ids is None else "with"
            raise ModelError(f"RotaryEmbedding expects {name} of rank {rank} {given} position_ids, got {cache}")
    if x.shape is None:
        return TensorType(x.dtype)
    if len(x.shape) == 3 and num_heads < 1:
        raise ModelError(f"RotaryEmbedding needs num_heads for an input of rank 3 like {x}")
    size = x.shape[3] if len(x.shape) == 4 else x.shape[2] // num_heads
    turned = rotary_embedding_dim or size
    if cos_cache.shape is not None:
        half = cos_cache.shape[-1]
        if isinstance(half, int) and isinstance(turned, int) and 2 * half != turned:
            raise ModelError(f"RotaryEmbedding turns {turned} elements of each head, expected twice the last of {cos_cache}")
    if isinstance(size, int) and rotary_embedding_dim > size:
        raise ModelError(f"RotaryEmbedding rotary_embedding_dim {rotary_embedding_dim} is larger than the head size {size}")
    return TensorType(x.dtype, x.shape)


@widen_half
def rotary_embedding(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Array:
    """(a, b) -> (cos * a - sin * b, sin * a + cos * b) for each pair of a head's first ``rotary_embedding_dim`` elements
    (all of them by default): neighbours when ``interleaved``, else one of each half. Source: ONNX RotaryEmbedding-23.
    """
    out = np.array(x, order="C")
    # Work on [batch, length, heads, size]; both forms are views of the output.
    heads = out.transpose(0, 2, 1, 3) if x.ndim == 4 else out.reshape(*x.shape[:2], num_heads, x.shape[2] // num_heads)
    if position_ids is not None:
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    cos, sin = cos_cache[:, :, None, :], sin_cache[:, :, None, :]
    turned = heads[..., : rotary_embedding_dim or heads.shape[3]]
    half = turned.shape[3] // 2
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., :half], turned[..., half:])
    real = cos * a
    real -= sin * b
    imaginary = sin * a
    imaginary += cos * b
    a[...] = real
    b[...] = imaginary
    return out


def expand_rotary_embedding(graph: Graph, node: Node) -> tuple[Value] | None:
    """Slice (or Reshape and Split), Mul, Sub, Add, Concat; None for an input of unknown rank."""
    at = Expansion(graph, node)
    x, ids = at.widen(at.required(0)), at.input(3)
    rank, dim = x.tensor.rank, node.attrs.get("rotary_embedding_dim", 0)
    if rank is None:
        return None
    heads = x
    if rank == 3:
        split = at.op("Reshape", x, at.integers([0, 0, node.attrs["num_heads"], -1]))
        heads = at.op("Transpose", split, perm=[0, 2, 1, 3])
    cos, sin = (_angles(at, at.widen(at.required(i)), ids) for i in (1, 2))
    turned, kept = heads, None
    if dim:
        turned = at.slice(heads, 0, dim, axis=3)
        kept = at.slice(heads, dim, None, axis=3)
    if node.attrs.get("interleaved", 0):
        pairs = at.op("Reshape", turned, at.integers([0, 0, 0, -1, 2]))
        a, b = (at.op("Squeeze", part, at.integers([4])) for part in at.ops("Split", pairs, n_outputs=2, axis=4, num_outputs=2))
    else:
        a, b = at.ops("Split", turned, n_outputs=2, axis=3, num_outputs=2)
    real = at.op("Sub", at.op("Mul", cos, a), at.op("Mul", sin, b))
    imaginary = at.op("Add", at.op("Mul", sin, a), at.op("Mul", cos, b))
    if node.attrs.get("interleaved", 0):
        columns = [at.op("Unsqueeze", part, at.integers([4])) for part in (real, imaginary)]
        y = at.op("Reshape", at.op("Concat", *columns, axis=4), at.integers([0, 0, 0, -1]))
    else:
        y = at.op("Concat", real, imaginary, axis=3)
    if kept is not None:
        y = at.op("Concat", y, kept, axis=3)
    if rank == 3:
        y = at.op("Reshape", at.op("Transpose", y, perm=[0, 2, 1, 3]), at.integers([0, 0, -1]))
    return (at.cast(y, at.required(0).tensor.dtype),)


def _angles(at: Expansion, cache: Value, ids: Value | None) -> Value:
    """[batch, 1, length, half] of a cache: picked by position where there are ids."""
    picked = cache if ids is None else at.op("Gather", cache, ids, axis=0)
    return at.op("Unsqueeze", picked, at.integers([1]))


ROTARY_EMBEDDING = define(
    "RotaryEmbedding", infer=infer_rotary_embedding, reference=rotary_embedding, expand=expand_rotary_embedding
)
