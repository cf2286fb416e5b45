"""What is computed from measured launches: theory, overheads, and the tables; and that launches are counted by rounds."""

from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import Repeat
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from tests.benchmarks.launches import Cost, Measured, chain, feeds_of, launches_of, markdown
from tests.emulation.engine import open_emulated, plan_of

COST = Cost(enqueue_us=5.0, wall_us=5.5, graph_enqueue_us=0.01, graph_wall_us=0.8)
SHORT = Measured("bert_base", 1, 70, 360.0, 350.0, 214.0, 4.0, 210.0)
LONG = Measured("bert_base", 16, 60, 1010.0, 300.0, 1003.0, 4.0, 1000.0)


def test_theory_is_the_host_s_launches_or_the_device_s_work() -> None:
    assert [m.expected_us(COST) for m in (SHORT, LONG)] == [350.0, 1000.0]
    assert (SHORT.overhead_us, SHORT.graph_overhead_us) == (150.0, 4.0)
    assert (LONG.overhead_us, LONG.graph_overhead_us) == (10.0, 3.0)


def test_tables() -> None:
    lines = markdown(COST, [SHORT, LONG]).splitlines()
    assert lines[2:4] == ["| one by one | 5.00 | 5.50 |", "| in a graph | 0.01 | 0.80 |"]
    assert lines[-2:] == [
        "| bert_base | 1 | 70 | 210 | 350 | 350 | 350 | 360 | 150 | 4.0 | 214 | 4.0 |",
        "| bert_base | 16 | 60 | 1000 | 300 | 300 | 1000 | 1010 | 10 | 4.0 | 1003 | 3.0 |",
    ]
    assert {line.count("|") for line in lines[-4:]} == {13}


def program_of(text: str) -> CudaProgram:
    with open_emulated(plan_of(text)) as engine:
        program = engine.program(engine.check(feeds_of(engine, 1)))
        assert isinstance(program, LoadedProgram)
        return program.made


def test_each_kernel_of_a_chain_is_a_launch() -> None:
    assert [launches_of(program_of(chain(n))) for n in (1, 5)] == [1, 5]


def test_each_round_of_what_repeats_is_counted() -> None:
    program = program_of(chain(2))
    first, second = program.steps
    assert isinstance(first, DeviceStep) and isinstance(second, DeviceStep)
    actions = tuple(a for step in (first, second) for a in step.actions if not isinstance(a, Repeat))
    repeated = replace(first, actions=(Repeat(7, actions),))
    assert launches_of(replace(program, steps=(repeated, second))) == 15
