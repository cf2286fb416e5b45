"""What a node of attention computes, over operands of either form: sizes, strides, the mask and which keys are seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, is_in_rows, row_major
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import ALIGNMENT, reads_strided
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import SOFTMAX_FLOPS
from miniinfer_cli.ir import Array, DType
from miniinfer_cli.ops.attention import NAN_ROWS
from miniinfer_cli.ops.element_types import FLOATS
from miniinfer_cli.ops.type_codes import dtype_of_code

Strides = tuple[int, int, int]
"""Elements between batches, heads and positions; the elements of a head lie side by side."""

Q, K, V, MASK, PAST_KEY, PAST_VALUE, NONPAD = range(7)


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask input: ``strides`` over batch, head, query and key, 0 where all share; ``keys`` that it covers."""

    dtype: DType
    strides: tuple[int, int, int, int]
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """``Y[b, h, q] = softmax(softcap(scale * Q K^T) + mask) V`` for ``heads`` of queries that share ``kv_heads`` in turn.

    ``strides``: of Q, K, V and Y. ``offset``: the position of the first query among the keys, where lengths (``nonpad``) do
    not say. ``left`` and ``right``: how far a query sees, -1 for no bound. ``precision``: what scores and probabilities are
    rounded to, None for the type computed in. ``nan_rows``: as ``ops.attention`` has it.
    """

    dtype: DType
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    size: int
    v_size: int
    strides: tuple[Strides, Strides, Strides, Strides]
    scale: float
    k: Operand
    v: Operand
    softcap: float = 0.0
    mask: Mask | None = None
    offset: int = 0
    causal: bool = False
    left: int = -1
    right: int = -1
    nonpad: bool = False
    precision: DType | None = None
    nan_rows: str = "hidden"

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return self.heads // self.kv_heads

    @property
    def hides_keys(self) -> bool:
        """True when something but the mask input hides keys."""
        return self.causal or self.left >= 0 or self.right >= 0 or self.nonpad

    @property
    def may_be_empty(self) -> bool:
        """True when a query may see no key at all."""
        return self.mask is not None or self.hides_keys

    def estimate(self) -> Estimate:
        """Two products and a softmax over the pairs of query and key that causal order and windows leave; operands once."""
        both, item = self.size + self.v_size, element_nbytes(self.dtype)
        rows = self.batch * (self.heads * self.queries + self.kv_heads * self.keys)
        return Estimate(self._seen_pairs() * (2 * both + SOFTMAX_FLOPS), rows * both * item + self._mask_nbytes())

    def _mask_nbytes(self) -> int:
        if self.mask is None:
            return 0
        scores = self.batch, self.heads, self.queries, self.keys
        walked = (n for n, stride in zip(scores, self.mask.strides, strict=True) if stride)
        return math.prod(walked) * element_nbytes(self.mask.dtype)

    def _seen_pairs(self) -> int:
        seen = self.queries * self.keys
        if self.causal or self.right >= 0:
            seen = self._keys_before(self.offset + (0 if self.causal else self.right) + 1)
        if self.left >= 0:
            seen -= self._keys_before(self.offset - self.left)
        return self.batch * self.heads * seen

    def _keys_before(self, ahead: int) -> int:
        """Of all queries together, the keys before the one that is ``ahead`` of the query's own number."""
        first, stop = (min(max(n, 0), self.queries) for n in (-ahead, self.keys - ahead))  # queries that some keys are before
        return (stop - first) * (first + stop - 1 + 2 * ahead) // 2 + (self.queries - stop) * self.keys

    def sight(self) -> Array:
        """The argument ``Sight``."""
        mask = self.mask
        mask_keys = self.keys if mask is None else mask.keys
        seen = (self.queries, self.keys, mask_keys, self.offset, self.causal, self.left, self.right)
        return np.array([*seen, *(mask.strides if mask else (0, 0, 0, 0))], np.int64)

    def seen_by(self) -> tuple[Argument, Argument, Argument]:
        """The arguments mask, nonpad and sight."""
        return (
            Operand.input(MASK) if self.mask else NULL,
            Operand.input(NONPAD) if self.nonpad else NULL,
            self.sight(),
        )

    def nan_defines(self) -> tuple[tuple[str, str], ...]:
        """MI_NAN_ROWS."""
        is_told_apart = self.nan_rows != "keep" or self.may_be_empty
        return (("MI_NAN_ROWS", str(NAN_ROWS.index(self.nan_rows if is_told_apart else "hidden"))),)

    def mask_defines(self) -> tuple[tuple[str, str], ...]:
        """MI_MASK and MI_MASK_T."""
        if self.mask is None:
            return ("MI_MASK", "0"), ("MI_MASK_T", "u8")
        if self.mask.dtype is DType.BOOL:
            return ("MI_MASK", "1"), ("MI_MASK_T", "u8")
        return ("MI_MASK", "2"), ("MI_MASK_T", c_type(self.mask.dtype))


def read_form(site: Site) -> Form | None:
    """The form of a site of Attention, whose past and fresh keys are yet to be joined; None where it is no case for kernels."""
    dtype = site.dtype(Q)
    if dtype not in FLOATS or dtype != site.dtype(K) or dtype != site.dtype(V):
        return None
    batch, heads, queries, size, q = _apart(site.shape(Q), site.strides(Q), site.attr("q_num_heads", 0))
    _, kv_heads, fresh, _, k = _apart(site.shape(K), site.strides(K), site.attr("kv_num_heads", 0))
    _, _, _, v_size, v = _apart(site.shape(V), site.strides(V), site.attr("kv_num_heads", 0))
    past = site.shape(PAST_KEY)[2] if site.has(PAST_KEY) else 0
    y = _apart(site.out_shape(), row_major(site.out_shape()), heads)[4]
    mask = _read_mask(site, (batch, heads, queries, past + fresh))
    code = site.attr("softmax_precision")
    scale = site.attr("scale")
    return Form(
        dtype=dtype,
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        queries=queries,
        keys=past + fresh,
        size=size,
        v_size=v_size,
        strides=(q, k, v, y),
        scale=1 / math.sqrt(size) if scale is None and size else float(scale or 0.0),
        k=Operand.input(K),
        v=Operand.input(V),
        softcap=float(site.attr("softcap", 0.0)),
        mask=mask,
        offset=past,
        causal=bool(site.attr("is_causal", 0)),
        left=site.attr("left_window_size", -1),
        right=site.attr("right_window_size", -1),
        nonpad=site.has(NONPAD),
        precision=None if code is None else dtype_of_code(code),
        nan_rows=site.attr("nan_rows", "hidden"),
    )


@reads_strided("Attention")
@reads_strided("FlexAttention", domain="ai.onnx.preview")
def reads_heads(site: Site, number: int) -> bool:
    """Queries, keys and values whose heads lie in one piece and at multiples of 16 bytes: what every way of attention takes."""
    if number not in (Q, K, V) or site.node.graphs:
        return False
    return is_in_rows(site.shape(number), site.strides(number), ALIGNMENT // element_nbytes(site.dtype(number)))


def _apart(shape: Sequence[int], strides: Sequence[int], heads: int) -> tuple[int, int, int, int, Strides]:
    """Batch, heads, length, head size and strides of [batch, heads, length, size] or [batch, length, heads * size]."""
    if len(shape) == 4:
        batch, heads, length, size = shape
        return batch, heads, length, size, (strides[0], strides[1], strides[2])
    batch, length, width = shape
    size = width // heads
    return batch, heads, length, size, (strides[0], size, strides[1])


def _read_mask(site: Site, scores: tuple[int, int, int, int]) -> Mask | None:
    if not site.has(MASK):
        return None
    shape = site.shape(MASK)
    batch, head, query, key = broadcast_strides(shape, scores)
    return Mask(site.dtype(MASK), (batch, head, query, key), shape[-1] if shape else scores[3])
