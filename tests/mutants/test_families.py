"""Every entry of a register has tests that name it, found by the convention of ``named_tests.py``."""

from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.launching.product_records import Operands
from miniinfer_cli.backends.cuda.launching.products import matrices
from miniinfer_cli.backends.cuda.lowering.matmul import lower_product
from miniinfer_cli.backends.cuda.site import lowered_operations
from miniinfer_cli.backends.cuda.steps import Operand
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.ir import DType
from miniinfer_cli.passes.pipeline import pass_names
from tests.mutants.families import FAMILIES, PRODUCT_KEYS, exchange_code, without_numbers
from tests.mutants.mutant import mutants_of
from tests.mutants.named_tests import ROOT


@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_is_named_by_a_test_file(family: str) -> None:
    entries = FAMILIES[family].entries()
    texts = {file: (ROOT / file).read_text() for files in entries.values() for file in files}
    unnamed = {e: f for e, f in entries.items() if not any(e.rpartition(".")[2].split()[0] in texts[p] for p in f)}
    assert unnamed == {}


def test_registers_are_whole() -> None:
    assert len(FAMILIES["cuda"].entries()) == len(lowered_operations())
    assert tuple(FAMILIES["pass"].entries()) == pass_names()
    names = [m.name for m in mutants_of(FAMILIES)]
    assert len(set(names)) == len(names) > 1000


def test_every_tactic_of_products_has_its_mutants() -> None:
    at = Operands(Operand.input(0), Operand.input(1), Operand.output(0), c=Operand.input(2))
    listed: set[str] = set()
    for m, k, n, c in [(1, 600, 40, None), (40, 2048, 3, None), (20, 600, 24, (0, 0))]:
        product = replace(matrices((m, k), (k, n), (DType.F32,) * 3), c=c)
        listed.update(without_numbers(t.key) for t in lower_product(product, at, Target()))
    assert listed == set(PRODUCT_KEYS)


def twice(x: float, *, by: float = 2) -> float:
    return by * x


def test_a_function_s_code_is_exchanged_for_everyone_who_holds_it() -> None:
    held, code, defaults = twice, twice.__code__, twice.__kwdefaults__
    try:
        exchange_code(twice, lambda function: lambda *a, **k: -function(*a, **k))
        assert (held(3), held(3, by=5)) == (-6, -15)
        exchange_code(twice, lambda function: lambda *a, **k: 10 * function(*a, **k))
        assert (held(3), held(3, by=5)) == (-60, -150)
    finally:
        twice.__code__, twice.__kwdefaults__ = code, defaults
