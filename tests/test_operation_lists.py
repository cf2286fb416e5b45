"""What others need to know of an operation is a field of its definition: no module outside ops/ keeps a list of names."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniinfer_cli.ops.registry import defined

ROOT = Path(__file__).parents[1] / "miniinfer_cli"
NAMES = frozenset(d.name for d in defined())
MANY = 3
"""Names from which on a tuple, list or set is a list of operations; a pair is two sides of one pattern."""
REGISTERS = frozenset({"lowers", "lowers_pointwise", "emits", "register"})
"""Calls that say of each operation who does it: a lowering's and an expression's own registrations."""
# Where such a list is part of what the module itself knows, and a new operation would change nothing.
REASONED = {
    "backends/cpu/lowering/elementwise.py": "the registrations of ufuncs, and which of them may work in place",
    "backends/cuda/codegen": "expressions, which are registered by the tables of their C functions",
    "backends/cuda/tactics": "the registrations of a family that shares one lowering",
    "passes": "the operations that a pattern consists of, and a pass's own rule for each",
}


def lists_in(source: str) -> Iterator[tuple[int, list[str]]]:
    """The line and the names of each list of operations."""
    tree = ast.parse(source)
    registered = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REGISTERS
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)) and id(node) not in registered:
            names = [e.value for e in node.elts if isinstance(e, ast.Constant) and e.value in NAMES]
            if len(names) >= MANY:
                yield node.lineno, names


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_module_lists_operations():
    found = [
        f"{place_of(path)}:{line} {names}"
        for path in sorted(ROOT.rglob("*.py"))
        if not place_of(path).startswith(("ops/", *REASONED))
        for line, names in lists_in(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("place", REASONED)
def test_what_is_allowed_is_needed(place: str):
    files = [ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py")
    assert any(list(lists_in(f.read_text())) for f in files)


def test_a_list_is_seen():
    assert [names for _, names in lists_in('X = frozenset({"If", "Loop", "Scan"})')] == [["If", "Loop", "Scan"]]
    assert not list(lists_in('@lowers("If", *("If", "Loop", "Scan"))\ndef f(): ...'))
    assert not list(lists_in('X = ("a", "b", "c", "If", "Loop")'))


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("view", {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}),
        ("control", {"If", "Loop", "Scan"}),
        ("tells_shape", {"Shape", "Size"}),
    ],
)
def test_fields_of_few_operations(field: str, names: set[str]):
    assert {d.name for d in defined() if getattr(d, field)} == names


def test_what_multiplies_is_heavy():
    heavy = {d.name for d in defined() if d.heavy}
    assert (
        heavy >= {"MatMul", "Conv", "ConvNHWC", "LSTM", "Attention", "CausalConvWithState", "LinearAttention"}
        and len(heavy) == 25
    )
