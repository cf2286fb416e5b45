"""Float products of com.microsoft, with transposes, factors and activations fused into them."""

from collections.abc import Sequence

from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.activations import activated
from miniinfer_cli.onnx_import.registry import FLOAT, INT, STRING, contributed

_FACTORS = {"alpha": FLOAT, "transA": INT, "transB": INT}
_BATCHES = {"transBatchA": INT, "transBatchB": INT}
_ACTIVATION = {"activation": STRING, "activation_alpha": FLOAT, "activation_beta": FLOAT, "activation_gamma": FLOAT}


@contributed("FusedMatMul", {**_FACTORS, **_BATCHES}, (2, 2))
@contributed("TransposeMatMul", _FACTORS, (2, 2))
def fused_matmul(call: Call) -> Sequence[Value]:
    """alpha times the MatMul of A and B, with the last two axes swapped, or the first moved behind other batches, where asked."""
    return (_product(call, last=True),)


@contributed(
    "FusedMatMulActivation",
    {**_FACTORS, **_BATCHES, **_ACTIVATION, "activation_axis": INT},
    (2, 2),
    required=("activation",),
    fixed={"activation_axis": -1},
)
def fused_matmul_activation(call: Call) -> Sequence[Value]:
    """FusedMatMul through an activation."""
    return (_activated(call, _product(call)),)


@contributed("FusedGemm", {**_FACTORS, "beta": FLOAT, **_ACTIVATION}, (2, 3))
def fused_gemm(call: Call) -> Sequence[Value]:
    """Gemm through an activation."""
    given = {name: value for name, value in call.attrs.items() if name not in _ACTIVATION}
    return (_activated(call, call.emit("Gemm", *call.inputs, **given)),)


def _product(call: Call, *, last: bool = False) -> Value:
    """alpha times the MatMul of A and B; with ``last`` it is the first output of the node."""
    a, b = _turned(call, 0, "A"), _turned(call, 1, "B")
    alpha, add = call.attrs.get("alpha", 1.0), call.first if last else call.emit
    if alpha == 1:
        return add("MatMul", a, b)
    product = call.emit("MatMul", a, b)
    return add("Mul", product, call.number(alpha, call.dtype(product), "alpha"))


def _activated(call: Call, x: Value) -> Value:
    parameters = (call.attrs.get(f"activation_{name}") for name in ("alpha", "beta", "gamma"))
    return activated(call, x, call.attrs.get("activation", ""), *parameters)


def _turned(call: Call, index: int, letter: str) -> Value:
    """An operand as the product reads it. ``transBatch`` moves the first axis behind the others but for the last."""
    x = call.required(index)
    matrix, batch = call.attrs.get(f"trans{letter}", 0), call.attrs.get(f"transBatch{letter}", 0)
    if not matrix and not batch:
        return x
    rank = call.rank(x)
    if rank < 2:
        return x
    order = [*range(1, rank - 1), 0, rank - 1] if batch else list(range(rank))
    if matrix:
        order[-2:] = order[:-3:-1]
    return call.emit("Transpose", x, perm=order)
