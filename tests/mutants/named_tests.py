"""Which test files name an entry of a register: those called like the module that it is defined in.

A lowering of ``gather.py`` is tested by ``test_gather.py``. One lowering may serve operations of several families
(``pointwise.py``): these are tested by the files called like their families, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.cuda.codegen.expressions import registry
from miniinfer_cli.ops.registry import find

ROOT = Path(__file__).parents[2]
CUDA = "tests/backends/cuda/tactics"
CPU = "tests/backends/cpu/lowering"
PASSES = "tests/passes"


def files_of(folder: str, *stems: str) -> tuple[str, ...]:
    """The test files of ``folder`` that are called like one of these modules; those that there are."""
    files = (f"{folder}/test_{stem}.py" for stem in dict.fromkeys(stems))
    return tuple(f for f in files if (ROOT / f).exists())


def module_of(function: Callable[..., Any]) -> str:
    """The last part of the name of the module that defines a function."""
    return function.__module__.rpartition(".")[2]


def families_of(domain: str, op: str) -> tuple[str, ...]:
    """The modules called like an operation's family: of its reference, and of its expression in C."""
    opdef, (emitter, _) = find(domain, op), registry._EMITTERS.get((domain, op), (None, False))
    return tuple(module_of(f) for f in (opdef.reference if opdef is not None else None, emitter) if f is not None)
