"""Whole plans on the emulated device, beside the processor."""

import numpy as np

from miniinfer_cli.backends.cuda.choice import tactics
from miniinfer_cli.devices.opening import load
from tests.emulation.engine import open_emulated, plan_of


def keep_from_device(monkeypatch, *operations: str) -> None:
    """These operations have no lowering, for the test."""
    find = tactics.find_lowering
    monkeypatch.setattr(tactics, "find_lowering", lambda node: None if node.op in operations else find(node))


def check(emulated, text: str, *inputs: dict, rounds: int = 3) -> tuple[dict, list[str]]:
    """Runs every input a few times in turn, compares with the processor; host copies per inference, and the host steps."""
    plan = plan_of(text)
    with load(plan, "cpu") as cpu, open_emulated(plan, emulated) as engine, engine.create_context() as context:
        want = [cpu.run(i) for i in inputs]
        for _ in range(rounds):
            futures = [context.enqueue(i) for i in inputs]
            for future, expected in zip(futures, want, strict=True):
                assert_same(future.result(), expected)
        before = engine.stats()["host_copies"]
        assert_same(context.run(inputs[0]), want[0])
        after = engine.stats()["host_copies"]
        program = engine.program(engine.check(inputs[0]))
        return {k: after[k] - before[k] for k in after}, [s.kind for s in program.host_steps]


def assert_same(got: dict, want: dict) -> None:
    assert list(got) == list(want)
    for name in want:
        compare(got[name], want[name])


def compare(got, want) -> None:
    if isinstance(want, list):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            compare(g, w)
    elif want is None:
        assert got is None
    else:
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(got, want)
