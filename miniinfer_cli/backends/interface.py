"""What the runtime asks of a backend. Each backend package implements these three."""

from collections.abc import Sequence
from typing import Any, Protocol

from miniinfer_cli.ir import Type


class Step(Protocol):
    """One thing a program does, as reports name it."""

    @property
    def label(self) -> str:
        """The node's name."""

    @property
    def kind(self) -> str:
        """The operation, with its domain if it is not ONNX's."""

    @property
    def tactic(self) -> str:
        """How it is done: a kernel, a view, the reference ..."""


class Program(Protocol):
    """A model made ready for one set of input types; immutable, shared by contexts."""

    @property
    def steps(self) -> Sequence[Step]:
        """What it does, in order."""

    @property
    def arena_nbytes(self) -> int:
        """Peak bytes of intermediates on the device, as planned."""

    @property
    def activation_nbytes(self) -> int:
        """Bytes that the intermediates would take with no memory shared."""


class DeviceContext(Protocol):
    """What one stream of work owns on a device. Used by one thread at a time."""

    def execute(self, program: Any, inputs: Sequence[Any], times_ns: list[int] | None = None) -> tuple[Any, ...]:
        """Runs a program that this context's model made; the caller owns the outputs.

        ``times_ns`` receives one duration per step.
        """

    @property
    def arena_nbytes(self) -> int:
        """Bytes of the arena held now."""

    def close(self) -> None:
        """Lets everything go; may be called twice."""


class LoadedModel(Protocol):
    """A model on a device: its weights, held once and shared by programs and contexts."""

    @property
    def device(self) -> str:
        """The device's name as a flag spells it: ``cpu``, ``cuda:0``."""

    def make_program(self, inputs: Sequence[Type | None]) -> Program:
        """Lowers the model for these input types. Raises ModelError when the shapes do not go through."""

    def make_context(self) -> DeviceContext:
        """A context of its own for one more stream of work."""

    def close(self) -> None:
        """Lets the weights go; may be called twice."""
