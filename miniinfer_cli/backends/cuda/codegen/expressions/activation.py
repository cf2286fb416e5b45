"""Activation functions: Relu and its kin, the sigmoid family, Clip."""

from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits, literal
from miniinfer_cli.ir import DType
from miniinfer_cli.ops.activation_expansions import HARD_SIGMOID_ALPHA, LEAKY_RELU_ALPHA, SELU_ALPHA, SELU_GAMMA

_FUNCTIONS = {
    "HardSwish": "hard_swish", "Mish": "mish", "Relu": "relu", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Softsign": "softsign",
}  # fmt: skip


@emits(*_FUNCTIONS)
def emit_function(call: Call) -> str:
    """A function of activations.cuh without attributes."""
    return f"math::{_FUNCTIONS[call.node.op]}({call.arg(0)})"


@emits("LeakyRelu")
def emit_leaky_relu(call: Call) -> str:
    """x, or alpha * x below 0."""
    return f"math::leaky_relu({call.arg(0)}, {call.number('alpha', LEAKY_RELU_ALPHA)})"


@emits("PRelu")
def emit_prelu(call: Call) -> str:
    """x, or slope * x below 0."""
    return f"math::leaky_relu({call.arg(0)}, {call.arg(1)})"


@emits("Elu", "Celu")
def emit_elu(call: Call) -> str:
    """Exponential below 0."""
    return f"math::{call.node.op.lower()}({call.arg(0)}, {call.number('alpha', 1.0)})"


@emits("Selu")
def emit_selu(call: Call) -> str:
    """gamma * x, or gamma times the exponential at 0 and below."""
    return f"math::selu({call.arg(0)}, {call.number('alpha', SELU_ALPHA)}, {call.number('gamma', SELU_GAMMA)})"


@emits("HardSigmoid")
def emit_hard_sigmoid(call: Call) -> str:
    """alpha * x + beta within [0, 1]."""
    return f"math::hard_sigmoid({call.arg(0)}, {call.number('alpha', HARD_SIGMOID_ALPHA)}, {call.number('beta', 0.5)})"


@emits("Gelu")
def emit_gelu(call: Call) -> str:
    """By the error function, or by ONNX's formula in tanh."""
    return f"math::gelu{'_tanh' if call.attr('approximate', 'none') == 'tanh' else ''}({call.arg(0)})"


@emits("Swish")
def emit_swish(call: Call) -> str:
    """x * sigmoid(alpha * x)."""
    return f"math::swish({call.arg(0)}, {call.number('alpha', 1.0)})"


@emits("SwiGLU")
def emit_swiglu(call: Call) -> str:
    """swish(a, alpha) * b."""
    return f"math::swish({call.arg(0)}, {call.number('alpha', 1.0)}) * {call.arg(1)}"


@emits("ThresholdedRelu")
def emit_thresholded_relu(call: Call) -> str:
    """x above alpha, else 0."""
    return f"{call.arg(0)} > {call.number('alpha', 1.0)} ? {call.arg(0)} : ({call.c})0"


@emits("Shrink")
def emit_shrink(call: Call) -> str:
    """Nearer to 0 by the bias, and 0 around 0; of integers in f64, as numpy does it."""
    bias, limit = call.attr("bias", 0.0), call.attr("lambd", 0.5)
    if call.result.is_float:
        return f"math::shrink({call.arg(0)}, {call.number('bias', bias)}, {call.number('lambd', limit)})"
    wide = [literal(number, DType.F64) for number in (bias, limit)]
    return f"convert<{call.c}>(math::shrink((f64){call.arg(0)}, {', '.join(wide)}))"


@emits("Clip")
def emit_clip(call: Call) -> str:
    """Raised to the lower limit, then lowered to the upper one; either may be left out."""
    x = call.arg(0)
    if call.has(1):
        x = f"math::maximum({x}, {call.arg(1)})"
    return f"math::minimum({x}, {call.arg(2)})" if call.has(2) else x
