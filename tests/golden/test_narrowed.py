"""What build narrows becomes the program of a model that was exported in f16: as many steps, of the same kernels and problems."""

import re
from collections import Counter
from unittest import mock

import pytest

from miniinfer_cli.ir import DType, Graph, Numerics
from miniinfer_cli.passes.driver import Report
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.binding_types import retype_bindings
from miniinfer_cli.passes.precision.narrow_floats import ask
from tests.golden import models
from tests.golden.libraries import AllAnswers
from tests.golden.text import program_text


def _narrow(graph: Graph) -> Report:
    ask(graph, Numerics(DType.F16))
    inputs, outputs = ([v.name for v in values if v.tensor.dtype is DType.F32] for values in (graph.inputs, graph.outputs))
    names = [n for n, v in zip(graph.output_names, graph.outputs, strict=True) if v.name in outputs]
    retype_bindings(graph, dict.fromkeys(inputs, DType.F16), dict.fromkeys(names, DType.F16))
    return optimize(graph)


def steps_of(model: models.Model) -> Counter[tuple[str, ...]]:
    """How often each step comes: its operation, and the kernels and library calls within it."""
    steps: list[list[str]] = []
    for line in program_text(model.name, model.graph, model.inputs(1), AllAnswers()).splitlines():
        if line.startswith(("step ", "host ")):
            steps.append([re.search(r"op=(\S+)", line)[1]])  # type: ignore[index]
        elif line.startswith("  "):
            kernel = re.search(r"kernel=(\S+)", line)
            steps[-1].append(kernel[1] if kernel else line.split()[0])
    return Counter(map(tuple, steps))


@pytest.mark.parametrize("name", ["bert_base", "resnet50", "lstm_tagger"])
def test_a_narrowed_model_has_the_steps_of_its_f16_export(name: str) -> None:
    exported = steps_of(models.build(name, "f16"))
    with mock.patch.object(models, "optimize", _narrow):
        narrowed = steps_of(models.build(name, "f32"))
    assert narrowed == exported
