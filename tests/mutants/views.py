"""Mutants of what is no work: results that are views, operands that are parts, and lowerings that read through strides."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from miniinfer_cli.backends.cuda.contract import viewing
from miniinfer_cli.backends.lowering_registry import LoweringRegistry
from tests.mutants.mutant import AWAY, Function, Note

_OPERATIONS = (
    "tactics/test_patches",
    "tactics/test_fused_normalization",
    "tactics/test_rotary",
    "tactics/test_quantized_regions",
    "joins/test_cached_attention",
    "joins/test_quantized_attention",
)
_NAMES = ("test_views", "test_known_places", "test_assembled", *_OPERATIONS)
_FILES = tuple(f"tests/backends/cuda/{name}.py" for name in _NAMES)
_FURTHER = 16  # elements, of whatever type at least 16 bytes, so that a view may begin there
_READERS = (
    "Attention",
    "MatMul",
    "FusedMatMul",
    "ConvNHWC",
    "FusedConv",
    "QuantizedConv",
    "FusedNormalization",
    "RotaryEmbedding",
    "CachedAttention",
    "Add",
    "Slice",
    "Tile",
    "Concat",
)
_REGISTERS: dict[str, LoweringRegistry[Any]] = {
    "as a view": viewing._VIEWS,
    "in one piece": viewing._ASSEMBLED,
    "through strides": viewing._READERS,
}


class Views:
    """One entry for each function, called like an operation that it is for. Away, copies are made; moved, others are read."""

    name = "view"
    ways: tuple[str, ...] = (AWAY, "moved")
    may_not_apply: frozenset[str] = frozenset({"moved"})  # who reads is told what to read

    def entries(self) -> dict[str, tuple[str, ...]]:
        found = [
            f"{op} {how}" for how, register in _REGISTERS.items() for _, op in register._lowerings if how != "through strides"
        ]
        return dict.fromkeys([*found, *(f"{op} through strides" for op in _READERS)], _FILES)

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        op, _, how = entry.partition(" ")
        register = _REGISTERS[how]._lowerings
        function = next(f for (_, name), f in register.items() if name == op)
        made = make(function)
        register.update({key: made for key, f in register.items() if f is function})

    def did(self, answer: Any) -> bool:
        return bool(answer)

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Function:
        def answer(*arguments: Any) -> Any:
            found = function(*arguments)
            if not found or (way != AWAY and found is True):
                return found
            applied()
            return None if way == AWAY else _moved(found)

        return answer


def functions() -> set[Any]:
    """All that is registered."""
    return {f for register in _REGISTERS.values() for f in register._lowerings.values()}


def _moved(found: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(found[0], viewing.View):
        return tuple(replace(v, offset=v.offset + _FURTHER) for v in found)
    return (*found[:-1], found[-1] - viewing.ALIGNMENT)
