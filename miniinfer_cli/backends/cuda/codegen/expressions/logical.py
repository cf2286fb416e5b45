"""Truth values and what makes and uses them: And, Or, Xor, comparisons, Where."""

from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, emits

_OPERATORS = {
    "And": "&&", "Or": "||", "Xor": "!=", "Equal": "==", "Greater": ">", "GreaterOrEqual": ">=", "Less": "<", "LessOrEqual": "<=",
}  # fmt: skip


@emits(*_OPERATORS)
def emit_operator(call: Call) -> str:
    """C's operator; comparisons with NaN are false."""
    return f"{call.arg(0)} {_OPERATORS[call.node.op]} {call.arg(1)}"


@emits("Where")
def emit_where(call: Call) -> str:
    """A choice."""
    return f"{call.arg(0)} ? {call.arg(1)} : {call.arg(2)}"
