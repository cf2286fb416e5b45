"""Kernels that begin before those in front of them have ended: which do, and that it changes no bit.

The emulated device begins the first block of each as early as it may, and looks at what it has done before its turn.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.codegen.sources import FOLDER, kernel_text
from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.program import DeviceStep
from miniinfer_cli.backends.cuda.contract.steps import Copy, Kernel, Launch, Operand, Repeat, flat
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.scheduling.programmatic_edges import BEGIN_EARLY, begin_early, body_of
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.runtime.engine import Engine
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import Schedule
from tests.graph_text import typed_graph

THREADS, BLOCKS = 4, 3
COUNT = THREADS * BLOCKS
HEAD = '#include "turn.cuh"\nextern "C" __global__ void mi_kernel(i32* y) { int me = mi_first(); '
ADD_ONE = "mi_take_turn(); y[me] += 1; }"
EARLY = LaunchAttributes(programmatic=True)


def ran(*bodies: str, mode: str = "early", attributes: LaunchAttributes = EARLY) -> list[int]:
    """What zeros become through kernels of these bodies, one behind the other, all but the first programmatic."""
    device, functions = EmulatedDevice(schedule=Schedule(mode)), EmulatedFunctions()
    device.make_current()
    kernels = [Kernel("mi_kernel", code=HEAD + body) for body in bodies]
    functions.prepare(kernels)
    with device.allocate(4 * COUNT) as memory, device.create_stream() as stream:
        stream.fill(memory.address, 0, memory.nbytes)
        values = pack_parameters([np.uint64(memory.address)])
        for number, kernel in enumerate(kernels):
            asked = attributes if number else LaunchAttributes()
            stream.launch(functions.get(kernel), (BLOCKS,), (THREADS,), 0, values, asked)
        stream.synchronize()
        assert device.schedule.begun == (len(bodies) - 1 if mode == "early" and attributes.programmatic else 0)
        return memory.array.view(np.int32).tolist()


@pytest.mark.parametrize("mode", ["early", "late", "at once"])
def test_who_waits_for_its_turn_sees_what_is_in_front(mode: str) -> None:
    double = "mi_take_turn(); __shared__ i32 s[4]; s[threadIdx.x] = 2 * y[me]; __syncthreads(); y[me] = s[threadIdx.x]; }"
    assert ran(ADD_ONE, double, ADD_ONE, double, mode=mode) == [6] * COUNT


def test_who_reads_before_its_turn_is_seen_to() -> None:
    """Three kernels ahead, so that a result that lies further back is not there either."""
    hasty = "i32 was = y[me]; mi_take_turn(); y[me] = was + 10; }"
    assert ran(ADD_ONE, hasty)[:THREADS] == [10] * THREADS
    assert ran(ADD_ONE, ADD_ONE, ADD_ONE, hasty) == [10] * THREADS + [13] * (COUNT - THREADS)
    assert ran(ADD_ONE, hasty, mode="at once") == [11] * COUNT


def test_who_writes_before_its_turn_is_seen_to() -> None:
    with pytest.raises(AssertionError, match="mi_kernel writes before its turn"):
        ran(ADD_ONE, "y[me] = 5; mi_take_turn(); y[me] = 1; }")


def test_shared_memory_outlives_the_wait() -> None:
    kept = "__shared__ i32 s[4]; MI_SHARED(i32, d); s[threadIdx.x] = me; mi_take_turn(); y[me] += s[threadIdx.x]; }"
    assert ran(ADD_ONE, kept, kept.replace("= me", "= 7")) == [1 + 7 + me for me in range(COUNT)]


def test_every_thread_must_have_its_turn() -> None:
    ends = "if (threadIdx.x == 1) return; mi_take_turn(); y[me] = 1; }"
    with pytest.raises(AssertionError, match="mi_kernel: a thread ended before its turn came"):
        ran(ADD_ONE, ends)
    with pytest.raises(AssertionError, match="mi_kernel: a thread ended before its turn came"):
        ran(ADD_ONE, ends, mode="late")
    with pytest.raises(AssertionError, match="mi_kernel: a thread ended before its turn came"):
        ran(ADD_ONE, ends.replace("threadIdx.x == 1", "me == 9"))
    assert ran(ADD_ONE, ends, attributes=LaunchAttributes())[1] == 1


# -- which kernels do --------------------------------------------------------------------------------------------------


def kernels_of(name: str) -> list[str]:
    files = (path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.cu"))
    return [file for file in files if body_of(Kernel(name, file))]


READ_WEIGHTS_BEFORE = {"excitation"}
"""Kernels that read their weights before their turn, where these are constants, and take it first where they are not."""


GENERATED = {"pointwise", "normalize_computed"}
"""Kernels that stand in no file."""

IN_HALVES = {
    "product_sm90",
    "attention_sm90",
    "large_product",
    "narrow_product",
    "byte_product",
    "squeeze_excitation",
    "depthwise_tiles",
    "row_product",
    "cached_in_cluster",
}
"""Kernels that take their turn in two halves, with what needs no other kernel between: ``sm90/turns.cuh``."""


def test_kernels_that_begin_early_take_their_turn_first() -> None:
    for name in {*BEGIN_EARLY, "softmax_columns"} - {*GENERATED, *IN_HALVES}:
        (file,) = kernels_of(name)
        text = (FOLDER / file).read_text()
        head = "#if !MI_CONSTANT\n  mi_take_turn();\n#endif" if name in READ_WEIGHTS_BEFORE else "mi_take_turn();"
        assert body_of(Kernel(name, file)).lstrip().startswith(head), name
        assert "__restrict__" not in text and "__ldg" not in text, f"{file} may read through the texture path before its turn"


def program_steps(text: str, *types: TensorType) -> list[DeviceStep]:
    program = make_program(typed_graph(text), list(types), Target())
    return [s for s in program.steps if isinstance(s, DeviceStep)]


def test_generated_kernels_take_their_turn_first() -> None:
    names = set()
    for lines in ("y = Neg(x)", "n = Neg(x)\n  y = RMSNormalization(n, x)"):
        (step,) = program_steps(f"graph main(x: f32[2]) {{\n  {lines}\n  return y\n}}", TensorType(DType.F32, (2,)))
        (launch,) = flat(step.actions)
        assert isinstance(launch, Launch) and body_of(launch.kernel).lstrip().startswith("mi_take_turn();")
        assert "__restrict__" not in kernel_text(launch.kernel) and "__ldg" not in kernel_text(launch.kernel)
        names.add(launch.kernel.name)
    assert names == GENERATED


X = Operand.input(0)


def test_launches_begin_early_where_the_rules_allow_it() -> None:
    (step,) = program_steps("graph main(x: f32[2]) {\n  y = Neg(x)\n  return y\n}", TensorType(DType.F32, (2,)))
    (known,) = step.actions
    assert isinstance(known, Launch)
    other = replace(known, kernel=Kernel("other", code='extern "C" __global__ void other() { mi_take_turn(); }'))
    large = replace(known, shared_nbytes=120 << 10)
    copy: Any = Copy(X, X, 4)

    def early(*actions: Any) -> list[bool]:
        (changed,) = begin_early([replace(step, actions=actions)])
        return [a.attributes.programmatic for a in flat(changed.actions) if isinstance(a, Launch)]

    assert early(known, known, other, known) == [False, True, False, True]
    assert early(known, copy, known, large, known) == [False, False, False, False]
    assert early(other, Repeat(3, (known, known))) == [False, True, True]  # type: ignore[arg-type]
    assert early(copy, Repeat(3, (known, known)), known) == [False, True, True]  # type: ignore[arg-type]
    assert early(other, Repeat(3, (known, copy))) == [False, False]  # type: ignore[arg-type]
    first, second = begin_early([step, step])
    assert [a.attributes.programmatic for s in (first, second) for a in s.actions if isinstance(a, Launch)] == [False, True]


# -- whole programs ----------------------------------------------------------------------------------------------------

CHAINS = {
    "normalized": """
        graph main(x: f32[n,65], w: f32[65,3], g: f32[65], b: f32[65]) {
          d = Exp(x)
          a = Add(d, x)
          l = LayerNormalization(a, g, b)
          c = Mul(l, a)
          s = Softmax(c)
          k = RMSNormalization(s, g)
          m = MatMul(k, w)
          r = Add(l, a)
          t = ReduceMean(r)
          y = Mul(t, m)
          return y, r
        }
    """,
    "columns": """
        graph main(x: f32[n,40,33]) {
          a = Sigmoid(x)
          s = Softmax(a) {axis=1}
          r = ReduceSum(s) {keepdims=0}
          d = Add(s, a)
          y = Mul(d, r)
          return y
        }
    """,
    "convolved": """
        graph main(x: f16[n,9,8,16], w: f16[16,3,3,1], s: f16[16], v: f16[16,8]) {
          a = Sigmoid(x)
          c = miniinfer.ConvNHWC(a, w) {group=16, kernel_shape=[3, 3]}
          g = miniinfer.GlobalAveragePoolNHWC(c)
          p = MatMul(g, v)
          d = Add(c, g)
          y = Mul(d, s)
          return y, p
        }
    """,
    "cached": """
        graph main(x: f16[n,1,96], kp: f16[n,1,80,32], vp: f16[n,1,80,32], c: f16[n,1,16]) {
          a = Sigmoid(x)
          sizes: i64[3] = const [32, 32, 32]
          qs, ks, vs = Split(a, sizes) {axis=2}
          apart: i64[4] = const [0, 1, 1, 32]
          q = Reshape(qs, apart)
          k = Reshape(ks, apart)
          v = Reshape(vs, apart)
          at: i64[3] = const [0, 70, 3]
          held: i64[3] = const [1, 71, 4]
          qt = RotaryEmbedding(q, c, c)
          kt = RotaryEmbedding(k, c, c)
          kn = TensorScatter(kp, kt, at) {axis=2}
          vn = TensorScatter(vp, v, at) {axis=2}
          y = Attention(qt, kn, vn, -, -, -, held) {is_causal=1}
          z = Sigmoid(y)
          return z, kn, vn
        }
    """,
    "excited": """
        graph main(x: f16[n,3,3,3]) {
          v: f16[2,1,1,3] = const [0.5, -0.25, 1.5, -0.75, 1.25, 0.5]
          w: f16[3,1,1,2] = const [2.0, -0.5, 1.0, 0.75, -1.5, 0.25]
          p = miniinfer.GlobalAveragePoolNHWC(x)
          e = miniinfer.Excitation(p, v, w)
          f = miniinfer.Excitation(e, v, w)
          y = Mul(f, x)
          return y, e
        }
    """,
    "excited by what is computed": """
        graph main(x: f16[n,3,3,40], v: f16[24,1,1,40], w: f16[40,1,1,24]) {
          p = miniinfer.GlobalAveragePoolNHWC(x)
          s = Sin(v)
          e = miniinfer.Excitation(p, s, w)
          y = Mul(e, x)
          return y
        }
    """,
    "attended": """
        graph main(x: f16[n,40,96]) {
          a = Add(x, x)
          s: i64[3] = const [32,32,32]
          q, k, v = Split(a, s) {axis=2}
          h = Attention(q, k, v) {is_causal=1, kv_num_heads=2, q_num_heads=2}
          y = Mul(h, h)
          return y
        }
    """,
    "a row": """
        graph main(x: f32[1,2400], w: f32[2400,8], v: f32[2400,8]) {
          a = Neg(x)
          m = MatMul(a, w)
          q = Relu(m)
          y = Gemm(q, v) {transB=1}
          return y
        }
    """,
}


def feeds_of(engine: Engine) -> dict[str, Any]:
    random = np.random.default_rng(3)
    shapes = [[3 if isinstance(d, str) else d for d in b.shape] for b in engine.inputs]
    return {b.name: random.standard_normal(s).astype(b.dtype) for b, s in zip(engine.inputs, shapes, strict=True)}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_a_program_gives_the_same_bits(name: str, cuda_graph: bool) -> None:
    plan = plan_of(CHAINS[name])
    results = []
    for pdl in (False, True):
        device = EmulatedDevice(schedule=Schedule("early"))
        with open_emulated(plan, device, options=DeviceOptions(pdl=pdl, cuda_graph=cuda_graph)) as engine:
            feeds = feeds_of(engine)
            runs = [engine.run(feeds) for _ in range(3)]
        assert (device.schedule.begun > 0) == pdl
        results += [b"".join(v.tobytes() for v in outputs.values()) for outputs in runs]
    assert len(set(results)) == 1


def test_these_programs_have_a_kernel_of_every_family() -> None:
    """But of normalizations in several passes, whose kernels take their turn as the others do, and of what writes into states."""
    early: set[str] = set()
    for text in CHAINS.values():
        with open_emulated(plan_of(text)) as engine:
            loaded: Any = engine.program(engine.check(feeds_of(engine)))
            steps = begin_early([s for s in loaded.made.steps if isinstance(s, DeviceStep)])
            launches = [a for s in steps for a in flat(s.actions) if isinstance(a, Launch)]
            early |= {a.kernel.name for a in launches if a.attributes.programmatic}
    assert early == BEGIN_EARLY - {
        "normalize_by",
        "batch_normalize",
        "store_statistics",
        "cached_attention",
        *(IN_HALVES - {"attention_sm90"}),
    }
