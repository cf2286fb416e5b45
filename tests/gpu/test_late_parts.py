"""Parts whose sizes depend on data, on a GPU: computed there, for sizes that change and come again."""

import numpy as np
import pytest

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.planning.freeze import freeze
from tests.graph_text import typed_graph
from tests.late_graphs import TEXTS, feeds


def plan_of(text: str) -> Plan:
    return freeze(typed_graph(text))


@pytest.mark.parametrize("name", TEXTS)
def test_the_references_results_for_all_sizes(name: str) -> None:
    with miniinfer_cli.load(plan_of(TEXTS[name]), "cuda:0") as engine, engine.create_context() as context:
        for rows, seed in ((5, 0), (5, 0), (5, 1), (9, 2), (5, 0), (1, 3), (1, 4), (700, 5), (9, 2), (9, 2), (700, 5)):
            given = feeds(name, rows, seed)
            want = interpret(typed_graph(TEXTS[name]), list(given.values()))
            for got, expected in zip(context.run(given).values(), want, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-5, strict=True)
        assert [s.tactic for s in engine.program(engine.check(given)).steps].count("late") == 1
