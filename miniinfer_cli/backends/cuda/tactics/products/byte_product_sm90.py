"""Products of many tokens of bytes on sm_90: the form of the kernel, what it takes of a block, and its launch."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.launch_attributes import MOST_CLUSTER, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Derived, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import MapElement, Swizzle, TensorMap
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import ARCH, Ends, Windows, bytes_macro
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, MOST_SHARED
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import Rearranged, columns_of
from miniinfer_cli.ir import Constant, DType
from miniinfer_cli.ops import insert

FILE = "sm90/byte_product.cu"
"""Of the kernel."""
TOKENS = 128
"""Of a tile."""
BESIDE = 16
"""Features side by side that a thread has."""
_THREADS = 384
_BAND = 64  # features whose order is changed
MOST_FEATURES = 256
"""Of a tile."""
_FEATURES, _SHARING, _MOST_STAGES = (256, 192, 128, 64), (2, 1), 6
_MOST_OF_FEW_DIGITS = 128  # features of a tile whose sums are kept twice
_STEP = 32  # bytes of k of a matrix instruction
_REGISTERS = (232, 40)  # of a thread that multiplies, and of one that loads
_TOGETHER = 4  # chunks whose sums of few digits are added to floats together
# Microseconds, fitted to 36 forms of ten shapes on an H200 (docs/kernels.md): a chunk of k, whatever it holds; what finishes 256
# features of a tile, which the other warpgroup's products hide little of, more with a residual; what passes between two tiles.
_LAUNCH_US, _CHUNK_US, _TILE_US = 2.2, {256: 0.71, 192: 0.57, 128: 0.33, 64: 0.295}, 0.6
_FINISH_US, _ADD_US = 1.45, 1.75
_SHARED = 1.03  # where blocks load weights for each other, but of windows
_AWAITED_US = 1.0  # of a residual that is not loaded ahead
_NBYTES_PER_US = 3.7e6  # of memory
_MOST_HELD = 130  # registers of a thread for sums and residuals


@dataclass(frozen=True, slots=True)
class ByteForm:
    """How the kernel cuts a product: tiles of 128 tokens by ``features``.

    ``stages`` of the ring, and ``sharing``: how many blocks, one below the other, load weights for each other.
    """

    features: int
    stages: int
    sharing: int = 1

    @property
    def tokens(self) -> int:
        """Of a tile."""
        return TOKENS

    @property
    def shared_nbytes(self) -> int:
        """Bytes of shared memory of a block."""
        return self.stages * ((TOKENS + self.features) * CHUNK_NBYTES + 16)

    def fault(self, dtype: DType) -> str:
        """Why the kernel has no such form for tokens of this type; nothing where it has."""
        if self.features not in _FEATURES or (bytes_macro(dtype) == 2 and self.features > _MOST_OF_FEW_DIGITS):
            return f"{self.features} features of {dtype}"
        if not 1 <= self.sharing <= MOST_CLUSTER or self.features // self.sharing % 8 or self.features % self.sharing:
            return f"{self.features} features, whose weights {self.sharing} blocks load"
        if self.stages < 2 or self.shared_nbytes > MOST_SHARED:
            return f"a ring of {self.stages}"
        return ""


@dataclass(frozen=True, slots=True)
class ByteProduct:
    """``count`` tokens of ``k`` bytes times ``features`` weights of as many; rows of tokens, weights and results are pitched.

    ``residual``: the type of what is added, with rows of as many elements as there are features. ``windows``: tokens are those of
    a convolution, and k the channels of each tap, filled up to whole chunks; weights have no such fillings.
    """

    count: int
    features: int
    k: int
    dtype: DType
    weights: DType
    result: DType
    pitch: int
    weights_pitch: int
    result_pitch: int
    residual: DType | None = None
    windows: Windows | None = None

    @property
    def chunks(self) -> int:
        """Of k."""
        return -(-self.k // CHUNK_NBYTES)

    @property
    def steps(self) -> int:
        """Matrix instructions of a chunk that multiply more than zeros."""
        channels = self.k if self.windows is None else self.windows.x_shape[3]
        return -(-min(channels, CHUNK_NBYTES) // _STEP)


def tiles_along(p: ByteProduct, form: ByteForm) -> tuple[int, int]:
    """Tiles of clusters along the tokens and along the features."""
    return -(-p.count // (TOKENS * form.sharing)), -(-p.features // form.features)


def byte_forms(p: ByteProduct, multiprocessors: int, room: int = MOST_SHARED, moved: int = 0) -> list[ByteForm]:
    """Forms whose blocks have ``room`` bytes of shared memory, the fastest first by ``byte_us``; the longest rings of each."""
    found = []
    for features, sharing in itertools.product(_FEATURES, _SHARING):
        form = ByteForm(features, _MOST_STAGES, sharing)
        while form.stages > 2 and form.shared_nbytes > min(room, MOST_SHARED):
            form = replace(form, stages=form.stages - 1)
        if not form.fault(p.dtype) and form.shared_nbytes <= room:
            found.append(form)

    def rank(form: ByteForm) -> tuple[float, ...]:
        """Of those that are as fast, the one that multiplies least, then the one that loads least."""
        _, across = tiles_along(p, form)
        return byte_us(p, form, multiprocessors, moved), across * form.features, -form.sharing, -form.features

    return sorted(found, key=rank)


def is_ahead(p: ByteProduct, form: ByteForm) -> bool:
    """Whether a thread has registers for the next tile's residual, besides this one's and sums, those of few digits twice."""
    if p.residual is None:
        return False
    sums = form.features // 2 * bytes_macro(p.dtype)
    return sums + form.features * element_nbytes(p.residual) // 4 <= _MOST_HELD


def byte_us(p: ByteProduct, form: ByteForm, multiprocessors: int, moved: int = 0) -> float:
    """Microseconds, about. ``moved``: bytes that pass through memory at least."""
    down, across = tiles_along(p, form)
    turns = -(-down * across // max(1, multiprocessors // form.sharing))
    finish = form.features / MOST_FEATURES * (_FINISH_US + (0 if p.residual is None else _ADD_US))
    tile = p.chunks * _CHUNK_US[form.features] + finish + _TILE_US
    tile += 0 if p.residual is None or is_ahead(p, form) else _AWAITED_US
    tile *= _SHARED if form.sharing > 1 and p.windows is None else 1.0
    return _LAUNCH_US + max(turns * tile, moved / _NBYTES_PER_US)


def byte_launch(
    p: ByteProduct,
    form: ByteForm,
    ends: Ends,
    tokens: Operand,
    weights: Operand,
    result: Operand,
    scales: Operand,
    biases: Operand,
    residual: Operand | None,
    multiprocessors: int,
    band: int = 8,
) -> Launch[Operand]:
    """The launch. ``weights`` are as ``ordered_rows`` makes them; ``scales`` and ``biases``: f32[features].

    Raises ValueError for a form that the kernel has not.
    """
    why = form.fault(p.dtype)
    if why:
        raise ValueError(why)
    multiplying, loading = _REGISTERS
    whole = _is_whole(p, (result, *((residual,) if residual else ())))
    defines = (
        *(("MI_T", c_type(p.dtype)), ("MI_W", c_type(p.weights)), ("MI_BYTES", str(bytes_macro(p.dtype)))),
        *(("MI_FEATURES", str(form.features)), ("MI_COLUMNS", str(form.features)), ("MI_STAGES", str(form.stages))),
        *(("MI_SHARING", str(form.sharing)), ("MI_STEPS", str(p.steps)), ("MI_ADDS", str(int(p.residual is not None)))),
        ("MI_QUICK", str(int(p.result is not DType.F32))),
        *(("MI_VECTORS", str(int(whole))), ("MI_AHEAD", str(int(whole and is_ahead(p, form))))),
        *(("MI_WINDOWS", str(int(p.windows is not None))), ("MI_MULTIPLYING", str(multiplying)), ("MI_LOADING", str(loading))),
        ("MI_TOGETHER", str(_TOGETHER)),
        *ends.defines,
    )
    down, across = tiles_along(p, form)
    values: list[Argument] = [_token_map(p, tokens), _weight_map(p, form, weights), result, scales, biases, residual or NULL]
    values += [np.int64(p.result_pitch), np.int64(p.features)]
    values += [np.int32(n) for n in (p.features, p.count, p.chunks, down, across, band)]
    values += [] if p.windows is None else [p.windows.argument(1)]
    values.append(np.array(ends.numbers, np.float32))
    clusters = min(down * across, max(1, multiprocessors // form.sharing))
    attributes = LaunchAttributes(cluster=(form.sharing, 1, 1))
    kernel = Kernel("byte_product", FILE, defines, arch=ARCH)
    return Launch(kernel, (clusters * form.sharing,), (_THREADS,), tuple(values), form.shared_nbytes, attributes)


def ordered_features() -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Of 64 columns of a matrix instruction, the feature that each is, so that a thread's are 16 neighbours."""
    column = np.arange(_BAND)
    return column % 8 // 2 * BESIDE + column // 8 * 2 + column % 2


def ordered_rows(weights: Constant, product: Product, rearranged: Rearranged | None = None) -> Derived:
    """The weights with features as rows, in the order of ``ordered_features``, zeros behind the last up to a multiple of 64."""
    features = -(-product.n // _BAND) * _BAND
    rows = columns_of(weights, product, features, product.k, rearranged)
    graph = rows.graph
    (value,) = graph.outputs
    apart = np.array((features // _BAND, _BAND // BESIDE, BESIDE // 2, 2, product.k), np.int64)
    value = insert(graph, "Reshape", value, graph.add_constant(apart, "apart"))
    value = insert(graph, "Transpose", value, perm=[0, 2, 1, 3, 4])
    value = insert(graph, "Reshape", value, graph.add_constant(np.array((features, product.k), np.int64), "together"))
    graph.set_outputs([value])
    return Derived((weights,), f"{rows.key} in an order of 64", graph)


def _token_map(p: ByteProduct, tokens: Operand) -> TensorMap[Operand]:
    if p.windows is not None:
        return p.windows.seen(tokens, p.dtype, TOKENS)
    return TensorMap(tokens, MapElement.U8, (p.k, p.count), (p.pitch,), (CHUNK_NBYTES, TOKENS), Swizzle.B128)


def _weight_map(p: ByteProduct, form: ByteForm, weights: Operand) -> TensorMap[Operand]:
    rows, stored = form.features // form.sharing, -(-p.features // _BAND) * _BAND
    if p.windows is None:
        return TensorMap(weights, MapElement.U8, (p.k, stored), (p.weights_pitch,), (CHUNK_NBYTES, rows), Swizzle.B128)
    channels, taps = p.windows.x_shape[3], math.prod(p.windows.kernel)
    strides, box = (channels, p.weights_pitch), (CHUNK_NBYTES, 1, rows)
    return TensorMap(weights, MapElement.U8, (channels, taps, stored), strides, box, Swizzle.B128)


def _is_whole(p: ByteProduct, places: Sequence[Operand]) -> bool:
    """Whether rows of the result, and of what is added, are whole vectors."""
    sizes = [element_nbytes(p.result), *([element_nbytes(p.residual)] if p.residual else [])]
    pitches = [p.result_pitch, *([p.features] if p.residual else [])]
    whole = all(
        pitch * size % 16 == 0 and place.offset % 16 == 0 for pitch, size, place in zip(pitches, sizes, places, strict=True)
    )
    return whole and p.features % BESIDE == 0
