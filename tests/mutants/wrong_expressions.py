"""A pointwise operation's C expression, made wrong."""

from collections.abc import Callable

from miniinfer_cli.backends.cuda.codegen.expressions.registry import Call, Emitter
from miniinfer_cli.backends.cuda.contract.types import c_type

WAYS = ("scaled",)
"""Every result scaled by 1.01; of integers and truth values the lowest bit turned."""

_INTEGERS = {f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64)}


def change(emitter: Emitter, applied: Callable[[], None], *, stored: bool) -> Emitter:
    """The emitter with its expression made wrong. ``stored``: the expression is of the storage type."""

    def emit(call: Call) -> str:
        expression = emitter(call)
        c = c_type(call.result) if stored else call.c
        if c == "bool":
            wrong = f"!({expression})"
        elif c in _INTEGERS:
            wrong = f"({c})(({expression}) ^ 1)"
        elif c in ("f32", "f64"):
            wrong = f"({c})(({expression}) * ({c})1.01)"
        elif c in ("f16", "bf16"):
            wrong = f"narrow<{c}>(widen({expression}) * 1.01f)"
        else:  # the narrowest types: those wider are tested, too
            return expression
        applied()
        return wrong

    return emit
