"""Activations of com.microsoft, with the sums that are fused into them."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import FLOAT, contributed

_ONE, _ALPHA = (1, 1), 1.702


@contributed("Gelu", {}, _ONE)
def gelu(call: Call) -> Sequence[Value]:
    """Gelu by erf."""
    return call.result("Gelu", call.required(0), domain="")


@contributed("BiasGelu", {}, (2, 2))
def bias_gelu(call: Call) -> Sequence[Value]:
    """Gelu by erf of A + B."""
    return call.result("Gelu", call.emit("Add", call.required(0), call.required(1)), domain="")


@contributed("FastGelu", {}, (1, 2))
def fast_gelu(call: Call) -> Sequence[Value]:
    """Gelu by tanh of X, or of X + bias."""
    x, bias = call.required(0), call.input(1)
    return call.result("Gelu", x if bias is None else call.emit("Add", x, bias), domain="", approximate="tanh")


@contributed("QuickGelu", {"alpha": FLOAT}, _ONE)
def quick_gelu(call: Call) -> Sequence[Value]:
    """Swish by alpha: X * sigmoid(alpha * X)."""
    return call.result("Swish", call.required(0), domain="", alpha=call.attrs.get("alpha", _ALPHA))


@contributed("BiasAdd", {}, (3, 3))
def bias_add(call: Call) -> Sequence[Value]:
    """X + bias + skip."""
    return call.result("Add", call.emit("Add", call.required(0), call.required(1)), call.required(2), domain="")


@contributed("BiasSplitGelu", {}, (2, 2))
def bias_split_gelu(call: Call) -> Sequence[Value]:
    """X + bias in two halves along the last axis: the first times Gelu by erf of the second."""
    total = call.emit("Add", call.required(0), call.required(1))
    left, right = call.emits("Split", 2, total, axis=-1, num_outputs=2)
    return call.result("Mul", left, call.emit("Gelu", right), domain="")


def activated(call: Call, x: Value, name: str, *parameters: float | None) -> Value:
    """The first output of the node: ``x`` through the activation that a fused operator names, "" for none.

    ``parameters`` are its alpha, beta, gamma, or for Clip the bounds; None where they are left out. Raises ModelError for
    another name.
    """
    if not name:
        return call.first("Identity", x)
    if name == "Clip":
        low, high = (None if v is None else call.number(v, call.dtype(x), "bound") for v in (*parameters, None, None)[:2])
        return call.first("Clip", x, low, high)
    if name not in _PARAMETERS:
        known = ", ".join(sorted({*_PARAMETERS, "Clip"}))
        raise ModelError(f"{call.op} with activation {name!r} is not supported; known are {known}")
    given = {key: v for key, v in zip(_PARAMETERS[name], parameters, strict=False) if v is not None}
    return call.first(name, x, **given)


_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""Activations that fused operators name, with the attributes that their parameters are."""
