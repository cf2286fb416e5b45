"""What is assembled in one piece is written there at once: by whom, when it is copied instead, and who reads a part."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.devices.opening import load
from tests.backends.cuda.checked_runs import assert_same, keep_from_device
from tests.backends.cuda.graph_runs import kinds, run, some
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph

ASSEMBLED = """
graph main(x: f32[1,8,6], y: f32[1,4,6]) {
  f: i64[1] = const [-1]
  a = Neg(x)
  b = Exp(y)
  t = Reshape(b, f)
  c = Concat(a, b) {axis=1}
  d = Neg(c)
  e = Neg(t)
  return d, e
}
"""


def test_what_is_joined_is_written_where_it_will_lie() -> None:
    program = run(ASSEMBLED)
    assert kinds(program) == ["Neg", "Exp", "Neg", "Neg"]
    parts = [program.slots[s.writes[0]] for s in program.steps[:2]]  # type: ignore[union-attr]
    assert parts[0].root == parts[1].root and [p.offset for p in parts] == [0, 192]
    assert program.arena_nbytes == 512


def test_what_is_joined_may_be_an_output_and_its_parts_too() -> None:
    program = run(ASSEMBLED.replace("return d, e", "return c, d, a, b"))
    assert kinds(program) == ["Neg", "Exp", "Neg", "Neg", "Copy", "Copy"]
    assert program.slots[program.slots[program.output_slots[0]].root].type == program.slots[program.output_slots[0]].type


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({"f32[1,8,6], y: f32[1,4,6]": "f32[2,8,6], y: f32[2,4,6]"}, True),  # rows of one between those of the other
        ({"[1,8,6]": "[1,7,6]"}, True),  # the second part begins at 168 bytes
        ({"Concat(a, b)": "Concat(x, b)"}, True),  # an input lies where it is
        ({"Concat(a, b)": "Concat(b, b)"}, True),
        (
            {
                "Concat(a, b)": "Concat(a, t2)",
                "c =": "t2 = Reshape(t, s)\n  c =",
                "f: i64": "s: i64[3] = const [1, 4, 6]\n  f: i64",
            },
            True,
        ),
        ({"e = Neg(t)": "g = Concat(b, a) {axis=1}\n  e = Neg(g)"}, True),  # a value has one place
        ({"axis=1": "axis=-2"}, False),
    ],
)
def test_what_cannot_be_written_where_it_is_joined_is_copied(change: dict[str, str], done: bool) -> None:
    text = ASSEMBLED
    for old, new in change.items():
        text = text.replace(old, new)
    assert ("Concat" in kinds(run(text))) is done


def test_a_host_step_reads_a_part_before_and_behind_the_whole(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_from_device(monkeypatch, "Erf", "Sin")
    text = ASSEMBLED.replace("Exp", "Abs").replace("d = Neg(c)", "h = Erf(a)\n  i = Sin(c)\n  j = Erf(b)\n  d = Neg(c)")
    text = text.replace("return", "return h, i, j,")
    plan = plan_of(text)
    with load(plan, "cpu") as cpu, open_emulated(plan, emulated) as engine, engine.create_context() as context:
        feeds = dict(zip(("x", "y"), some(typed_graph(text)), strict=True))
        assert "Concat" not in {s.kind for s in engine.program(engine.check(feeds)).steps}
        for scale in (1, 2, 3):
            given = {k: v * np.float32(scale) for k, v in feeds.items()}
            assert_same(context.run(given), cpu.run(given))


def test_who_forces_a_tactic_gets_it() -> None:
    text = ASSEMBLED.replace("f: i64", "sizes: i64[2] = const [4, 8]\n  f: i64")
    text = text.replace("return d, e", "p, q = Split(c, sizes) {axis=1}\n  g = Neg(p)\n  h = Neg(q)\n  return d, e, g, h")
    assert kinds(run(text)) == ["Neg", "Exp", *["Neg"] * 4]
    forced = Target(tf32=False, policy=Policy(forced={"c": "concat", "p": "split"}))
    assert kinds(run(text, forced)) == ["Neg", "Exp", "Concat", "Neg", "Neg", "Split", "Neg", "Neg"]
