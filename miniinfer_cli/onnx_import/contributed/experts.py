"""MoE and QMoE: layers of experts, of which each token takes the best few."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.packing import expect_bits, unpacked, without_middle
from miniinfer_cli.onnx_import.registry import FLOAT, INT, STRING, contributed

_ROUTED = {
    "activation_alpha": FLOAT, "activation_beta": FLOAT, "activation_type": STRING, "k": INT, "normalize_routing_weights": INT,
    "swiglu_fusion": INT, "swiglu_limit": FLOAT, "swiglu_limit_after_activation": INT, "use_sparse_mixer": INT,
}  # fmt: skip
_QUANTIZED = {
    **_ROUTED, "accuracy_level": INT, "block_size": INT, "expert_weight_bits": INT, "fc1_expert_weight_bits": INT,
    "fc2_expert_weight_bits": INT, "fc3_expert_weight_bits": INT, "quant_type": STRING, "weights_prepacked": INT,
}  # fmt: skip
_FIXED = {"swiglu_limit_after_activation": 0, "use_sparse_mixer": 0}


@contributed("MoE", _ROUTED, (5, 8), fixed=_FIXED, absent={6: "fc3_experts_weights", 7: "fc3_experts_bias"})
def moe(call: Call) -> Sequence[Value]:
    """All experts on all tokens (two MatMuls with an activation between), summed by the weights of the best k of each token."""
    weights = call.required(2), call.required(4)
    shares = call.emit("Softmax", call.required(1), axis=-1)
    best, which = _routes(call, shares, shares)
    return (_mixed(call, weights, (call.input(3), call.input(5)), (best, which)),)


@contributed(
    "QMoE",
    _QUANTIZED,
    (7, 21),
    fixed={**_FIXED, "quant_type": "int", "weights_prepacked": -1},
    ignored=("accuracy_level", "fc3_expert_weight_bits"),
    absent={
        8: "fc3_experts_weights", 9: "fc3_scales", 10: "fc3_experts_bias", 13: "fc3_zero_points", 15: "fc1_global_scale",
        16: "fc2_global_scale", 17: "fc1_act_scale", 18: "fc2_act_scale", 19: "fc1_act_block_scale", 20: "fc2_act_block_scale",
    },
)  # fmt: skip
def qmoe(call: Call) -> Sequence[Value]:
    """MoE by the DequantizeLinear of the weights, with the softmax of the best k scores as their shares."""
    first = _weights(call, 2, 3, 11, "fc1")
    second = _weights(call, 5, 6, 12, "fc2")
    best, which = _routes(call, call.required(1), call.input(14))
    return (_mixed(call, (first, second), (call.input(4), call.input(7)), (best, which)),)


def _routes(call: Call, scores: Value, shares: Value | None) -> tuple[Value, Value]:
    """The shares and the numbers of each token's best k experts. ``shares``: of all; None for the softmax of the best scores."""
    best, which = call.emits("TopK", 2, scores, call.integers([call.attrs.get("k", 1)], "k"), axis=-1)
    if shares is None:
        return call.emit("Softmax", best, axis=-1), which
    best = call.emit("GatherElements", shares, which, axis=-1)
    if call.attrs.get("normalize_routing_weights", 0):
        best = call.emit("Div", best, call.emit("ReduceSum", best, call.integers([-1], "axis"), keepdims=1))
    return best, which


def _weights(call: Call, at: int, scale_at: int, zero_at: int, name: str) -> Value:
    """[experts, rows, columns] as floats: rows of packed integers with a scale each, or one for each block of them."""
    bits = call.attrs.get(f"{name}_expert_weight_bits", call.attrs.get("expert_weight_bits", 4))
    packed, scales, zeros = call.required(at), call.required(scale_at), call.input(zero_at)
    expect_bits(call, bits)
    if len(sizes := call.sizes(packed)) != 3 or 0 in sizes:
        raise ModelError(f"{call.op} needs weights of three axes, got {packed.type}")
    experts, rows, nbytes = sizes
    columns = nbytes * 8 // bits
    block = call.count("block_size", columns) if call.attrs.get("block_size") else columns
    count = -(-columns // block)
    factors = call.emit("Reshape", scales, call.integers([experts, rows, count], "scales"))
    stored = unpacked(call, packed, bits, (experts, rows, columns))
    points = None
    if zeros is None:
        stored = without_middle(call, stored, bits)
    elif count == 1 and call.rank(zeros) == 2:  # packed along the rows
        points = call.emit("Unsqueeze", unpacked(call, zeros, bits, (experts, rows)), call.integers([2], "axis"))
    else:
        points = unpacked(call, zeros, bits, (experts, rows, count))
    if call.dtype(stored) is DType.F32 or (points is not None and call.dtype(points) is not call.dtype(stored)):
        raise ModelError(f"{call.op} needs constant weights and zero points")
    return call.emit("DequantizeLinear", stored, factors, points, axis=2, block_size=block)


def _mixed(
    call: Call, weights: tuple[Value, Value], biases: tuple[Value | None, Value | None], routes: tuple[Value, Value]
) -> Value:
    """The first output. ``weights`` are [experts, out, in]; ``routes``: shares and numbers of each token's experts."""
    x, scores = call.required(0), call.required(1)
    tokens = call.emit("Reshape", x, call.integers([-1, call.last_size(x)], "tokens"))
    hidden = _activated(call, _all(call, call.emit("Unsqueeze", tokens, call.integers([0], "axis")), weights[0], biases[0]))
    results = _all(call, hidden, weights[1], biases[1])
    best, which = routes
    nothing = call.emit("Sub", scores, scores)
    dense = call.emit("ScatterElements", nothing, which, call.cast(best, call.dtype(scores)), axis=1)
    share = call.emit("Unsqueeze", call.emit("Transpose", dense, perm=[1, 0]), call.integers([2], "axis"))
    total = call.emit("ReduceSum", call.emit("Mul", results, share), call.integers([0], "axis"), keepdims=0)
    return call.first("Reshape", total, call.emit("Shape", x), allowzero=1)


def _all(call: Call, x: Value, weights: Value, bias: Value | None) -> Value:
    """[1 or experts, tokens, in] to [experts, tokens, out]."""
    y = call.emit("MatMul", x, call.emit("Transpose", weights, perm=[0, 2, 1]))
    return y if bias is None else call.emit("Add", y, call.emit("Unsqueeze", bias, call.integers([1], "axis")))


def _activated(call: Call, x: Value) -> Value:
    match name := call.attrs.get("activation_type", "relu"):
        case "swiglu":
            return _swiglu(call, x)
        case "relu":
            return call.emit("Relu", x)
        case "gelu":
            return call.emit("Gelu", x, approximate="tanh")
        case "silu":
            return call.emit("Swish", x)
        case "identity":
            return x
    raise ModelError(f"{call.op} activation_type {name!r} is not supported, only swiglu, relu, gelu, silu, identity")


def _swiglu(call: Call, x: Value) -> Value:
    """gate * sigmoid(alpha * gate) * (linear + beta), both held within the limit: the gate from above alone."""
    fusion, dtype = call.attrs.get("swiglu_fusion", 0), call.dtype(x)
    if fusion == 1:  # gate and linear in turns
        pairs = call.emit("Reshape", x, call.integers([0, 0, -1, 2], "pairs"))
        halves = call.emits("Split", 2, pairs, axis=3, num_outputs=2)
        gate, linear = (call.emit("Squeeze", half, call.integers([3], "axis")) for half in halves)
    elif fusion == 2:
        gate, linear = call.emits("Split", 2, x, axis=-1, num_outputs=2)
    else:
        raise ModelError(f"{call.op} with swiglu and swiglu_fusion {fusion} is not supported, only with 1 and 2")
    if (limit := call.attrs.get("swiglu_limit")) is not None:
        high, low = (call.number(v, dtype, "limit") for v in (limit, -limit))
        gate, linear = call.emit("Clip", gate, None, high), call.emit("Clip", linear, low, high)
    turned = call.emit("Swish", gate, alpha=call.attrs.get("activation_alpha", 1.0))
    beta = call.attrs.get("activation_beta", 0.0)
    return call.emit("Mul", turned, call.emit("Add", linear, call.number(beta, dtype, "beta")) if beta else linear)
