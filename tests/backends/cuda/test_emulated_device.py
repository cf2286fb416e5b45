"""The device in software itself: what memory holds that nobody wrote, what a kernel may not do, and how libraries are kept."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.codegen import sources
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from tests.backends.cuda.performing import Buffer, launch
from tests.emulation import compiler
from tests.emulation.device import EmulatedFunctions
from tests.emulation.poison import poison

BLOCKS, THREADS = 3, 4
ALL = 227 << 10
OUT = Operand("output", 0)


def ran(code: str, *, before: str = "", shared_nbytes: int = 0, threads: int = THREADS) -> list[int]:
    """What the kernel ``mi_kernel(i32* y)`` wrote into a number for each thread; ``where`` is this thread's."""
    count = BLOCKS * threads
    text = f"""{before}
    extern "C" __global__ void mi_kernel(i32* y) {{
      int me = (int)threadIdx.x, block = (int)blockIdx.x, where = block * (int)blockDim.x + me;
      {code}
    }}"""
    y = Buffer(4 * count)
    kernel = Kernel("mi_kernel", code=text)
    launch(Launch(kernel, (BLOCKS,), (threads,), (OUT,), shared_nbytes), lambda operand: y.address)
    y.check()
    return y.view(np.int32, (count,)).tolist()


UNWRITTEN = int(poison(4).view(np.int32)[0])


def test_unwritten_memory_is_nan_in_every_float_type_and_no_small_number():
    for dtype in (np.float16, np.float32, np.float64):
        assert np.isnan(poison(16).view(dtype)).all()
    assert np.isnan((poison(4).view(np.uint16).astype(np.uint32) << 16).view(np.float32)).all()  # bf16
    assert (abs(poison(16).view(np.int32)) > 100_000).all()
    assert poison(3).tobytes() == poison(4).tobytes()[:3]


@pytest.mark.parametrize("sync", ["", "__syncthreads();"])
@pytest.mark.parametrize(
    ("declared", "nbytes"),
    [
        ("__shared__ i32 s[4];", 0),
        ("MI_SHARED(i32, s);", 16),
        ("__shared__ i32 a[4]; MI_SHARED(i32, d); i32* s = me < 2 ? a : d;", 16),
    ],
    ids=["static", "dynamic", "both"],
)
def test_shared_memory_holds_nothing_of_the_block_before(declared: str, nbytes: int, sync: str):
    found = ran(f"{declared} y[where] = s[me]; s[me] = 7; {sync}", shared_nbytes=nbytes)
    assert found == [UNWRITTEN] * BLOCKS * THREADS
    assert ran(f"{declared} s[me] = where; {sync} y[where] = s[me];", shared_nbytes=nbytes) == list(range(BLOCKS * THREADS))


def test_every_form_of_a_template_has_shared_memory_of_its_own():
    code = "y[where] = of<f32>(me) + of<i32>(me);"
    text = (
        "template <class T> __device__ int of(int i) { __shared__ T s[4]; int was = ((i32*)s)[i] == %d; s[i] = 3; return was; }\n"
    )
    y = Buffer(4 * BLOCKS * THREADS)
    body = 'extern "C" __global__ void mi_kernel(i32* y) { int me = threadIdx.x, where = blockIdx.x * blockDim.x + me; %s }'
    kernel = Kernel("mi_kernel", code=text % UNWRITTEN + body % code)
    launch(Launch(kernel, (BLOCKS,), (THREADS,), (OUT,), 0), lambda operand: y.address)
    assert y.view(np.int32, (BLOCKS * THREADS,)).tolist() == [2] * BLOCKS * THREADS


def test_dynamic_shared_memory_behind_what_was_asked_for_is_not_to_be_used():
    everything = ALL // 4
    read = f"MI_SHARED(i32, s); s[0] = 5; y[where] = s[4] == {UNWRITTEN} && s[{everything - 1}] == {UNWRITTEN};"
    assert ran(read, shared_nbytes=4 * everything) == [1] * BLOCKS * THREADS  # all of it was asked for and unwritten
    for place in (4, 4096, everything - 1):
        with pytest.raises(AssertionError, match="mi_kernel: a kernel wrote behind the dynamic shared memory"):
            ran(f"MI_SHARED(i32, s); if (where == 5) s[{place}] = 1; y[where] = 0;", shared_nbytes=16)
        assert ran(read, shared_nbytes=16) == [1] * BLOCKS * THREADS  # nothing of it is left


def test_more_shared_memory_than_a_block_has_is_refused():
    with pytest.raises(AssertionError, match="more than 48 KiB of static"):
        ran("__shared__ i32 s[12289]; s[me] = 0; __syncthreads(); y[where] = s[me ^ 1];")
    with pytest.raises(AssertionError, match="together are more than a block has"):
        ran(
            "__shared__ i32 s[8]; MI_SHARED(i32, d); s[me] = d[me]; __syncthreads(); y[where] = s[me ^ 1];",
            shared_nbytes=227 << 10,
        )
    kernel = Kernel("mi_kernel", code='extern "C" __global__ void mi_kernel() {}')
    functions = EmulatedFunctions()
    functions.prepare([kernel])
    function = functions.get(kernel, 50_000)
    with pytest.raises(AssertionError, match="launched with 50001 bytes and was allowed 50000"):
        function.raw((1,), (1,), 50_001, None)


def test_a_wait_that_is_missing_shows_whichever_thread_must_wait():
    """Threads that nothing stops run in order in one block, and the other way round in the next."""
    waits = ["__shared__ i32 s[4]; s[me] = where; __syncthreads(); y[where] = s[me ^ 3]; __syncthreads();"]
    assert ran(waits[0]) == [where ^ 3 for where in range(BLOCKS * THREADS)]
    found = ran(waits[0].replace("__syncthreads(); y", "y"))
    assert found[:4] == [UNWRITTEN, UNWRITTEN, 1, 0]
    assert found[4:8] == [7, 6, UNWRITTEN, UNWRITTEN]


def test_threads_and_warps_that_end_early_hold_nobody_up():
    code = "if (me % 2) return; __syncthreads(); y[where] = __shfl_down_sync(~0u, me, 2); __syncthreads();"
    found = ran(code, threads=40)
    # The shuffle crosses neither the end of a warp nor that of the block.
    lanes = [me if me in (30, 38) else me + 2 for me in range(0, 40, 2)]
    assert [found[i] for i in range(0, 40, 2)] == lanes
    assert set(found[1::2]) == {UNWRITTEN}


COMPILE = """
import sys
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from tests.emulation import compiler
for number in map(int, sys.argv[1:]):
    code = 'extern "C" __global__ void mi_kernel(i32* y) { y[0] = %d; }' % number
    compiler.load(Kernel("mi_kernel", code=code))
"""


def test_processes_compile_a_kernel_once(tmp_path: Path):
    """Two processes at once, on one folder that begins empty, by way of a compiler that counts."""
    counting = tmp_path / "counting"
    counting.write_text('#!/bin/sh\ncase "$1" in --version|--print-*) ;; *) echo >>"$0.calls";; esac\nexec g++ "$@"\n')
    counting.chmod(0o755)
    environment = {**os.environ, "MINIINFER_EMULATION_FOLDER": str(tmp_path / "kept"), "CXX": str(counting)}
    orders = (["1", "2"], ["2", "1"])
    running = [subprocess.Popen([sys.executable, "-c", COMPILE, *order], env=environment) for order in orders]
    assert [process.wait() for process in running] == [0, 0]
    calls = Path(f"{counting}.calls").read_text().count("\n")
    assert calls == 4  # the header, the runtime, and two kernels
    assert len(list((tmp_path / "kept").glob("*.so"))) == 3


def test_a_library_is_of_a_text_and_what_it_reaches_and_a_compiler(monkeypatch: pytest.MonkeyPatch):
    one, other = (Kernel("mi_kernel", code=f'extern "C" __global__ void mi_kernel() {{ /* {n} */ }}') for n in (1, 2))
    first = compiler.digest_of(one)
    assert compiler.digest_of(one) == first
    assert compiler.digest_of(other) != first
    texts = dict(sources.headers())
    with monkeypatch.context() as patch:
        patch.setattr(sources, "headers", lambda: {**texts, "types.cuh": texts["types.cuh"] + "// more\n"})
        assert compiler.digest_of(one) != first
        patch.setattr(sources, "headers", lambda: {**texts, "sorting.cuh": "// another"})
        assert compiler.digest_of(one) == first  # which it does not include
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_version", lambda: "another compiler")
        assert compiler.digest_of(one) != first
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_FLAGS", (*compiler._FLAGS, "-O0"))
        assert compiler.digest_of(one) != first


def test_no_kernel_defines_a_name_of_the_headers_that_are_compiled_for_all_of_them():
    """It would be too late for them: macros of a Kernel alone are put before."""
    defined = {name for file in sources.FOLDER.glob("*.cu") for name in re.findall(r"# *define +(\w+)", file.read_text())}
    assert "MI_SLICE" in defined and "MI_INDEX" in compiler.common_names()
    assert defined & compiler.common_names() == set()


@pytest.mark.parametrize("index", ["int", "long long"])
def test_a_macro_of_a_kernel_holds_in_the_headers_that_are_compiled_for_all_of_them(index: str):
    code = 'extern "C" __global__ void mi_kernel(i32* y) { y[0] = (int)sizeof(mi_first()); }'
    y = Buffer(4)
    launch(
        Launch(Kernel("mi_kernel", defines=(("MI_INDEX", index),), code=code), (1,), (1,), (OUT,), 0), lambda operand: y.address
    )
    assert y.view(np.int32, (1,)).tolist() == [{"int": 4, "long long": 8}[index]]


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="there is no no-such-compiler: install g\\+\\+, or set CXX"):
        compiler._compiler()
