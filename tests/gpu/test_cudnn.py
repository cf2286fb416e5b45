"""cuDNN on the device against float64: convolutions of one to three axes with every epilogue, and attention."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn, PreparedGraph
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
from miniinfer_cli.backends.cuda.problems import AttentionProblem, ConvolutionProblem
from miniinfer_cli.ir import Array, DType
from tests.gpu.operands import Operand, assert_close, random_array

F16, BF16, F32 = DType.F16, DType.BF16, DType.F32
HALVES = [(F16, "f32"), (BF16, "f32")]
TYPES = [*HALVES, (F32, "tf32"), (F32, "f32")]

ACTIVATIONS: dict[str, Any] = {
    "": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


@pytest.fixture
def stream(device: Any) -> Iterator[Any]:
    device.make_current()
    with device.create_stream() as made:
        yield made


@pytest.fixture(scope="module")
def opened(device: Any) -> Iterator[Cudnn]:
    with Cudnn(device) as made:
        yield made


@pytest.fixture
def cudnn(opened: Cudnn, stream: Any) -> Iterator[Cudnn]:
    """With the test's own stream bound."""
    opened.bind(stream.handle)
    yield opened
    opened.unbind(stream.handle)


def convolution(
    dtype: DType, compute: str, x_shape: Sequence[int], kernel: Sequence[int], out: int, **o: Any
) -> ConvolutionProblem:
    """An ordinary convolution with ``out`` channels, its output's shape worked out; one number stands for every axis."""
    axes = len(kernel)
    group = o.pop("group", 1)
    strides, dilations, begin, end = (
        o.pop(name, (default,) * axes) for name, default in (("strides", 1), ("dilations", 1), ("begin", 0), ("end", 0))
    )
    sizes = tuple(
        (x_shape[1 + i] + begin[i] + end[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(axes)
    )
    w_shape, y_shape = (out, *kernel, x_shape[-1] // group), (x_shape[0], *sizes, out)
    windows = (tuple(strides), tuple(dilations), tuple(begin), tuple(end))
    return ConvolutionProblem(dtype, tuple(x_shape), w_shape, y_shape, *windows, group, compute=compute, **o)


def transposed(p: ConvolutionProblem) -> ConvolutionProblem:
    """The convolution from y's place to x's."""
    return replace(p, x_shape=p.y_shape, y_shape=p.x_shape, transposed=True)


def reference(p: ConvolutionProblem, x: Array, w: Array, bias: Array | None, z: Array | None) -> Array:
    """The convolution in float64, tap by tap."""
    axes = len(p.strides)
    wide, narrow = (p.y_shape, p.x_shape) if p.transposed else (p.x_shape, p.y_shape)
    padded = [wide[1 + i] + p.pads_begin[i] + p.pads_end[i] for i in range(axes)]
    space = np.zeros((wide[0], *padded, p.group, wide[-1] // p.group))
    inner = tuple(slice(p.pads_begin[i], p.pads_begin[i] + wide[1 + i]) for i in range(axes))
    other = np.zeros((*narrow[:-1], p.group, narrow[-1] // p.group))
    weights = w.reshape(p.group, -1, *w.shape[1:])
    if p.transposed:
        other[...] = x.reshape(other.shape)
    else:
        space[:, *inner] = x.reshape(wide[0], *wide[1:-1], p.group, -1)
    for tap in itertools.product(*(range(s) for s in w.shape[1:-1])):
        window = tuple(
            slice(t * p.dilations[i], t * p.dilations[i] + (narrow[1 + i] - 1) * p.strides[i] + 1, p.strides[i])
            for i, t in enumerate(tap)
        )
        part = weights[:, :, *tap, :]  # group, K of the group, C of the group
        if p.transposed:
            space[:, *window] += np.einsum("...gk,gkc->...gc", other, part)
        else:
            other += np.einsum("...gc,gkc->...gk", space[:, *window], part)
    total = (space[:, *inner] if p.transposed else other).reshape(p.y_shape)
    total = total + (0 if bias is None else bias) + (0 if z is None else z)
    return ACTIVATIONS[p.activation](total)


class Case:
    """A convolution's operands on the device, filled, and its result in float64."""

    def __init__(self, device: Any, stream: Any, p: ConvolutionProblem) -> None:
        self.problem = p
        random = np.random.default_rng()
        terms = np.prod(p.w_shape[1:]) if not p.transposed else np.prod(p.w_shape) / p.w_shape[-1] / p.group
        shapes: list[tuple[tuple[int, ...], float]] = [(p.x_shape, 1.0), (p.w_shape, float(terms) ** -0.5)]
        shapes += [((p.y_shape[-1],), 1.0)] if p.bias else []
        shapes += [(p.y_shape, 1.0)] if p.residual else []
        arrays = [random_array(random, p.dtype, shape, scale) for shape, scale in shapes]
        self.inputs = []
        for array in arrays:
            self.inputs.append(Operand(device, stream, p.dtype, array.size))
            self.inputs[-1].write(array)
        self.y = Operand(device, stream, p.dtype, int(np.prod(p.y_shape)))
        x, w, *rest = [a.astype(np.float64) for a in arrays]
        bias = rest.pop(0) if p.bias else None
        z = rest.pop(0) if p.residual else None
        self.expected = reference(p, x, w, bias, z)

    @property
    def addresses(self) -> list[int]:
        x, w, *rest = (o.address for o in self.inputs)
        return [x, w, self.y.address, *rest]

    def poison(self) -> None:
        self.y.write(np.full(self.expected.size, np.nan))

    def check(self) -> None:
        got = self.y.read().reshape(self.expected.shape)
        assert_close(got, self.expected, self.problem.dtype, self.problem.compute, self.problem)


def run(device: Any, stream: Any, prepared: PreparedGraph, case: Any) -> None:
    workspace = device.allocate(prepared.workspace_nbytes)
    prepared.enqueue(stream.handle, case.addresses, workspace.address)
    stream.synchronize()


def solve(device: Any, stream: Any, cudnn: Cudnn, problem: Any, *, may_refuse: bool = False) -> bool:
    """False when the library refused, which is then printed."""
    prepared = cudnn.prepare(problem)
    if prepared is None:
        assert may_refuse, f"{problem} is refused: {cudnn.refusal(problem)}"
        print(f"refused: {problem}: {cudnn.refusal(problem)}")
        return False
    case = Case(device, stream, problem) if isinstance(problem, ConvolutionProblem) else AttentionCase(device, stream, problem)
    run(device, stream, prepared, case)
    case.check()
    return True


SHAPES: dict[str, tuple[Sequence[int], Sequence[int], int, dict[str, Any]]] = {
    "3x3": ((2, 14, 14, 32), (3, 3), 64, {"begin": (1, 1), "end": (1, 1)}),
    "1x1": ((3, 7, 9, 64), (1, 1), 128, {}),
    "strided": ((2, 15, 17, 32), (3, 3), 48, {"strides": (2, 2), "begin": (1, 1), "end": (1, 1)}),
    "asymmetric": ((2, 9, 12, 16), (2, 4), 32, {"strides": (1, 2), "begin": (0, 2), "end": (1, 1)}),
    "dilated": ((1, 20, 20, 16), (3, 3), 16, {"dilations": (2, 3), "begin": (2, 3), "end": (2, 3)}),
    "7x7": ((1, 32, 32, 8), (7, 7), 64, {"strides": (2, 2), "begin": (3, 3), "end": (3, 3)}),
    "1d": ((2, 50, 16), (5,), 32, {"begin": (2,), "end": (2,)}),
    "1d strided": ((2, 64, 8), (3,), 16, {"strides": (2,), "begin": (1,), "end": (0,)}),
    "3d": ((1, 6, 8, 10, 16), (3, 3, 3), 32, {"begin": (1, 1, 1), "end": (1, 1, 1)}),
}


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, types: Any, device: Any, stream: Any, cudnn: Cudnn):
    x_shape, kernel, out, options = SHAPES[name]
    plain = convolution(*types, x_shape, kernel, out, **options)
    solve(device, stream, cudnn, plain)
    # Fusion in true f32 is up to the library.
    exact = types == (F32, "f32")
    solve(device, stream, cudnn, replace(plain, bias=True), may_refuse=exact)
    solve(device, stream, cudnn, replace(plain, bias=True, activation="relu"), may_refuse=exact)
    solve(device, stream, cudnn, replace(plain, bias=True, residual=True, activation="relu"), may_refuse=exact)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_activations(activation: str, residual: bool, types: Any, device: Any, stream: Any, cudnn: Cudnn):
    x_shape, kernel, out, options = SHAPES["3x3"]
    problem = convolution(*types, x_shape, kernel, out, **options, bias=True, residual=residual, activation=activation)
    solve(device, stream, cudnn, problem, may_refuse=types == (F32, "f32"))


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize(
    ("channels", "group", "out"), [(32, 2, 64), (64, 8, 64), (32, 32, 32), (16, 16, 32), (96, 96, 96)], ids=str
)
def test_groups(channels: int, group: int, out: int, types: Any, device: Any, stream: Any, cudnn: Cudnn):
    same = {"begin": (1, 1), "end": (1, 1)}
    plain = convolution(*types, (2, 13, 13, channels), (3, 3), out, group=group, **same)
    # Some groupings have engines for some types only; what is accepted has to be right.
    solve(device, stream, cudnn, plain, may_refuse=True)
    solve(device, stream, cudnn, replace(plain, bias=True, activation="relu6"), may_refuse=True)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("channels", [(3, 64), (5, 7), (4, 10), (1, 1)], ids=str)
def test_channels_that_fill_no_vector(channels: tuple[int, int], types: Any, device: Any, stream: Any, cudnn: Cudnn):
    plain = convolution(*types, (2, 16, 16, channels[0]), (3, 3), channels[1], begin=(1, 1), end=(1, 1))
    solve(device, stream, cudnn, plain, may_refuse=True)
    solve(device, stream, cudnn, replace(plain, bias=True, activation="relu"), may_refuse=True)


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("name", SHAPES)
def test_transposed(name: str, types: Any, device: Any, stream: Any, cudnn: Cudnn):
    x_shape, kernel, out, options = SHAPES[name]
    problem = transposed(convolution(*types, x_shape, kernel, out, **options))
    solve(device, stream, cudnn, problem, may_refuse=types == (F32, "f32") or len(kernel) == 3)
    solve(device, stream, cudnn, replace(problem, bias=True), may_refuse=True)
    solve(device, stream, cudnn, replace(problem, bias=True, activation="relu"), may_refuse=True)


def test_true_f32_is_more_exact_than_tf32(device: Any, stream: Any, cudnn: Cudnn):
    errors = {}
    for compute in ("f32", "tf32"):
        problem = convolution(F32, compute, (2, 28, 28, 128), (3, 3), 128, begin=(1, 1), end=(1, 1))
        prepared = cudnn.prepare(problem)
        assert prepared is not None, cudnn.refusal(problem)
        case = Case(device, stream, problem)
        run(device, stream, prepared, case)
        got = case.y.read().reshape(case.expected.shape)
        errors[compute] = float(np.linalg.norm(got - case.expected) / np.linalg.norm(case.expected))
    assert errors["f32"] < 5e-6 < errors["tf32"], errors


def test_every_candidate_is_right_and_repeats_its_bits(device: Any, stream: Any, cudnn: Cudnn):
    problem = convolution(
        *(F16, "f32", (1, 14, 14, 64), (3, 3), 64), begin=(1, 1), end=(1, 1), bias=True, residual=True, activation="relu"
    )
    found = cudnn.candidates(problem, 6)
    assert len(found) > 1
    case = Case(device, stream, problem)
    for prepared in found:
        bits = set()
        for _ in range(3):
            case.poison()
            run(device, stream, prepared, case)
            case.check()
            bits.add(case.y.read().tobytes())
        assert len(bits) == 1, f"{prepared.name} differs from run to run"


def test_a_stored_plan_is_restored(device: Any, stream: Any, tmp_path: Path):
    convolution_problem = convolution(F16, "f32", (2, 9, 9, 32), (3, 3), 32, bias=True, activation="swish")
    attention_problem = attention(F16, 2, 4, 4, 64, 64, causal=True)
    names = {}
    with Cudnn(device, TacticCache(tmp_path)) as first:
        for problem in (convolution_problem, attention_problem):
            prepared = first.prepare(problem)
            assert prepared is not None, first.refusal(problem)
            names[problem] = prepared.name
        chosen = first.candidates(convolution_problem, 4)[-1]
        first.keep(chosen)
        names[convolution_problem] = chosen.name
    with Cudnn(device, TacticCache(tmp_path)) as second:
        second.bind(stream.handle)
        for problem in (convolution_problem, attention_problem):
            prepared = second.prepare(problem)
            assert prepared is not None and prepared.name == names[problem]
            solve(device, stream, second, problem)
            assert prepared.serialize() == second.prepare(problem).serialize()  # type: ignore[union-attr]
    # Nonsense is refused, and the plan made afresh.
    cache = TacticCache()
    with Cudnn(device, cache) as third:
        third.bind(stream.handle)
        cache.put("cudnn", third._key(convolution_problem), b"name\0nonsense")
        solve(device, stream, third, convolution_problem)


def test_under_capture_with_two_sets_of_operands(device: Any, stream: Any, cudnn: Cudnn):
    problem = convolution(
        *(BF16, "f32", (2, 14, 14, 32), (3, 3), 32), begin=(1, 1), end=(1, 1), bias=True, residual=True, activation="relu"
    )
    prepared = cudnn.prepare(problem)
    assert prepared is not None
    cases = [Case(device, stream, problem) for _ in range(2)]
    workspace = device.allocate(prepared.workspace_nbytes)
    prepared.enqueue(stream.handle, cases[0].addresses, workspace.address)  # loads the kernels
    stream.synchronize()
    stream.begin_capture()
    for case in cases:
        prepared.enqueue(stream.handle, case.addresses, workspace.address)
    graph = stream.end_capture()
    for _ in range(2):
        for case in cases:
            case.poison()
        stream.launch_graph(graph)
        for case in cases:
            case.check()


def test_threads_with_streams_of_their_own(device: Any, stream: Any, cudnn: Cudnn):
    problem = convolution(F16, "f32", (1, 12, 12, 32), (3, 3), 32, bias=True, activation="relu")
    prepared = cudnn.prepare(problem)
    assert prepared is not None
    failures: list[BaseException] = []

    def work() -> None:
        try:
            device.make_current()
            with device.create_stream() as own:
                cudnn.bind(own.handle)
                case = Case(device, own, problem)
                workspace = device.allocate(prepared.workspace_nbytes)
                for _ in range(20):
                    case.poison()
                    prepared.enqueue(own.handle, case.addresses, workspace.address)
                    case.check()
                cudnn.unbind(own.handle)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def attention(
    dtype: DType,
    batch: int,
    heads: int,
    kv_heads: int,
    q_length: int,
    kv_length: int,
    size: int = 64,
    v_size: int | None = None,
    *,
    heads_inside: bool = True,
    causal: bool = False,
    mask_shape: tuple[int, int, int, int] | None = None,
) -> AttentionProblem:
    """Dense operands. ``heads_inside``: laid out as batch, length, heads, size, as a projection leaves them."""
    v_size = v_size or size

    def strides(heads: int, length: int, size: int) -> tuple[int, int, int, int]:
        whole = heads * length * size
        return (whole, size, heads * size, 1) if heads_inside else (whole, length * size, size, 1)

    return AttentionProblem(
        *(dtype, batch, heads, kv_heads, q_length, kv_length, size, v_size),
        *(strides(heads, q_length, size), strides(kv_heads, kv_length, size), strides(kv_heads, kv_length, v_size)),
        *(strides(heads, q_length, v_size), size**-0.5, causal, mask_shape),
    )


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class AttentionCase:
    """Operands on the device, filled, and the result in float64. ``packed``: Q, K and V are slices of one buffer."""

    def __init__(self, device: Any, stream: Any, p: AttentionProblem, *, packed: bool = False) -> None:
        self.problem = p
        random = np.random.default_rng()
        shapes = [
            ((p.batch, p.heads, p.q_length, p.size), p.q_strides),
            ((p.batch, p.kv_heads, p.kv_length, p.size), p.k_strides),
            ((p.batch, p.kv_heads, p.kv_length, p.v_size), p.v_strides),
        ]
        self.operands = []
        views, starts = [], [0, 0, 0]
        if packed:
            starts = [0, p.heads * p.size, 2 * p.heads * p.size]
            buffer, flat = self._filled(device, stream, random, p.batch * p.q_length * 3 * p.heads * p.size)
        for (shape, strides), start in zip(shapes, starts, strict=True):
            if not packed:
                buffer, flat = self._filled(device, stream, random, self._extent(shape, strides))
            self.operands.append(buffer.address + start * flat.itemsize)
            inside = tuple(s * flat.itemsize for s in strides)
            views.append(np.lib.stride_tricks.as_strided(flat[start:], shape, inside).astype(np.float64))
        self._y_shape = (p.batch, p.heads, p.q_length, p.v_size)
        self.y = Operand(device, stream, p.dtype, self._extent(self._y_shape, p.y_strides))
        self.operands.append(self.y.address)
        q, k, v = views
        k, v = (np.repeat(x, p.heads // p.kv_heads, axis=1) for x in (k, v))
        scores = p.scale * q @ np.swapaxes(k, 2, 3)
        if p.mask_shape is not None:
            mask = random_array(random, p.dtype, p.mask_shape)
            mask[random.random(p.mask_shape) < 0.2] = -np.inf
            mask[..., 0] = 0  # no query without a key
            self.mask = Operand(device, stream, p.dtype, mask.size)
            self.mask.write(mask)
            self.operands.append(self.mask.address)
            scores = scores + mask.astype(np.float64)
        if p.causal:
            scores = np.where(np.tri(p.q_length, p.kv_length, dtype=bool), scores, -np.inf)
        self.expected = softmax(scores) @ v

    def _filled(self, device: Any, stream: Any, random: np.random.Generator, count: int) -> tuple[Operand, Array]:
        flat = random_array(random, self.problem.dtype, (count,))
        operand = Operand(device, stream, self.problem.dtype, count)
        operand.write(flat)
        # Kept alive with the case.
        self.__dict__.setdefault("buffers", []).append(operand)
        return operand, flat

    @staticmethod
    def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
        return sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1

    @property
    def addresses(self) -> list[int]:
        return self.operands

    def check(self) -> None:
        flat = self.y.read()
        strides = tuple(s * flat.itemsize for s in self.problem.y_strides)
        got = np.lib.stride_tricks.as_strided(flat, self._y_shape, strides)
        assert_close(got, self.expected, self.problem.dtype, "f32", self.problem)


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("heads_inside", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "size", [(2, 4, 4, 128, 128), (1, 8, 2, 64, 64), (3, 6, 1, 33, 33), (2, 4, 4, 1, 77), (1, 2, 2, 100, 36)], ids=str
)
def test_attention(size: Any, causal: bool, heads_inside: bool, dtype: DType, device: Any, stream: Any, cudnn: Cudnn):
    problem = attention(dtype, *size, heads_inside=heads_inside, causal=causal)
    # One query, or more queries than keys, with the diagonal: not every release has it.
    solve(device, stream, cudnn, problem, may_refuse=causal and size[3] != size[4])


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("sizes", [(32, 32), (64, 64), (80, 80), (128, 128), (64, 128), (128, 64), (256, 256)], ids=str)
def test_attention_sizes(sizes: tuple[int, int], dtype: DType, device: Any, stream: Any, cudnn: Cudnn):
    problem = attention(dtype, 2, 4, 2, 64, 96, *sizes)
    solve(device, stream, cudnn, problem, may_refuse=sizes[0] != sizes[1] or sizes[0] > 128)


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 4), (2, 4)], ids=str)
@pytest.mark.parametrize("lengths", [(64, 64), (40, 88)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_masks(causal: bool, lengths: Any, shape: Any, dtype: DType, device: Any, stream: Any, cudnn: Cudnn):
    problem = attention(dtype, 2, 4, 4, *lengths, causal=causal, mask_shape=(*shape, *lengths))
    solve(device, stream, cudnn, problem, may_refuse=causal)


def test_a_mask_of_keys_only(device: Any, stream: Any, cudnn: Cudnn):
    problem = attention(F16, 2, 4, 4, 64, 64, mask_shape=(2, 1, 1, 64))
    solve(device, stream, cudnn, problem, may_refuse=True)


def test_attention_over_one_packed_buffer(device: Any, stream: Any, cudnn: Cudnn):
    batch, heads, length, size = 2, 4, 48, 64
    packed = (length * 3 * heads * size, size, 3 * heads * size, 1)
    problem = replace(attention(F16, batch, heads, heads, length, length), q_strides=packed, k_strides=packed, v_strides=packed)
    prepared = cudnn.prepare(problem)
    assert prepared is not None, cudnn.refusal(problem)
    case = AttentionCase(device, stream, problem, packed=True)
    run(device, stream, prepared, case)
    case.check()


def test_what_is_not_supported_says_why(cudnn: Cudnn):
    problem = attention(F16, 1, 2, 2, 16, 16, 60)
    assert cudnn.prepare(problem) is None
    assert "multiple of 8" in cudnn.refusal(problem)


def test_a_stream_that_is_not_bound(device: Any, stream: Any, cudnn: Cudnn):
    problem = convolution(F16, "f32", (1, 8, 8, 8), (1, 1), 8)
    prepared = cudnn.prepare(problem)
    assert prepared is not None
    with device.create_stream() as other, pytest.raises(ValueError, match="not bound"):
        prepared.enqueue(other.handle, Case(device, stream, problem).addresses, 256)
