"""A kernel that may begin early follows a kernel of ours, fits beside it, and waits for it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.program import DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import Copy, Fill, Kernel, Launch, Operand, Repeat
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.scheduling.bound_program import bind
from miniinfer_cli.backends.cuda.scheduling.programmatic_edges import expect_sound_edges
from miniinfer_cli.ir import DType, TensorType
from tests.graph_text import typed_graph

X, Y = Operand.input(0), Operand.output(0)
WAITS = Kernel("waits", code='extern "C" __global__ void waits(i32* y) { asm volatile("griddepcontrol.wait;"); y[0] = 1; }')
PLAIN = Kernel("plain", code='extern "C" __global__ void plain(i32* y) { y[0] = 1; }')


_NEG = typed_graph("graph main(x: f32[2]) {\n  y = Neg(x)\n  return y\n}")
PROGRAM = make_program(_NEG, [TensorType(DType.F32, (2,))], Target())
(STEP,) = (s for s in PROGRAM.steps if isinstance(s, DeviceStep))


def launched(kernel: Kernel, *, early: bool = False, shared_nbytes: int = 0) -> Launch[Any]:
    return Launch(kernel, (1,), (1,), (Y,), shared_nbytes, LaunchAttributes(programmatic=early))


def steps(*each: tuple[Any, ...]) -> list[DeviceStep]:
    return [replace(STEP, label=f"step{n}", actions=actions) for n, actions in enumerate(each)]


FIRST = launched(PLAIN)
SECOND = launched(WAITS, early=True)


@pytest.mark.parametrize(
    "segment",
    [
        steps((Fill(Y, 0, 4), FIRST, SECOND), (SECOND, SECOND)),
        steps((FIRST,), (), (SECOND,)),
        steps((FIRST, Repeat(3, (SECOND, SECOND)), SECOND)),
        steps((FIRST, Repeat(1, (SECOND, Copy(Y, X, 4))))),
        steps((launched(PLAIN, shared_nbytes=110 << 10), SECOND)),
    ],
)
def test_what_keeps_the_rules(segment: list[DeviceStep]):
    expect_sound_edges(segment)


@pytest.mark.parametrize(
    ("segment", "why"),
    [
        (
            steps((SECOND,)),
            "step0: kernel waits is launched programmatically: what comes before is nothing, and must be a launch",
        ),
        (steps((FIRST, Copy(Y, X, 4)), (SECOND,)), "step1: kernel waits .*: what comes before is Copy,"),
        (steps((FIRST, Fill(Y, 0, 4), SECOND)), "what comes before is Fill,"),
        (steps((FIRST, Repeat(2, (SECOND, Copy(Y, X, 4))))), "what comes before is Copy,"),
        (steps((FIRST, Repeat(1, (FIRST, Copy(Y, X, 4))), SECOND)), "what comes before is Copy,"),
        (steps((FIRST, launched(PLAIN, early=True))), "it never waits for the kernel in front"),
        (steps((FIRST, launched(WAITS, early=True, shared_nbytes=112641))), "waits takes 112641 bytes of shared memory"),
        (steps((launched(PLAIN, shared_nbytes=112641), SECOND)), "plain takes 112641 bytes of shared memory"),
    ],
)
def test_what_breaks_a_rule(segment: list[DeviceStep], why: str):
    with pytest.raises(ValueError, match=why):
        expect_sound_edges(segment)


def test_a_program_that_breaks_a_rule_is_not_bound():
    early = tuple(replace(a, attributes=SECOND.attributes) for a in STEP.actions if isinstance(a, Launch))
    nothing: Any = np.uint64
    with pytest.raises(ValueError, match=r"^y: kernel .* is launched programmatically: what comes before is nothing"):
        bind(
            replace(PROGRAM, steps=(replace(STEP, actions=early),)),
            stream=nothing,
            address_of=nothing,
            function=nothing,
            library_call=nothing,
            encode=nothing,
        )
