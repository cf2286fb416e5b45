"""Which step reads what which other wrote."""

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.planning.flow import sources_of
from tests.emulation.engine import open_emulated, plan_of

BRANCHES = """graph main(x: f32[2,16]) {
  a, b = Split(x) {axis=AXIS, num_outputs=2}
  c = Softmax(a)
  d = Softmax(b)
  y = Concat(c, d) {axis=AXIS}
  z = Softmax(y)
  return z
}"""


def test_steps_read_slots_and_parts_of_roots():
    steps = [
        ([0], [1]),  # an input: nobody wrote it
        ([1], [2]),
        ([1], [3]),
        ([4], [5]),  # the root of 2 and 3
        ([1, 5, 2], [1]),  # in place
        ([1], [6]),
    ]
    assert sources_of(steps, lambda slot: 4 if slot in (2, 3) else slot) == ((), (0,), (0,), (1, 2), (0, 1, 3), (0, 4))
    assert sources_of([]) == ()


@pytest.mark.parametrize(
    ("device", "axis", "kinds", "sources"),
    [
        ("cpu", 1, ["Split", "Softmax", "Softmax", "Concat", "Softmax"], ((), (0,), (0,), (1, 2), (3,))),
        ("gpu", 0, ["Softmax", "Softmax", "Softmax"], ((), (), (0, 1))),  # parts of one buffer: nothing to split, or to join
    ],
)
def test_programs_tell_their_flow(device, axis, kinds, sources):
    plan = plan_of(BRANCHES.replace("AXIS", str(axis)))
    with load(plan, "cpu") if device == "cpu" else open_emulated(plan) as engine:
        program = engine.program(engine.check({"x": np.ones((2, 16), np.float32)}))
        assert [step.kind for step in program.steps] == kinds
        assert tuple(map(tuple, program.sources())) == sources
