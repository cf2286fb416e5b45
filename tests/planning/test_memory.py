"""The memory planner's promise, on random programs: what is alive is never overwritten, and sharing happens where it can."""

from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.planning.memory import ALIGNMENT, StepUse, pack_arena, plan_memory


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[StepUse], dict[int, int], list[int]]:
    """Steps of one result each, the bytes of every slot, and the slots that are outputs."""
    steps: list[StepUse] = []
    nbytes: dict[int, int] = {}
    live = [0, 1, 2]  # inputs, which live elsewhere
    for slot in range(3, 4 + draw(st.integers(0, 24))):
        reads = tuple(draw(st.lists(st.sampled_from(live), min_size=1, max_size=3, unique=True)))
        form = draw(st.sampled_from(["own"] * 4 + ["view"] * 2 + ["in place"] * 4))
        size = draw(st.integers(1, 5000))
        nbytes[slot] = size if form == "own" else nbytes.get(reads[0], size)
        views = {slot: reads[0]} if form == "view" else {}
        in_place = {slot: reads} if form == "in place" else {}
        steps.append(StepUse(reads, (slot,), views, in_place, draw(st.sampled_from([0, 0, 700]))))
        live.append(slot)
    return steps, nbytes, live[-2:]


@settings(max_examples=100)
@given(programs())
def test_every_value_is_intact_when_it_is_read(program):
    """Plays the program on an arena of tokens: each step finds in its operands the tokens that their makers wrote."""
    steps, nbytes, outputs = program
    layout = plan_memory(steps, nbytes, outputs)
    arena: list[object] = [None] * layout.arena_nbytes
    tokens: dict[int, object] = {}

    def intact(slot: int) -> bool:
        start = layout.offsets.get(slot)
        return start is None or all(cell == tokens[slot] for cell in arena[start : start + nbytes[slot]])

    for number, step in enumerate(steps):
        if number in layout.scratch_offsets:
            start = layout.scratch_offsets[number]
            arena[start : start + step.scratch_nbytes] = ["scratch"] * step.scratch_nbytes
        assert all(intact(s) for s in step.reads)
        (slot,) = step.writes
        source = step.views.get(slot)
        tokens[slot] = tokens.get(source, f"input {source}") if source is not None else f"step {number}"
        if slot in layout.offsets and source is None:
            start = layout.offsets[slot]
            arena[start : start + nbytes[slot]] = [tokens[slot]] * nbytes[slot]
    assert all(intact(s) for s in outputs)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6), st.integers(0, 3000)), max_size=40))
def test_buffers_that_are_alive_together_do_not_overlap(items):
    spans = [(first, first + length) for first, length, _ in items]
    sizes = [size for _, _, size in items]
    offsets, total = pack_arena(spans, sizes)
    for i in range(len(items)):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + sizes[i] <= total
        for j in range(i):
            apart = spans[i][1] < spans[j][0] or spans[j][1] < spans[i][0]
            disjoint = offsets[i] + max(sizes[i], 1) <= offsets[j] or offsets[j] + max(sizes[j], 1) <= offsets[i]
            assert apart or disjoint


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
        StepUse((1,), (2,), views={2: 1}),
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
    layout = plan_memory([StepUse((0,), (1,), views={1: 0})], {1: 512}, [1])
    assert 1 not in layout.offsets
    assert layout.arena_nbytes == 0


def test_inputs_are_never_overwritten():
    layout = plan_memory([StepUse((0,), (1,), in_place={1: (0,)})], {1: 512}, [1])
    assert layout.offsets[1] == 0
    assert layout.arena_nbytes == 512
