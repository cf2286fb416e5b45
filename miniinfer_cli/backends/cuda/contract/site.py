"""What a lowering may look at, and the register of lowerings.

A lowering looks at a node with concrete types and gives its tactics, the heuristic's favourite first. One that has a single way
gives that: Lowered (device work), or Rewrite (other nodes in its place). One that cannot gives None: a region's body, or the
operation's own expansion, is then lowered in its place, and what is left of primitive nodes runs on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.backends.cuda.contract.lowering_files import bring, bring_all
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Lowered, Operand, Rewrite
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.lowering_registry import LoweringRegistry
from miniinfer_cli.ir import Array, Constant, DType, Node, TensorType, Type

_READ = 1 << 16  # elements of a constant that known() reads


class OpenSize(ValueError):
    """A lowering asked for a size that depends on data."""


@dataclass(frozen=True, slots=True)
class Site:
    """A node with the concrete types of its operands. Lowerings read it, nothing else.

    ``types`` are the inputs' types, None where an input is absent; ``results`` the outputs', whose shapes hold unknown
    dimensions where they depend on data. ``handles`` has the constant behind each input, None where it is computed.
    ``strided`` has the strides of inputs that are not dense, None for the others (``viewing.py``: only a lowering that says that
    it reads through them is given some).
    """

    node: Node
    types: tuple[Type | None, ...]
    results: tuple[Type | None, ...]
    handles: tuple[Constant | None, ...]
    target: Target
    strided: tuple[tuple[int, ...] | None, ...] = ()

    def has(self, number: int) -> bool:
        """True when the optional input of this number is there."""
        return number < len(self.types) and self.types[number] is not None

    def gives(self, number: int) -> bool:
        """True when the node has an output of this number, which operations with optional ones may lack."""
        return number < len(self.results)

    def operand(self, number: int) -> Argument:
        """The place of an optional input, NULL where it is absent."""
        return Operand.input(number) if self.has(number) else NULL

    def result(self, number: int) -> Argument:
        """The place of an optional output, NULL where the node lacks it."""
        return Operand.output(number) if self.gives(number) else NULL

    def input(self, number: int) -> TensorType:
        """The type of an input that is a tensor of static shape; the program's maker has seen to that."""
        kind = self.types[number]
        assert isinstance(kind, TensorType)
        return kind

    def output(self, number: int = 0) -> TensorType:
        """The type of an output."""
        kind = self.results[number]
        assert isinstance(kind, TensorType)
        return kind

    def shape(self, number: int) -> tuple[int, ...]:
        """The shape of an input."""
        return static_shape(self.input(number))

    def strides(self, number: int) -> tuple[int, ...]:
        """Elements between neighbours along each axis of an input."""
        given = self.strided[number] if number < len(self.strided) else None
        return row_major(self.shape(number)) if given is None else given

    def out_shape(self, number: int = 0) -> tuple[int, ...]:
        """The shape of an output. Raises OpenSize where it depends on data: the node then goes to the host."""
        return static_shape(self.output(number))

    def dtype(self, number: int = 0) -> DType:
        """The element type of an input."""
        return self.input(number).dtype

    def out_dtype(self, number: int = 0) -> DType:
        """The element type of an output."""
        return self.output(number).dtype

    def known(self, number: int) -> Array | None:
        """The contents of an input that are known now: worked out from shapes, or a constant that is not large."""
        if not self.has(number):
            return None
        contents = self.input(number).concrete
        if contents is not None:
            return contents
        handle = self.handles[number]
        return handle.array() if handle is not None and handle.size <= _READ else None

    @property
    def constants(self) -> dict[Operand, Constant]:
        """The constants among the inputs, by their places."""
        return {Operand.input(number): handle for number, handle in enumerate(self.handles) if handle is not None}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute of the node, or the default where it is absent."""
        return self.node.attrs.get(name, default)


def static_shape(kind: TensorType) -> tuple[int, ...]:
    """The shape as ints. Raises OpenSize for one that is not concrete."""
    if kind.shape is None or not kind.is_static:
        raise OpenSize(f"expected a concrete tensor, got {kind}")
    return kind.shape  # type: ignore[return-value]


Lowering = Callable[[Site], Lowered | Rewrite | tuple[Tactic, ...] | None]
_LOWERINGS: LoweringRegistry[Lowering] = LoweringRegistry("CUDA", bring, bring_all)
lowers = _LOWERINGS.register
find_lowering = _LOWERINGS.find
lowered_operations = _LOWERINGS.operations
