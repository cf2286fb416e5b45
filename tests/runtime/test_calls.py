"""Calls of engines and contexts that are none, copies of what is one thing, and calls from within a run."""

import copy
import pickle

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ops.registry import define
from tests.everywhere import parsed
from tests.runtime.test_engine import plan_of

X = np.ones(2, np.float32)
BOTH = {"x": X, "w": X}
ADD = parsed("g (float[n] x, float[n] w) => (float[n] y) { y = Add(x, w) }")


@pytest.fixture
def engine():
    with miniinfer_cli.load(miniinfer_cli.build(ADD), "cpu") as opened:
        yield opened


MISCALLED = [
    ((), {}, "0 arguments"),
    ((X, X), {}, "2 arguments"),
    ((X, X, X), {}, "3 arguments"),
    ((), BOTH, "x, w by keyword"),
    ((BOTH,), {"on_gpu": True}, "1 argument and on_gpu by keyword"),
]


@pytest.mark.parametrize(("args", "named", "got"), MISCALLED)
@pytest.mark.parametrize("call", ["run", "context.run", "context.enqueue", "context.try_enqueue"])
def test_another_number_of_arguments_is_told_with_the_inputs(engine, call, args, named, got):
    owner = engine.create_context() if "." in call else engine
    name = call.rpartition(".")[2]
    if call == "context.run" and len(args) == 2:
        args = (*args, X)  # the second is where the times go
        got = "3 arguments"
    with pytest.raises(UsageError) as caught:
        getattr(owner, name)(*args, **named)
    assert caught.value.message == f"{name}: expected one dict of names and arrays, got {got}"
    assert caught.value.hint == f"give all inputs in one dict: {name}({{'x': ..., 'w': ...}})"


def test_inputs_may_be_given_by_the_name_of_the_parameter(engine):
    assert engine.run(inputs=BOTH)["y"].tolist() == [2, 2]
    times: list[int] = []
    assert engine.create_context().run(BOTH, times)["y"].tolist() == [2, 2]
    assert engine.create_context().enqueue(BOTH, on_device=False).result()["y"].tolist() == [2, 2]
    assert len(times) == 1


def test_a_plan_without_inputs_runs_without_arguments():
    with load(plan_of("graph main() {\n  one: f32[1] = const [1.0]\n  y = Neg(one)\n  return y\n}"), "cpu") as engine:
        assert engine.run()["y"].tolist() == [-1]
        assert engine.create_context().enqueue().result()["y"].tolist() == [-1]


def test_many_inputs_are_not_all_shown():
    text = ", ".join(f"float[1] x{i}" for i in range(9))
    plan = miniinfer_cli.build(parsed(f"g ({text}) => (float[1] y) {{ y = Neg(x0) }}"))
    told = r"run\({'x0': \.\.\., 'x1': \.\.\., 'x2': \.\.\., 'x3': \.\.\., \.\.\.}\)"
    with miniinfer_cli.load(plan, "cpu") as engine, pytest.raises(UsageError, match=told):
        engine.run()


KINDS = [("engine", "load the plan once more"), ("context", "make another: engine"), ("future", "hand on what result")]


@pytest.mark.parametrize(
    ("copied", "what", "hint"),
    [*((how, *kind) for how in (copy.copy, copy.deepcopy) for kind in KINDS), *((pickle.dumps, *kind) for kind in KINDS[1:])],
)
def test_what_lives_in_one_process_is_neither_copied_nor_pickled(engine, copied, what, hint):
    context = engine.create_context()
    one = {"engine": lambda: engine, "context": lambda: context, "future": lambda: context.enqueue(BOTH)}[what]()
    with pytest.raises(UsageError, match=rf"can be neither copied nor pickled\n  hint: {hint}"):
        copied(one)
    assert engine.run(BOTH)["y"].tolist() == [2, 2]


@pytest.mark.parametrize(
    "call", [lambda e: e.run(BOTH), lambda e: e.create_context(), lambda e: e.stats(), lambda e: e.check(BOTH)]
)
def test_a_closed_engine_says_how_to_get_another(engine, call):
    engine.close()
    with pytest.raises(UsageError, match=r"the engine is closed\n  hint: load the plan again"):
        call(engine)


# -- from within a run -----------------------------------------------------------------------------------------------------


class Asked:
    """An input that is computed when it is asked for."""

    def __init__(self, compute):
        self._compute = compute

    def __array__(self, dtype=None, copy=None):
        return self._compute()


def test_an_input_may_be_computed_by_the_engine_itself(engine):
    asked = Asked(lambda: engine.run(BOTH)["y"])
    assert engine.run({"x": asked, "w": X})["y"].tolist() == [3, 3]


@pytest.fixture
def calling_back():
    """An engine with an operation that calls what is appended to the list, and the list."""
    calls = []
    define(
        "Back",
        domain="test.calls",
        infer=lambda x: x,
        reference=lambda x: (calls[0](), x)[1],
    )
    return calls


def test_a_run_within_a_run_of_one_context_is_refused(calling_back):
    proto = parsed("g (float[2] x) => (float[2] y) { y = test.calls.Back(x) }", **{"test.calls": 1})
    plan = miniinfer_cli.build(proto)
    told = r"this context is in use by a run around this call\n  hint: come back when the run has ended"
    with load(plan, "cpu") as engine:
        context = engine.create_context()
        for call in (lambda: engine.run({"x": X}), engine.close):
            calling_back[:] = [call]
            with pytest.raises(UsageError, match=told):
                engine.run({"x": X})
        for call in (lambda: context.run({"x": X}), lambda: context.enqueue({"x": X}), context.close):
            calling_back[:] = [call]
            with pytest.raises(UsageError, match=told):
                context.run({"x": X})
        calling_back[:] = [lambda: None]
        assert engine.run({"x": X})["y"].tolist() == context.run({"x": X})["y"].tolist() == [1, 1]
