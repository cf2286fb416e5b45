"""Clusters on the emulated device: what blocks see of each other, who waits for what, and what is told of a wrong kernel."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from tests.backends.cuda.performing import Buffer, launch
from tests.emulation.compiler import EARLY, LATE, scheduled
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.poison import poison
from tests.emulation.stream import Schedule

BLOCKS, THREADS = 4, 128
SEEDS = (LATE, EARLY, 2, 3)
HEAD = '#include "sm90/copies.cuh"\n#include "sm90/turns.cuh"\n#include "sm90/wgmma.cuh"\n'
UNWRITTEN = int(poison(4).view(np.int32)[0])
START = "MI_TILES(room); u32 at = shared_address(room), bar = at; (void)bar;"


def kernel_of(code: str) -> Kernel:
    text = f"""{HEAD}extern "C" __global__ void mi_kernel(i32* y) {{
      int me = (int)threadIdx.x, block = (int)blockIdx.x, where = block * {THREADS} + me;
      {START} {code}
    }}"""
    return Kernel("mi_kernel", code=text)


def ran(code: str, *, cluster: int = 2, seed: int = LATE, shared_nbytes: int = 8192) -> np.ndarray:
    """What the kernel wrote into a number for each thread, by block."""
    y = Buffer(4 * BLOCKS * THREADS)
    action = Launch(
        kernel_of(code), (BLOCKS,), (THREADS,), (Operand.output(0),), shared_nbytes, LaunchAttributes((cluster, 1, 1))
    )
    with scheduled(seed):
        launch(action, lambda operand: y.address)
    y.check()
    found: np.ndarray = y.view(np.int32, (BLOCKS, THREADS)).copy()
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_of_a_cluster_live_at_once(seed: int) -> None:
    sums = """*(i32*)(room + 4 * me) = where; arrive_at_cluster(); await_cluster();
      i32 sum = 0;
      for (u32 r = 0; r < cluster_size(); r++) {
        float4 v = load_from_block(address_in_block(at + 16 * (me / 4), r)); float all[] = {v.x, v.y, v.z, v.w};
        sum += __float_as_int(all[me % 4]);
      }
      y[where] = sum * 10 + (int)cluster_rank(); arrive_at_cluster(); await_cluster();"""
    numbers = np.arange(BLOCKS * THREADS).reshape(BLOCKS, THREADS)
    for cluster in (1, 2, 4):
        by_cluster = numbers.reshape(-1, cluster, THREADS).sum(1).repeat(cluster, 0)
        np.testing.assert_array_equal(ran(sums, cluster=cluster, seed=seed), by_cluster * 10 + (numbers // THREADS % cluster))


@pytest.mark.parametrize("seed", SEEDS)
def test_each_block_has_shared_memory_of_its_own_and_finds_poison(seed: int) -> None:
    code = """__shared__ i32 fixed[128]; i32* free = (i32*)room;
      bool was = fixed[me] == POISON && free[me] == POISON;
      fixed[me] = where; free[me] = 2 * where; arrive_at_cluster(); await_cluster();
      y[where] = was ? fixed[me] + free[me] : -1;"""
    found = ran(code.replace("POISON", str(UNWRITTEN)), cluster=4, seed=seed)
    assert found.reshape(-1).tolist() == [3 * n for n in range(BLOCKS * THREADS)]


MADE = "if (me == 0) { make_barrier(bar, 1); fence_barriers(); } __syncthreads();"
SEND = "if (me == 0) arrive_expecting(bar, 16); arrive_at_cluster(); await_cluster(); "
SEND += (
    "if (me == 0) send_to_block(address_in_block(at + 64, rank ^ 1), make_float4(1, 2, 3, 4), address_in_block(bar, rank ^ 1)); "
)
TILES = "for (int i = me; i < 2048; i += 128) ((float*)room)[i] = 1; fence_for_copies(); __syncthreads(); float d[4]; "
PRODUCT = "multiply<f32>(d, tile<128>(at, 16, 1024), tile<128>(at, 16, 1024), false); "
WRONG = {
    "a barrier that nobody comes to": (
        f"{MADE} await(bar, 0);",
        r"nobody can move; of the threads wait: 256 for the barrier at 1024 of block 0, 256 for .* of block 1"
        "|nobody can move; of the threads wait: 128 for the barrier at 1024 of block 0, 128 for the barrier at 1024 of block 1",
    ),
    "bytes that nobody sends": (
        f"{MADE} if (me == 0) arrive_expecting(bar, 32); await(bar, 0);",
        "nobody can move; .* for the barrier at 1024",
    ),
    "a barrier that nobody made": ("await(bar, 0);", "a wait: nobody has made the barrier at 1024"),
    "one that comes too often": (
        f"{MADE} if (me == 0) {{ arrive_expecting(bar, 16); arrive(bar); }}",
        "an arrival: more than the barrier at 1024 expects",
    ),
    "an odd place": ("make_barrier(bar + 4, 1);", "a barrier at 1028, which is no multiple of 8"),
    "named barriers of two sizes": (
        "if (me < 32) come_to(2, 128); else if (me < 64) come_to(2, 64);",
        "the named barrier 2 is of (128|64) threads, and of (64|128)",
    ),
    "a named barrier that is left alone": ("if (me < 32) meet(2, 128);", "nobody can move; .* for the named barrier 2 of block"),
    "a cluster that not all come to": (
        "if (me < 64) { arrive_at_cluster(); await_cluster(); } else meet(1, 128);",
        "nobody can move; .*for the cluster",
    ),
    "a wait without an arrival": ("await_cluster();", "a thread waits for the cluster and has not arrived"),
    "two arrivals": ("arrive_at_cluster(); arrive_at_cluster();", "again before it has waited"),
    "a block that has ended": (
        f"u32 rank = cluster_rank(); {MADE} {SEND} if (rank == 0) await(bar, 0);",
        "a store to another block: block 1 of the cluster has ended",
    ),
    "no such block": ("address_in_block(at, 2);", "an address of block 2 in a cluster of 2"),
    "outside": ("load_from_block(at + 8192);", "a load: 16 bytes at 9216 are outside of dynamic shared memory"),
    "an address of somewhere else": ("shared_address(y);", "an address that is not in dynamic shared memory"),
    "no fence": (f"{TILES} {PRODUCT}", "a matrix instruction without a fence before it"),
    "no wait": (f"{TILES} fence_sums(); {PRODUCT} close_products();", "ended before it waited for its matrix instructions"),
    "columns that integers have not": (
        f"{TILES} int s[20] = {{}}; fence_sums(); multiply<i8, u8>(s, tile<128>(at, 16, 1024), tile<128>(at, 16, 1024), false);",
        "a matrix instruction of integers has no 40 columns",
    ),
    "two instructions for one": (
        f"{TILES} fence_sums(); u32 more = me < 64 ? 0 : 32; "
        "multiply<f32>(d, tile<128>(at + more, 16, 1024), tile<128>(at, 16, 1024), false);",
        "threads of a warpgroup issue different matrix instructions",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name: str) -> None:
    code, words = WRONG[name]
    for seed in (LATE,) if name == "a block that has ended" else (LATE, 4):  # which may be in time
        with pytest.raises(AssertionError, match=words):
            ran(code, seed=seed)
    assert ran("y[where] = 1; __syncthreads();").all()  # and the next kernel is none the worse


def test_sums_are_not_to_be_read_before_they_are_waited_for() -> None:
    product, wait, look = f"{TILES} fence_sums(); {PRODUCT} close_products();", "await_products<0>();", "float was = d[0];"
    tell = "y[where] = was == was ? (int)d[0] : -(int)d[0];"
    for seed in SEEDS:
        assert (ran(f"{product} {look} {wait} {tell}", seed=seed) == -8).all()
        assert (ran(f"{product} {wait} {look} {tell}", seed=seed) == 8).all()


def test_matrix_instructions_read_until_they_are_waited_for() -> None:
    """Whoever writes over an operand meanwhile sees both in some schedule."""
    over = f"{TILES} fence_sums(); {PRODUCT} close_products(); __syncthreads(); ((float*)room)[me] = 2; __syncthreads();"
    over += "await_products<0>(); y[where] = (int)d[0];"
    found = {int(ran(over, seed=seed)[0, 0]) for seed in (LATE, EARLY)}
    assert 8 in found and len(found) == 2


# -- programmatic launches ---------------------------------------------------------------------------------------------

WEIGHTS = f"""u32 rank = cluster_rank(); {MADE} let_next_begin(); if (me == 0) arrive_expecting(bar, 16);
  arrive_at_cluster(); await_cluster();
  if (me == 0) send_to_block(address_in_block(at + 64, rank ^ 1), make_float4(3, 0, 0, 0), address_in_block(bar, rank ^ 1));
  await_in_cluster(bar, 0); BEFORE
  await_turn(); AFTER y[where] = was + (int)((float*)(room + 64))[0]; arrive_at_cluster(); await_cluster();"""


def chain(before: str, after: str) -> list[int]:
    """What zeros become through a kernel that adds one and two clusters behind it that begin early."""
    device, functions = EmulatedDevice(schedule=Schedule("early")), EmulatedFunctions()
    device.make_current()
    code = WEIGHTS.replace("BEFORE", before).replace("AFTER", after)
    kernels = [kernel_of("await_turn(); y[where] += 1;"), kernel_of(code), kernel_of(code)]
    functions.prepare(kernels)
    with device.allocate(4 * BLOCKS * THREADS) as memory, device.create_stream() as stream:
        stream.fill(memory.address, 0, memory.nbytes)
        values = pack_parameters([np.uint64(memory.address)])
        for number, kernel in enumerate(kernels):
            asked = LaunchAttributes((2, 1, 1), programmatic=number > 0)
            stream.launch(functions.get(kernel), (BLOCKS,), (THREADS,), 4096, values, asked)
        stream.synchronize()
        assert device.schedule.begun == 2
        return memory.array.view(np.int32).tolist()


def test_a_cluster_begins_early_and_keeps_its_shared_memory() -> None:
    assert chain("", "i32 was = y[where];") == [7] * BLOCKS * THREADS


def test_a_cluster_that_begins_finds_nothing_of_a_kernel_that_had_more_static_memory() -> None:
    held = chain("__shared__ int held[12000]; held[me] = 1;", "i32 was = y[where] + held[me] - 1;")
    assert held == chain("", "i32 was = y[where];") == [7] * BLOCKS * THREADS


def test_a_cluster_that_reads_before_its_turn_is_seen_to() -> None:
    found = chain("i32 was = y[where];", "")
    assert found[: 2 * THREADS] == [3] * 2 * THREADS and found[2 * THREADS :] == [7] * 2 * THREADS
