"""What cuBLASLt and cuDNN are asked to compute, as plain records: equal records are solved by the same plan.

Every record says in which order its operands come. A record is the signature under which tactics are kept.
"""

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, Union

from engine_format.targets import OpaqueValue
from miniinfer_cli.ir import DType


class _Word(enum.StrEnum):
    """A word of a problem. Its repr is the plain word's: answers of libraries are kept under the repr of the problem."""

    def __repr__(self) -> str:
        return repr(self.value)


class Compute(_Word):
    """In which type products are summed. ``TF32``: in f32, of operands that are rounded to 11 bits; ``I32``: of i8 operands."""

    F32 = "f32"
    TF32 = "tf32"
    F64 = "f64"
    I32 = "i32"


class Activation(_Word):
    """What follows the sum of products; only ``NONE`` is false. Libraries take few of them, our convolutions all."""

    NONE = ""
    RELU = "relu"
    GELU_TANH = "gelu_tanh"
    GELU = "gelu"
    RELU6 = "relu6"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    ELU = "elu"
    SWISH = "swish"
    HARD_SWISH = "hard_swish"


@dataclass(frozen=True, slots=True)
class MatmulProblem:
    """``D = activation(alpha * op(A) @ op(B) + C + bias)`` for row-major matrices, ``batch`` of them; cuBLASLt.

    Shapes: op(A) ``[m, k]``, op(B) ``[k, n]``, D ``[m, n]``. ``transpose_a``: A is stored as ``[k, m]``; likewise B.
    ``lda`` ... are elements between rows as stored; ``stride_a`` ... elements between the matrices of a batch, 0 where all
    use the same one. ``bias``: a row of n values added to every row of D. ``residual``: C, laid out as D, is added before
    the activation, which is ``NONE``, ``RELU`` or ``GELU_TANH``. The bias has D's type. ``alignment``: bytes of which every
    operand's address is a multiple, a power of two; more than 16 gains nothing.
    Operands: A, B, D, then C if ``residual``, then the bias if ``bias``.
    """

    m: int
    n: int
    k: int
    a: DType
    b: DType
    d: DType
    compute: Compute
    transpose_a: bool = False
    transpose_b: bool = False
    lda: int = 0
    ldb: int = 0
    ldd: int = 0
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_d: int = 0
    alpha: float = 1.0
    bias: bool = False
    residual: bool = False
    activation: Activation = Activation.NONE
    alignment: int = 16


@dataclass(frozen=True, slots=True)
class ConvolutionProblem:
    """``Y = activation(conv(X, W) + bias + Z)``, channels-last; cuDNN.

    X ``[N, spatial..., C]``, W ``[K, spatial..., C / group]`` (KRSC), Y and Z ``[N, spatial..., K]``; one to three spatial
    axes. ``transposed``: the gradient of the convolution with respect to its input, so X has K channels and Y has C.
    ``activation`` is ``NONE`` or ``RELU``, ``compute`` ``F32`` or ``TF32``. Operands: X, W, Y, then the bias ``[K]`` if
    ``bias``, then Z if ``residual``.
    """

    dtype: DType
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    group: int = 1
    transposed: bool = False
    bias: bool = False
    residual: bool = False
    activation: Activation = Activation.NONE
    compute: Compute = Compute.F32


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """``Y = softmax(scale * Q K^T + mask) V`` over f16 or bf16; cuDNN.

    Shapes are ``[batch, heads, length, size]`` with any strides (in elements, the last must be 1): ``q_strides`` ...
    ``mask``: an additive bias of the element type, of shape ``mask_shape`` whose first two sizes may be 1, dense.
    ``causal``: query i sees keys up to i (aligned to the first query and key). Operands: Q, K, V, Y, then the mask if any.
    """

    dtype: DType
    batch: int
    heads: int
    kv_heads: int
    q_length: int
    kv_length: int
    size: int
    v_size: int
    q_strides: tuple[int, int, int, int]
    k_strides: tuple[int, int, int, int]
    v_strides: tuple[int, int, int, int]
    y_strides: tuple[int, int, int, int]
    scale: float
    causal: bool = False
    mask_shape: tuple[int, int, int, int] | None = None


Problem = MatmulProblem | ConvolutionProblem | AttentionProblem

_Item = Union[int, str, bytes, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the ways in which a library solves a problem, as it is told of it again: what a tactic record calls opaque."""

    items: tuple[tuple[str, _Item], ...]

    @classmethod
    def of(cls, opaque: Mapping[str, OpaqueValue]) -> Self:
        """The variant of a record."""
        return cls(tuple((k, tuple(v.items()) if isinstance(v, Mapping) else v) for k, v in opaque.items()))

    @property
    def brief(self) -> str:
        """For a person: numbers and texts as they are, bytes by their digest."""
        return " ".join(
            f"{k} {hashlib.sha256(v).hexdigest()[:8] if isinstance(v, bytes) else dict(v) if isinstance(v, tuple) else v}"
            for k, v in self.items
        )

    @property
    def opaque(self) -> Mapping[str, OpaqueValue]:
        """As a record has it."""
        return {k: dict(v) if isinstance(v, tuple) else v for k, v in self.items}
