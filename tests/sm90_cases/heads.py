"""Cases of attention by the kernel for sm_90a: random operands, the launch, and how far a result is from that in f64."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import MASK, NONPAD, Form, K, Mask, Q, V
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Angles, Cut, Rotary, attention_launch
from miniinfer_cli.ir import DType, dtype_of
from miniinfer_cli.ops.attention import attention
from miniinfer_cli.ops.rotary import rotary_embedding

DTYPES: dict[DType, Any] = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
TOLERANCES = {DType.F16: 1e-3, DType.BF16: 8e-3, DType.F32: 1e-3}
Y = Operand.output(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be computed.

    ``merged``: queries, keys and values are parts of one projection; else each is [batch, heads, length, size]. ``mask``: the
    axes of batch, head, query and key that it has, as a text of ``b``, ``h``, ``q`` and ``k``; ``mask_type`` of its elements;
    ``hidden``: queries that it hides all keys of. ``lengths`` of the keys of each of the batch. ``odd``: numbers put into "q",
    "k" or "v". ``turned``: "q", "k" or both, by angles that ``ids`` pick.
    """

    batch: int = 1
    heads: int = 2
    kv_heads: int = 0
    queries: int = 64
    keys: int = 0
    size: int = 64
    v_size: int = 0
    dtype: DType = DType.F16
    merged: bool = True
    causal: bool = False
    left: int = -1
    right: int = -1
    mask: str = ""
    mask_type: Any = np.bool_
    mask_keys: int = 0
    hidden: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    softcap: float = 0.0
    scale: float = 0.0
    nan_rows: str = "hidden"
    odd: tuple[tuple[str, float], ...] = field(default=())
    turned: str = ""
    turned_size: int = 0
    interleaved: bool = False
    ids: bool = False
    cache: DType = DType.F32


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """``arrays`` are what lies in memory before the launch, the result among them, whose bytes are all 0xFF."""

    problem: Problem
    launch: Launch[Operand]
    arrays: dict[Operand, "np.ndarray[Any, Any]"]
    exact: "np.ndarray[Any, Any]"

    def error(self, found: "np.ndarray[Any, Any]") -> float:
        """Of a result, relative to that in f64; infinite where one alone has a NaN."""
        wide = found.astype(np.float64)
        nan = np.isnan(self.exact)
        if (nan != np.isnan(wide)).any():
            return float("inf")
        wanted = np.where(nan, 0, self.exact)
        return float(np.linalg.norm(np.where(nan, 0, wide) - wanted) / np.linalg.norm(wanted))


def heads_case(p: Problem, cut: Cut) -> Heads:
    """Results in the form of the queries."""
    rng = np.random.default_rng([p.batch, p.heads, p.queries, p.size])
    kind = DTYPES[p.dtype]
    kv_heads, keys, v_size = p.kv_heads or p.heads, p.keys or p.queries, p.v_size or p.size
    shapes = (p.heads, p.queries, p.size), (kv_heads, keys, p.size), (kv_heads, keys, v_size)
    apart = [rng.standard_normal((p.batch, *shape)).astype(kind) for shape in shapes]
    for name, number in p.odd:
        apart["qkv".index(name)][0, 0, 1, 3] = number
    arrays: dict[Operand, Any]
    if p.merged:
        assert p.queries == keys
        one = np.concatenate([x.transpose(0, 2, 1, 3).reshape(p.batch, keys, -1) for x in apart], axis=2)
        width, starts = one.shape[2], np.cumsum([0, *(n * size for n, _, size in shapes)])
        strides = tuple((keys * width, size, width) for _, _, size in shapes)
        places = [Operand.input(Q, int(start) * one.itemsize) for start in starts[:3]]
        arrays = {Operand.input(Q): one}
        y_strides = (p.queries * p.heads * v_size, v_size, p.heads * v_size)
    else:
        strides = tuple((n * length * size, length * size, size) for n, length, size in shapes)
        places = [Operand.input(number) for number in (Q, K, V)]
        arrays = dict(zip(places, apart, strict=True))
        y_strides = (p.heads * p.queries * v_size, p.queries * v_size, v_size)
    scores = p.batch, p.heads, p.queries, p.mask_keys or keys
    mask, lengths = None, None
    if p.mask:
        shape = tuple(n if axis in p.mask else 1 for axis, n in zip("bhqk", scores, strict=True))
        mask = rng.random(shape) < 0.7 if p.mask_type is np.bool_ else rng.standard_normal(shape).astype(p.mask_type)
        if p.mask_type is not np.bool_:
            mask = np.where(rng.random(shape) < 0.2, -np.inf, mask).astype(p.mask_type)
        for query in p.hidden:
            mask[..., query, :] = False if p.mask_type is np.bool_ else -np.inf
        arrays[Operand.input(MASK)] = mask
    if p.lengths:
        lengths = arrays[Operand.input(NONPAD)] = np.array(p.lengths, np.int64)
    rotary, turning = _angles_of(p, keys, arrays, rng) if p.turned else (None, {})
    form = Form(
        dtype=p.dtype,
        batch=p.batch,
        heads=p.heads,
        kv_heads=kv_heads,
        queries=p.queries,
        keys=keys,
        size=p.size,
        v_size=v_size,
        strides=(*strides, y_strides),
        scale=p.scale or p.size**-0.5,
        k=places[1],
        v=places[2],
        softcap=p.softcap,
        mask=None if mask is None else _mask_of(mask),
        causal=p.causal,
        left=p.left,
        right=p.right,
        nonpad=lengths is not None,
        nan_rows=p.nan_rows,
    )
    with np.errstate(all="ignore"):
        wide = [turning.get(name, np.asarray)(x.astype(np.float64)) for name, x in zip("qkv", apart, strict=True)]
        (exact,) = attention(
            *wide,
            mask,
            nonpad_kv_seqlen=lengths,
            scale=form.scale,
            softcap=p.softcap,
            is_causal=int(p.causal),
            left_window_size=p.left,
            right_window_size=p.right,
            nan_rows=p.nan_rows,
        )
    if p.merged:
        exact = exact.transpose(0, 2, 1, 3).reshape(p.batch, p.queries, -1)
    arrays[Y] = np.full(exact.size * apart[0].itemsize, 0xFF, np.uint8).view(kind).reshape(exact.shape)
    return Heads(p, attention_launch(form, cut, Y, rotary), arrays, exact)


def _angles_of(p: Problem, keys: int, arrays: dict[Operand, Any], rng: np.random.Generator) -> tuple[Rotary, dict[str, Any]]:
    """The form of the angles, and what turns each side."""
    turned = p.turned_size or p.size
    sides: list[Angles | None] = []
    turning: dict[str, Any] = {}
    for number, (name, length) in enumerate((("q", p.queries), ("k", keys))):
        if name not in p.turned:
            sides.append(None)
            continue
        rows = length + 5 if p.ids else p.batch * length
        angle = rng.uniform(0, 6, (rows, turned // 2))
        cosines, sines = (f(angle).astype(DTYPES.get(p.cache, np.float32)) for f in (np.cos, np.sin))
        places = Operand.table(3 * number), Operand.table(3 * number + 1), Operand.table(3 * number + 2)
        arrays |= {places[0]: cosines, places[1]: sines}
        ids = None
        if p.ids:
            ids = arrays[places[2]] = rng.integers(-rows, rows, (p.batch, length))
        shape = cosines.shape if p.ids else (p.batch, length, turned // 2)
        sides.append(Angles(places[0], places[1], places[2] if p.ids else None, rows, length, 1))
        turning[name] = partial(
            rotary_embedding,
            cos_cache=cosines.astype(np.float64).reshape(shape),
            sin_cache=sines.astype(np.float64).reshape(shape),
            position_ids=ids,
            interleaved=int(p.interleaved),
            rotary_embedding_dim=p.turned_size,
        )
    return Rotary(turned, p.interleaved, p.cache, *sides), turning


def _mask_of(mask: "np.ndarray[Any, Any]") -> Mask:
    batch, head, query, key = (0 if n == 1 else s // mask.itemsize for n, s in zip(mask.shape, mask.strides, strict=True))
    return Mask(dtype_of(mask), (batch, head, query, key), mask.shape[3])


CASES = [
    (Problem(), Cut(1, 64, 1)),
    (Problem(batch=2, heads=3, queries=128), Cut(2, 128, 2)),
    (Problem(batch=2, heads=3, queries=100, size=32), Cut(1, 48, 2)),
    (Problem(heads=6, kv_heads=2, queries=70, size=128, causal=True), Cut(2, 64, 2)),
    (Problem(heads=6, kv_heads=2, queries=9, keys=150, size=96, merged=False), Cut(1, 80, 2)),
    (Problem(batch=2, heads=12, kv_heads=2, queries=1, keys=70, size=72, merged=False), Cut(1, 32, 2)),
    (Problem(queries=197, dtype=DType.BF16), Cut(3, 112, 2)),
    (Problem(batch=2, queries=150, causal=True), Cut(2, 48, 2, 2)),
    (Problem(heads=6, kv_heads=3, queries=20, keys=250, mask="bk", size=128, merged=False), Cut(1, 32, 6, 3)),
    (Problem(queries=90, keys=75, size=16, v_size=40, merged=False), Cut(1, 32, 2)),
    (Problem(batch=2, heads=3, queries=128, dtype=DType.F32), Cut(2, 64, 2)),
    (Problem(heads=6, kv_heads=2, queries=100, size=128, causal=True, dtype=DType.F32), Cut(2, 32, 2)),
    (Problem(heads=6, kv_heads=3, queries=20, keys=250, mask="bk", dtype=DType.F32, merged=False), Cut(1, 32, 6, 3)),
    (Problem(queries=90, keys=75, size=16, v_size=40, dtype=DType.F32, merged=False), Cut(1, 96, 1)),
]
MASKS = [
    Problem(batch=2, queries=70, mask="bk"),
    Problem(batch=2, queries=70, mask="bk", mask_type=np.float16),
    Problem(batch=2, queries=70, mask="hqk", hidden=(3, 69)),
    Problem(batch=2, queries=75, mask="bhqk", mask_type=np.float32, hidden=(3, 69)),
    Problem(queries=75, mask="k", mask_keys=51),
    Problem(queries=75, mask="qk", mask_type=np.float16, causal=True),
    Problem(queries=90, keys=75, left=20, right=3, merged=False),
    Problem(queries=75, left=7, causal=True),
    Problem(batch=3, queries=5, keys=40, lengths=(3, 0, 40), causal=True, merged=False),
    Problem(queries=70, softcap=0.7, scale=0.3),
    Problem(queries=70, mask="qk", hidden=(5,), nan_rows="keep"),
    Problem(queries=70, mask="qk", hidden=(5,), nan_rows="zero"),
    Problem(queries=70, odd=(("q", np.nan), ("k", np.inf)), nan_rows="zero"),
    Problem(queries=70, odd=(("q", np.nan),)),
    Problem(batch=2, queries=75, mask="bhqk", mask_type=np.float32, hidden=(3, 69), dtype=DType.F32),
    Problem(queries=70, odd=(("q", np.nan), ("k", np.inf)), nan_rows="zero", dtype=DType.F32),
]
"""Each with ``masked_cut``."""
TURNED = [
    (Problem(batch=2, queries=70, turned="qk", causal=True), Cut(1, 48, 2)),
    (Problem(heads=4, kv_heads=2, queries=100, size=128, turned="qk", ids=True, cache=DType.F16), Cut(2, 64, 2)),
    (Problem(batch=2, queries=70, turned="k", interleaved=True, ids=True, dtype=DType.BF16, cache=DType.BF16), Cut(2, 80, 1)),
    (Problem(heads=6, kv_heads=2, queries=9, keys=150, size=96, turned="q", turned_size=32, merged=False), Cut(1, 80, 2)),
    (Problem(batch=2, queries=130, turned="qk"), Cut(2, 48, 2, 2)),
    (Problem(batch=2, queries=70, size=40, turned="qk", turned_size=24, interleaved=True), Cut(1, 80, 1)),
]


def masked_cut(p: Problem) -> Cut:
    return Cut(1, 32 if p.dtype is DType.F32 else 48, 2)
