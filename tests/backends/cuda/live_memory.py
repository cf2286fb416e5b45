"""Which values of a program are alive at each step, worked out apart from the planner, and that none of them overlap."""

from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep


def check_memory(program: CudaProgram) -> None:
    """Raises AssertionError for two values that are alive at the same step and share bytes, or lie outside the arena.

    A step may overwrite an input in place when it says so, and nobody reads the input afterwards.
    """
    slots, steps = program.slots, program.steps
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def touch(slot: int | None, number: int) -> None:
        if slot is not None:
            root = slots[slot].root
            first.setdefault(root, number)
            last[root] = max(number, last.get(root, number))
            if slots[root].count is not None:
                touch(slots[root].count, number)

    for number, step in enumerate(steps):
        for slot in (step.reads if isinstance(step, DeviceStep) else step.inputs) + tuple(
            step.writes if isinstance(step, DeviceStep) else step.outputs
        ):
            touch(slot, number)
    for slot in program.output_slots:
        touch(slot, len(steps))
    placed = {r: program.layout.offsets[r] for r in first if r in program.layout.offsets}
    for root in first:
        elsewhere = slots[root].origin in ("input", "constant", "table", "derived") or root in program.io.outputs
        on_host = slots[root].origin == "host" and root not in program.uploads
        assert (root in placed) == (not elsewhere and not on_host), f"slot {root} has no place, or two"
    in_place = {
        (slots[out].root, slots[source].root, number)
        for number, step in enumerate(steps)
        if isinstance(step, DeviceStep)
        for out, sources in step.in_place.items()
        for source in sources
    }
    spans = [(placed[r], placed[r] + slots[r].nbytes, first[r], last[r], r) for r in placed]
    spans += [
        (offset, offset + steps[n].scratch_nbytes, n, n, -1 - n)  # type: ignore[union-attr]
        for n, offset in program.layout.scratch_offsets.items()
    ]
    for i, (start, end, born, dies, a) in enumerate(spans):
        assert start >= 0 and end <= program.arena_nbytes, f"slot {a} lies outside the arena"
        assert start % 256 == 0
        for other_start, other_end, other_born, other_dies, b in spans[:i]:
            if born > other_dies or other_born > dies or start >= other_end or other_start >= end:
                continue
            at = max(born, other_born)
            assert at == min(dies, other_dies) and ((a, b, at) in in_place or (b, a, at) in in_place), (
                f"slots {a} and {b} overlap"
            )
    _check_region(program, dict(program.io.outputs), program.io.output_nbytes)
    _check_region(program, dict(program.io.inputs), program.io.input_nbytes)


def _check_region(program: CudaProgram, offsets: dict[int, int], nbytes: int) -> None:
    end = 0
    for slot, offset in sorted(offsets.items(), key=lambda item: item[1]):
        assert offset >= end, f"slot {slot} overlaps its neighbour"
        end = offset + program.slots[slot].nbytes
    assert end <= nbytes
