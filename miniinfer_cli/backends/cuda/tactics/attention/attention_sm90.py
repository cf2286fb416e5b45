"""Attention by the kernel for sm_90a: how it cuts a problem, what it takes of a block, and its launch."""

import math
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import MapElement, Swizzle, TensorMap, map_fault
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form, K, Q, Strides, V
from miniinfer_cli.ir import Array, DType

ARCH = "sm_90a"
FILE = "sm90/attention.cu"
"""Of the kernel."""
ROWS = 64
"""Rows of a warpgroup."""
MOST_SIZE = 128
"""Elements of a head."""
MOST_KEYS = 256
"""Keys of a step."""
_ROW_NBYTES = 128  # of shared memory
_VECTOR_NBYTES = 16
_TURNED_KEYS = 32
_ELEMENTS = {DType.F16: MapElement.F16, DType.BF16: MapElement.BF16, DType.F32: MapElement.TF32}
_MOST = 1 << 30
_FAR = 1 << 30  # keys that any query sees
_OTHER_REGISTERS = 36
_MOST_REGISTERS = 240
_REGISTERS = 1 << 16  # of a multiprocessor
_ALL_SHARED = 228 << 10
_SYSTEM_NBYTES = 1 << 10
_MOST_RESIDENTS = 8
_MOST_GRID = 65535


@dataclass(frozen=True, slots=True)
class Cut:
    """How the kernel cuts a problem.

    ``groups``: tiles of 64 rows of a block. ``keys`` that come at once, a multiple of ``keys_unit``, ``stages`` times ahead.
    ``parts``: warpgroups that share a tile, each with some of its keys.
    """

    groups: int
    keys: int
    stages: int
    parts: int = 1

    @property
    def threads(self) -> int:
        """Of a block."""
        return 128 * self.groups * self.parts

    def shared_nbytes(self, form: Form) -> int:
        """Bytes of shared memory of a block."""
        k_boxes, v_boxes = (-(-size // _box(form.dtype)) for size in (form.size, form.v_size))
        own = self.groups * ROWS * max(k_boxes, v_boxes)
        tiles = (own + self.stages * self.keys * (k_boxes + v_boxes)) * _ROW_NBYTES
        kept = (self.parts - 1) * self.groups * (form.v_size // 2 + 4) * 512
        return tiles + kept + 8 * (self.groups + 3 * self.stages)

    def registers(self, form: Form) -> int:
        """Of a thread, about: scores, the probabilities made of them, sums, masks, and what else there is."""
        mask = form.mask
        rows = 0 if mask is None else 2 if any(mask.strides[1:3]) else 1
        held = 0 if mask is None else rows * element_nbytes(mask.dtype) * self.keys // 16
        values = form.v_size // 2 + held + _OTHER_REGISTERS
        if form.dtype is not DType.F32:
            return self.keys * 2 // 3 + values
        squares = -(-form.v_size // 32) * (self.keys // _TURNED_KEYS) * 64  # of 16 values, held while they are turned
        return max(self.keys * 2 // 3, 16 * -(-squares // (128 * self.groups))) + values

    def residents(self, form: Form) -> int:
        """Blocks that are to lie on a multiprocessor together; 0 where not even one fits."""
        registers = self.registers(form)
        by_registers = _REGISTERS // (self.threads * -(-registers // 8) * 8) if registers <= _MOST_REGISTERS else 0
        return min(by_registers, _ALL_SHARED // (self.shared_nbytes(form) + _SYSTEM_NBYTES), _MOST_RESIDENTS)

    def fault(self, form: Form) -> str:
        """Why the kernel has no such cut; nothing where it has."""
        if (
            not 1 <= self.groups * self.parts <= 4
            or self.keys % keys_unit(form.dtype)
            or not 16 <= self.keys <= MOST_KEYS
            or not 1 <= self.stages <= 8
        ):
            return f"{self.groups} tiles, {self.keys} keys at once, {self.stages} ahead"
        if self.stages % self.parts:
            return f"{self.parts} parts of the keys, {self.stages} ahead"
        takes = f"{self.registers(form)} registers, {self.shared_nbytes(form)} bytes of shared memory"
        return "" if self.residents(form) else takes


@dataclass(frozen=True, slots=True)
class Angles:
    """By which rows are turned: caches of so many ``rows``, and where that of a place is found, as in ``kernels/rotary.cu``."""

    cosines: Operand
    sines: Operand
    ids: Operand | None
    rows: int
    of_batch: int
    of_place: int


@dataclass(frozen=True, slots=True)
class Rotary:
    """Queries, keys or both are turned first: ``turned`` elements of each head by angles of type ``cache``."""

    turned: int
    interleaved: bool
    cache: DType
    queries: Angles | None
    keys: Angles | None

    def fault(self, form: Form) -> str:
        """Why the kernel cannot turn heads so; nothing where it can."""
        if form.dtype is DType.F32:
            return "heads of f32"
        unit = 8 if self.interleaved else 16
        if self.turned % unit or not unit <= self.turned <= form.size:
            return f"{self.turned} turned elements: multiples of {unit} are taken"
        return "" if self.cache in (*_ELEMENTS, DType.F32) else f"angles in {self.cache.name.lower()}"


@dataclass(frozen=True, slots=True)
class Leaving:
    """Results leave as bytes: times ``inverse``, between ``low`` and ``high``, rounded; then ``zero`` is added."""

    dtype: DType
    inverse: float
    zero: int
    low: float
    high: float

    def fault(self, form: Form) -> str:
        """Why the kernel cannot store so; nothing where it can."""
        if form.dtype is DType.F32:
            return "heads of f32"
        if form.v_size % _VECTOR_NBYTES:
            return f"heads of {form.v_size} bytes: multiples of {_VECTOR_NBYTES} are taken"
        sizes = form.batch, form.heads, form.queries
        apart = any(s % _VECTOR_NBYTES for n, s in zip(sizes, form.strides[3], strict=True) if n > 1)
        return f"results between multiples of {_VECTOR_NBYTES} bytes" if apart else ""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Rows as tiles: ``1 << shift`` places of ``64 >> shift`` heads each, ``across`` of them at the same places."""

    shift: int
    across: int
    tiles: int


def tiling_of(form: Form) -> Tiling:
    """Few queries lie beside those of other heads of their group."""
    shift = min(6, max(form.queries - 1, 0).bit_length())
    across = -(-form.group // (ROWS >> shift))
    return Tiling(shift, across, across * -(-form.queries >> shift))


def keys_unit(dtype: DType) -> int:
    """What the keys of a step are a multiple of: of f32, whole boxes of turned values."""
    return _TURNED_KEYS if dtype is DType.F32 else 16


def _box(dtype: DType) -> int:
    """Elements of a row of shared memory."""
    return _ROW_NBYTES // element_nbytes(dtype)


def form_fault(form: Form) -> str:
    """Why the kernel cannot compute the form, whatever its cut; nothing where it can. No operand is empty.

    f32 is rounded to TF32.
    """
    if form.dtype not in _ELEMENTS:
        return f"{form.dtype.name.lower()} operands"
    if form.precision not in (None, DType.F32, form.dtype):
        return f"a softmax in {form.precision.name.lower()}"
    for size in (form.size, form.v_size):
        if size % 8 or not 8 <= size <= MOST_SIZE:
            return f"heads of {size} elements: multiples of 8 from 8 to {MOST_SIZE} are taken"
    if not 0 < form.scale < math.inf:
        return f"a scale of {form.scale}"
    if max(form.group * form.queries, form.keys) >= _MOST or max(form.batch, form.kv_heads) > _MOST_GRID:
        return "more rows, keys, heads or batches than the kernel counts"
    whole = 16 // element_nbytes(form.dtype)
    if any(s % whole for n, s in zip((form.batch, form.heads, form.queries), form.strides[3], strict=True) if n > 1):
        return "results between multiples of 16 bytes"
    maps = _maps(form, Cut(1, keys_unit(form.dtype), 1), tiling_of(form))
    return next((fault for fault in (map_fault(m, m.operand.offset) for m in maps) if fault is not None), "")


def attention_launch(
    form: Form, cut: Cut, y: Operand, rotary: Rotary | None = None, leaving: Leaving | None = None
) -> Launch[Operand]:
    """The launch. Raises ValueError for a form or a cut that the kernel has not."""
    faults = (form_fault(form), cut.fault(form), *(step.fault(form) for step in (rotary, leaving) if step is not None))
    why = next(filter(None, faults), "")
    if why:
        raise ValueError(why)
    tiling, mask = tiling_of(form), form.mask
    steps = -(-form.keys // cut.keys)
    pairs = mask is not None and mask.strides[3] == 1 and not any(n % 2 for n in (mask.keys, *mask.strides[:3]))
    defines = (
        ("MI_T", c_type(form.dtype)),
        ("MI_FLOATS", str(int(form.dtype is DType.F32))),
        ("MI_SIZE", str(-(-form.size // 16) * 16)),
        ("MI_VALUE", str(form.v_size)),
        ("MI_GROUPS", str(cut.groups)),
        ("MI_KEYS", str(cut.keys)),
        ("MI_STAGES", str(cut.stages)),
        ("MI_PARTS", str(cut.parts)),
        ("MI_RESIDENTS", str(cut.residents(form))),
        ("MI_STEPS", "1" if steps == 1 else "2" if steps <= cut.stages else "3"),
        ("MI_HIDES", str(0 if not form.hides_keys else 2 if form.left >= 0 else 1)),
        ("MI_CAPPED", str(int(form.softcap != 0))),
        ("MI_MASK_ROWS", str(2 if mask is not None and any(mask.strides[1:3]) else 1)),
        ("MI_MASK_PAIRS", str(int(pairs))),
        *form.mask_defines(),
        *form.nan_defines(),
        ("MI_ROTARY", str(int(rotary is not None))),
        ("MI_CACHE", c_type(rotary.cache if rotary is not None else DType.F32)),
        ("MI_Y", c_type(form.dtype if leaving is None else leaving.dtype)),
        ("MI_ROUNDS", "0" if leaving is None else "1" if leaving.dtype.is_integer else "2"),
        *(() if rotary is None else (("MI_TURNED", str(rotary.turned)), ("MI_INTERLEAVED", str(int(rotary.interleaved))))),
    )
    sides = (None, None) if rotary is None else (rotary.queries, rotary.keys)
    caches = (operand or NULL for a in sides for operand in ((None,) * 3 if a is None else (a.cosines, a.sines, a.ids)))
    walks = [n for a in sides for n in ((0,) * 3 if a is None else (a.rows, a.of_batch, a.of_place))]
    masked, nonpad, _ = form.seen_by()
    strides = (*form.strides[V], *form.strides[3])
    arguments: tuple[Argument, ...] = (
        *_maps(form, cut, tiling),
        form.v,
        y,
        masked,
        nonpad,
        _seeing(form),
        np.array(mask.strides if mask is not None else (0,) * 4, np.int64),
        np.array(strides, np.int64),
        np.array((tiling.tiles, tiling.across, tiling.shift, form.group), np.int32),
        np.float32(form.scale),
        np.float32(form.softcap),
        *caches,
        np.array(walks, np.int64),
        *(() if leaving is None else (np.array((leaving.inverse, leaving.zero, leaving.low, leaving.high), np.float32),)),
    )
    grid = (-(-tiling.tiles // cut.groups), form.kv_heads, form.batch)
    return Launch(Kernel("attention_sm90", FILE, defines, arch=ARCH), grid, (cut.threads,), arguments, cut.shared_nbytes(form))


def _seeing(form: Form) -> Array:
    """The argument ``Seeing``."""
    mask = form.mask
    right = min(0 if form.causal else _FAR, form.right if form.right >= 0 else _FAR)
    left = form.left if form.left >= 0 else _FAR
    seen = (form.queries, form.keys, form.keys if mask is None else mask.keys, form.offset, min(left, _FAR), right)
    return np.array(seen, np.int32)


def _maps(form: Form, cut: Cut, tiling: Tiling) -> tuple[TensorMap[Operand], ...]:
    """Of queries, keys and values."""
    rows = (_box(form.dtype), 1 << tiling.shift, ROWS >> tiling.shift, 1, 1)
    return (
        _map_of_rows(form, Operand.input(Q), form.strides[Q], form.size, rows),
        _map_of_keys(form, form.k, form.strides[K], form.size, cut.keys),
        _map_of_keys(form, form.v, form.strides[V], form.v_size, cut.keys),
    )


def _map_of_rows(form: Form, operand: Operand, strides: Strides, size: int, box: tuple[int, ...]) -> TensorMap[Operand]:
    batch, head, place = strides
    dims = (size, form.queries, form.group, form.kv_heads, form.batch)
    return _map(form, operand, dims, (place, head, form.group * head, batch), box)


def _map_of_keys(form: Form, operand: Operand, strides: Strides, size: int, keys: int) -> TensorMap[Operand]:
    batch, head, place = strides
    box = (_box(form.dtype), keys, 1, 1)
    return _map(form, operand, (size, form.keys, form.kv_heads, form.batch), (place, head, batch), box)


def _map(
    form: Form, operand: Operand, dims: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]
) -> TensorMap[Operand]:
    """Strides of a dimension of one element mean nothing, and are any that a map can have."""
    steps = tuple(box[0] if n == 1 else s for n, s in zip(dims[1:], strides, strict=True))
    nbytes = element_nbytes(form.dtype)
    return TensorMap(operand, _ELEMENTS[form.dtype], dims, tuple(s * nbytes for s in steps), box, Swizzle.B128)
