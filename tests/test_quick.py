"""The tests of make quick are there, and among them each pass, each command and each part that the list promises."""

import ast
from pathlib import Path

import pytest

from tests.passes.names import pass_names

TESTS = Path(__file__).parent
LIST = TESTS / "quick.txt"


def entries() -> list[str]:
    """Files under ``tests/``, or ``FILE::TEST``."""
    return [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("entry", entries())
def test_what_is_listed_is_there(entry: str):
    file, _, name = entry.partition("::")
    assert (TESTS / file).is_file(), f"{LIST.name} names {file}, which is gone: take it out, or name what holds the same now"
    tree = ast.parse((TESTS / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert any(function.startswith("test_") for function in functions)
    assert not name or name in functions


def test_nothing_is_listed_twice():
    assert sorted(set(entries())) == sorted(entries())


def test_every_pass_is_among_them():
    listed = {Path(entry).stem.removeprefix("test_") for entry in entries() if entry.startswith("passes/")}
    assert set(pass_names()) - listed == set()
