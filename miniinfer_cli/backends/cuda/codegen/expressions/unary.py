"""Operations of one operand: arithmetic, roundings, trigonometry, exponentials, tests for NaN and infinity, Not, Identity."""

from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits

_FUNCTIONS = {
    "Abs": "absolute", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "Log": "log",
    "Neg": "negate", "Reciprocal": "reciprocal", "Round": "rint", "Sign": "sign", "Sin": "sin", "Sinh": "sinh",
    "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip


@emits(*_FUNCTIONS)
def emit_function(call: Call) -> str:
    """A function of arithmetic.cuh."""
    return f"math::{_FUNCTIONS[call.node.op]}({call.arg(0)})"


@emits("Identity")
def emit_identity(call: Call) -> str:
    """The operand."""
    return call.arg(0)


@emits("IsInf")
def emit_is_inf(call: Call) -> str:
    """An infinity of a sign that is asked for."""
    x = call.arg(0)
    signs = [("detect_positive", f"{x} == mi_infinity()"), ("detect_negative", f"{x} == -mi_infinity()")]
    return " || ".join(test for name, test in signs if call.attr(name, 1)) or "false"


@emits("IsNaN")
def emit_is_nan(call: Call) -> str:
    """Not equal to itself."""
    return f"{call.arg(0)} != {call.arg(0)}"


@emits("Not")
def emit_not(call: Call) -> str:
    """The other truth value."""
    return f"!{call.arg(0)}"


@emits("BitwiseNot")
def emit_bitwise_not(call: Call) -> str:
    """Every bit inverted."""
    return f"({call.c})~{call.arg(0)}"
