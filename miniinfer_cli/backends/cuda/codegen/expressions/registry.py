"""The register of pointwise operations as C expressions, and what an emitter may look at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type
from miniinfer_cli.ir import Array, DType, Node


@dataclass(frozen=True, slots=True)
class Call:
    """One node of a chain. ``args`` are its operands as C names in the types computed in, None where one is left out.

    ``stored`` are the same operands as C expressions in their storage types. ``known`` has the contents of
    operands that are literals.
    """

    node: Node
    args: tuple[str | None, ...]
    stored: tuple[str | None, ...]
    dtypes: tuple[DType | None, ...]
    known: tuple[Array | None, ...]
    result: DType

    @property
    def c(self) -> str:
        """The C type that the result is computed in."""
        return computed_type(self.result)

    def arg(self, number: int) -> str:
        """An operand that must be there."""
        found = self.args[number]
        assert found is not None
        return found

    def dtype(self, number: int) -> DType:
        """The element type of an operand that must be there."""
        found = self.dtypes[number]
        assert found is not None
        return found

    def has(self, number: int) -> bool:
        """True when the optional operand of this number is there."""
        return number < len(self.args) and self.args[number] is not None

    def attr(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return self.node.attrs.get(name, default)

    def number(self, name: str, default: float) -> str:
        """An attribute that is a number, as a literal of the type computed in."""
        return literal(self.attr(name, default), self.result)


Emitter = Callable[[Call], str]
_EMITTERS: dict[tuple[str, str], tuple[Emitter, bool]] = {}


def emits(*names: str, domain: str = "", stored: bool = False) -> Callable[[Emitter], Emitter]:
    """Registers an emitter: it gives the node's result as a C expression of the type computed in.

    ``stored``: of the storage type instead, for operations that round even within a chain. Raises ValueError when an
    operation has an emitter already.
    """

    def register(emitter: Emitter) -> Emitter:
        for name in names:
            if _EMITTERS.setdefault((domain, name), (emitter, stored))[0] is not emitter:
                raise ValueError(f"{name} has two CUDA expressions")
        return emitter

    return register


def find_emitter(node: Node) -> tuple[Emitter, bool] | None:
    """The emitter of the node's operation and whether it gives the storage type; None when there is none."""
    return _EMITTERS.get((node.domain, node.op))


def literal(value: Any, dtype: DType) -> str:
    """A number as a C literal of the type that ``dtype`` is computed in; exact."""
    c = computed_type(dtype)
    if c == "bool":
        return "true" if value else "false"
    if c not in ("f32", "f64"):
        number = int(value)
        suffix = "ULL" if number >= 1 << 63 else "LL"
        return f"({c})({number + 1}LL - 1)" if number < 0 else f"({c}){number}{suffix}"
    with np.errstate(over="ignore"):
        real = float(np.float32(value)) if c == "f32" else float(value)
    if real != real:
        return f"({c})mi_nan()"
    if real in (float("inf"), float("-inf")):
        return f"({c}){'-' if real < 0 else ''}mi_infinity()"
    text = real.hex() + ("f" if c == "f32" else "")
    return f"({text})" if text.startswith("-") else text


def narrowed(expression: str, dtype: DType) -> str:
    """An expression of the type computed in, in the storage type."""
    c = c_type(dtype)
    return expression if c == computed_type(dtype) else f"narrow<{c}>({expression})"


def widened(expression: str, dtype: DType) -> str:
    """An expression of the storage type, in the type computed in."""
    return expression if c_type(dtype) == computed_type(dtype) else f"widen({expression})"
