"""The memory planner's promise, on random programs: what is alive is never overwritten, and sharing happens where it can."""

import itertools
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.planning import memory
from miniinfer_cli.planning.memory import ALIGNMENT, Part, StepUse, pack_arena, plan_memory
from miniinfer_cli.planning.order import PartialOrder, list_order


@dataclass
class Program:
    """Steps, beside each other where the order lets them; slots 0 to 2 are inputs, which live elsewhere."""

    steps: list[StepUse] = field(default_factory=list)
    nbytes: dict[int, int] = field(default_factory=dict)
    lanes: list[int] = field(default_factory=list)
    waits: list[tuple[int, ...]] = field(default_factory=list)
    shows: set[int] = field(default_factory=set)  # steps that write nothing: their result is there
    made: dict[int, int] = field(default_factory=dict)  # the step that each slot comes from

    @property
    def order(self) -> PartialOrder:
        return PartialOrder(tuple(self.lanes), tuple(self.waits))

    def new(self, nbytes: int) -> int:
        slot = 3 + len(self.nbytes)
        self.nbytes[slot] = nbytes
        return slot

    def add(self, step: StepUse, lane: int, behind: int, *, shows: bool = False) -> None:
        """A step that comes after those whose results it reads, and after step ``behind`` unless that is negative."""
        waits = {self.made[s] for s in step.reads if s in self.made} | {n for n in (behind,) if n >= 0}
        number = len(self.steps)
        self.made |= dict.fromkeys(step.writes, number)
        self.shows |= {number} if shows else set()
        self.steps.append(step)
        self.lanes.append(lane)
        self.waits.append(tuple(sorted(waits)))


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, list[int]]:
    """A program, and the slots that are its outputs."""
    program = Program()
    live = [0, 1, 2]
    lanes = st.integers(0, draw(st.integers(0, 2)))

    def add(step: StepUse, *, shows: bool = False) -> None:
        program.add(step, draw(lanes), draw(st.integers(-3, len(program.steps) - 1)), shows=shows)

    def some(most: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.sampled_from(live), min_size=1, max_size=most, unique=True)))

    for _ in range(draw(st.sampled_from([2, 6, 12, 18]))):
        reads, size, scratch = some(3), draw(st.integers(1, 900)), draw(st.sampled_from([0, 0, 700]))
        whole = program.nbytes.get(reads[0], size)
        match draw(st.sampled_from(["own"] * 3 + ["view"] * 3 + ["in place"] * 4 + ["joined"])):
            case "own":
                slot = program.new(size)
                add(StepUse(reads, (slot,), scratch_nbytes=scratch))
            case "view":
                start = draw(st.sampled_from([0, whole // 2]))
                slot = program.new(draw(st.sampled_from([whole - start, max((whole - start) // 2, 1)])))
                add(StepUse(reads[:1], (slot,), {slot: Part(reads[0], start)}), shows=True)
            case "in place":
                slot, other = program.new(whole), program.new(whole)
                add(StepUse(reads, (slot, other), in_place={slot: reads, other: reads}, scratch_nbytes=scratch))
                live.append(other)
            case _:
                root, slot, pieces = program.new(size), program.new(size), []
                cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=2))) if size > 1 else []
                for start, end in itertools.pairwise([0, *cuts, size]):
                    pieces.append(program.new(end - start))
                    read = some(2)
                    add(StepUse(read, (pieces[-1],), {pieces[-1]: Part(root, start)}, {pieces[-1]: read}, scratch))
                add(StepUse(tuple(pieces), (slot,), {slot: Part(root)}), shows=True)
                live += pieces[:1]
        live.append(slot)
    return program, live[-2:]


@settings(max_examples=50)
@given(programs(), st.randoms(use_true_random=False))
def test_every_value_is_intact_while_it_is_read(drawn: tuple[Program, list[int]], random: Random) -> None:
    """Plays the program on an arena of numbers, in an order that it allows and steps beside each other: each step finds in its
    operands the numbers that their makers wrote, and at its end in its scratch and its result its own."""
    program, outputs = drawn
    steps, nbytes, order = program.steps, program.nbytes, program.order
    layout = plan_memory(steps, nbytes, outputs, order)
    arena = np.full(layout.arena_nbytes, -1)
    written: dict[int, Any] = {slot: np.full(900, -2 - slot) for slot in range(3)}  # what is in each slot

    def intact(slot: int) -> bool:
        start = layout.offsets.get(slot)
        return start is None or bool((arena[start : start + nbytes[slot]] == written[slot]).all())

    def scratch(number: int) -> Any:
        start = layout.scratch_offsets.get(number, 0)
        return arena[start : start + steps[number].scratch_nbytes]

    def begin(number: int) -> None:
        step = steps[number]
        assert all(map(intact, step.reads)), f"step {number} reads what is no more"
        for mark, slot in enumerate(step.writes, 3 * number):
            if number in program.shows:
                part = step.views[slot]
                whole = written[part.of] if part.of in written else np.concatenate([written[s] for s in step.reads])
                written[slot] = whole[part.offset : part.offset + nbytes[slot]]
            else:
                written[slot] = np.full(nbytes[slot], mark)
                start = layout.offsets.get(slot)
                if start is not None:
                    arena[start : start + nbytes[slot]] = mark
        scratch(number)[:] = 3 * number + 2

    def end(number: int) -> None:
        step = steps[number]
        assert (scratch(number) == 3 * number + 2).all(), f"scratch of step {number} is gone"
        assert all(map(intact, step.writes)), f"what step {number} wrote is gone"
        replaced = {(layout.offsets.get(s), nbytes[s]) for s in step.writes}
        kept = (s for s in step.reads if (layout.offsets.get(s), nbytes.get(s)) not in replaced)
        assert all(map(intact, kept)), f"step {number} lost an operand"

    waiting, running = list(range(len(steps))), []
    while waiting or running:
        ready = [n for n in waiting[:8] if not any(order.precedes(other, n) for other in (*waiting, *running))]
        number = random.choice([*ready, *running])
        if number in running:
            running.remove(number)
            end(number)
        else:
            waiting.remove(number)
            running.append(number)
            begin(number)
    assert all(map(intact, outputs))


@pytest.mark.parametrize("at_once", [8192, 5])
@given(items=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6), st.integers(0, 3000)), max_size=40))
def test_buffers_that_are_alive_together_do_not_overlap(at_once, items):
    with mock.patch.object(memory, "_AT_ONCE", at_once):
        _expect_no_overlap(items)


def _expect_no_overlap(items):
    spans = [(first, first + length) for first, length, _ in items]
    sizes = [size for _, _, size in items]
    offsets, total = pack_arena(spans, sizes, list_order(30))
    for i in range(len(items)):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + sizes[i] <= total
        for j in range(i):
            apart = spans[i][1] < spans[j][0] or spans[j][1] < spans[i][0]
            disjoint = offsets[i] + max(sizes[i], 1) <= offsets[j] or offsets[j] + max(sizes[j], 1) <= offsets[i]
            assert apart or disjoint


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(1, 3)), max_size=24))
def test_equal_buffers_are_laid_out_as_one_after_the_other_would_be(items):
    spans = [(first, first + length) for first, length, _ in items]
    sizes = [size * ALIGNMENT for _, _, size in items]
    wanted: dict[int, int] = {}
    for i in sorted(range(len(items)), key=lambda i: (-sizes[i], spans[i][0] - spans[i][1], i)):
        meets = [j for j in wanted if spans[i][0] <= spans[j][1] and spans[j][0] <= spans[i][1]]
        lowest = (o for o in range(0, sum(sizes) + 1, ALIGNMENT))
        wanted[i] = next(o for o in lowest if all(o + sizes[i] <= wanted[j] or wanted[j] + sizes[j] <= o for j in meets))
    assert pack_arena(spans, sizes, list_order(12))[0] == [wanted[i] for i in range(len(items))]


def test_buffers_of_one_step_are_laid_out_at_once():
    with mock.patch.object(memory, "_lowest_gaps", wraps=memory._lowest_gaps) as gaps:
        offsets, total = pack_arena([(0,)] * 10_000 + [(0, 1)], [4] * 10_001, list_order(2))
    assert gaps.call_count == 2 and total == 10_001 * ALIGNMENT
    assert sorted(offsets) == list(range(0, total, ALIGNMENT))


def test_a_chain_takes_two_buffers():
    steps = [StepUse((i,), (i + 1,)) for i in range(10)]
    layout = plan_memory(steps, dict.fromkeys(range(1, 11), 1000), [10])
    assert layout.arena_nbytes == 2 * 1024
    assert layout.sum_nbytes == 10 * 1024


def test_the_sum_counts_scratch_and_is_never_less_than_the_arena():
    steps = [StepUse((0,), (1,), scratch_nbytes=5000), StepUse((1,), (2,), scratch_nbytes=300)]
    layout = plan_memory(steps, {1: 1000, 2: 1000}, [2])
    assert layout.sum_nbytes == 2 * 1024 + 5120 + 512
    assert layout.arena_nbytes == 1024 + 5120


def test_a_dying_operand_is_overwritten_and_a_living_one_is_not():
    dying = [StepUse((0,), (1,)), StepUse((1,), (2,), in_place={2: (1,)})]
    assert plan_memory(dying, {1: 512, 2: 512}, [2]).arena_nbytes == 512
    living = [*dying, StepUse((1, 2), (3,))]
    layout = plan_memory(living, {1: 512, 2: 512, 3: 512}, [3])
    assert layout.offsets[1] != layout.offsets[2]


def test_an_operand_of_another_size_is_not_overwritten():
    steps = [StepUse((0,), (1,)), StepUse((1,), (2,), in_place={2: (1,)})]
    layout = plan_memory(steps, {1: 512, 2: 256}, [2])
    assert layout.offsets[1] != layout.offsets[2]


def test_an_operand_whose_view_is_read_later_is_not_overwritten():
    steps = [
        StepUse((0,), (1,)),
        StepUse((1,), (2,), views={2: Part(1)}),
        StepUse((1,), (3,), in_place={3: (1,)}),
        StepUse((2, 3), (4,)),
    ]
    layout = plan_memory(steps, dict.fromkeys((1, 2, 3, 4), 512), [4])
    assert layout.offsets[1] == layout.offsets[2]
    assert layout.offsets[3] != layout.offsets[1]


def test_an_output_is_kept_to_the_end():
    steps = [StepUse((0,), (1,)), StepUse((1,), (2,), in_place={2: (1,)}), StepUse((2,), (3,))]
    layout = plan_memory(steps, dict.fromkeys((1, 2, 3), 512), [1, 3])
    assert len({layout.offsets[1], layout.offsets[2]}) == 2
    assert layout.offsets[3] != layout.offsets[1]


def test_a_view_of_an_input_has_no_place_in_the_arena():
    layout = plan_memory([StepUse((0,), (1,), views={1: Part(0)})], {1: 512}, [1])
    assert 1 not in layout.offsets
    assert layout.arena_nbytes == 0


def test_inputs_are_never_overwritten():
    layout = plan_memory([StepUse((0,), (1,), in_place={1: (0,)})], {1: 512}, [1])
    assert layout.offsets[1] == 0
    assert layout.arena_nbytes == 512


def test_a_view_of_a_view_lies_behind_both():
    steps = [
        StepUse((0,), (1,)),
        StepUse((1,), (2,), {2: Part(1, 64)}),
        StepUse((2,), (3,), {3: Part(2, 16)}),
        StepUse((3,), (4,)),
    ]
    layout = plan_memory(steps, {1: 512, 2: 128, 3: 32, 4: 512}, [4])
    assert [layout.offsets[s] - layout.offsets[1] for s in (2, 3)] == [64, 80]
    assert abs(layout.offsets[4] - layout.offsets[1]) >= 512


def test_a_part_is_not_overwritten_nor_what_a_part_is_read_of_besides():
    made = [StepUse((0,), (1,)), StepUse((1,), (2,), {2: Part(1, 256)})]
    sizes = {1: 512, 2: 256, 3: 256}
    part = plan_memory([*made, StepUse((2,), (3,), in_place={3: (2,)})], sizes, [3])
    assert not part.offsets[1] <= part.offsets[3] < part.offsets[1] + 512
    besides = plan_memory([*made, StepUse((1, 2), (3,), in_place={3: (1, 2)})], {**sizes, 3: 512}, [3])
    assert besides.offsets[3] != besides.offsets[1]
    alone = plan_memory([*made, StepUse((1,), (3,), in_place={3: (1,)})], {**sizes, 3: 512}, [3])
    assert alone.offsets[3] == alone.offsets[1]


def test_parts_that_several_steps_write_are_one_buffer_from_the_first_of_them_on():
    steps = [
        StepUse((0,), (2,), {2: Part(1)}),
        StepUse((0,), (3,), scratch_nbytes=512),
        StepUse((3,), (4,), {4: Part(1, 256)}, in_place={4: (3,)}),
        StepUse((2, 4), (5,), {5: Part(1)}),
        StepUse((5,), (6,)),
    ]
    layout = plan_memory(steps, {1: 512, 2: 256, 3: 256, 4: 256, 5: 512, 6: 512}, [6])
    whole = layout.offsets[1]
    assert [layout.offsets[s] - whole for s in (2, 4, 5)] == [0, 256, 0]
    for start, nbytes in ((layout.scratch_offsets[1], 512), (layout.offsets[3], 256)):
        assert start + nbytes <= whole or start >= whole + 512


def test_steps_beside_each_other_share_nothing():
    steps = [
        StepUse((0,), (1,), scratch_nbytes=512),
        StepUse((1,), (2,)),
        StepUse((0,), (3,), scratch_nbytes=512),
        StepUse((2, 3), (4,)),
    ]
    sizes = dict.fromkeys((1, 2, 3, 4), 512)
    one_lane = plan_memory(steps, sizes, [4])
    beside = plan_memory(steps, sizes, [4], PartialOrder((0, 0, 1, 0), ((), (), (), (2,))))
    lane = {beside.offsets[1], beside.offsets[2], beside.scratch_offsets[0]}
    assert not lane & {beside.offsets[3], beside.scratch_offsets[2]}
    assert beside.arena_nbytes > one_lane.arena_nbytes == 3 * 512


def test_who_reads_comes_after_who_writes():
    steps = [StepUse((0,), (1,)), StepUse((1,), (2,))]
    assert plan_memory(steps, {1: 8, 2: 8}, [2], PartialOrder((0, 1), ((), (0,)))).arena_nbytes == 512
    with pytest.raises(ValueError, match="step 1 reads slot 1 and does not come after step 0"):
        plan_memory(steps, {1: 8, 2: 8}, [2], PartialOrder((0, 1), ((), ())))
