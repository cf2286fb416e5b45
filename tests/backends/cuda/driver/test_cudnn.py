"""Problems as cuDNN's graphs, and which plan is taken, kept and restored, with a front end that only notes what it is asked."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contract.problems import Activation, AttentionProblem, Compute, ConvolutionProblem
from miniinfer_cli.backends.cuda.driver import cudnn as binding
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType
from tests.backends.cuda.driver.fake_cudnn import FakeCudnn, FakeGraph, NotSupported

CONV = ConvolutionProblem(
    dtype=DType.F16,
    x_shape=(2, 9, 7, 16),
    w_shape=(32, 3, 3, 16),
    y_shape=(2, 5, 4, 32),
    strides=(2, 2),
    dilations=(1, 1),
    pads_begin=(1, 0),
    pads_end=(1, 2),
)
ATTENTION = AttentionProblem(
    *(DType.BF16, 2, 8, 2, 64, 128, 40, 48),
    q_strides=(20480, 40, 320, 1),
    k_strides=(10240, 5120, 40, 1),
    v_strides=(12288, 6144, 48, 1),
    y_strides=(24576, 48, 384, 1),
    scale=0.125,
)


class FakeDevice:
    name = "a device"
    arch = 90

    def make_current(self) -> None:
        pass


Open = Callable[..., Cudnn]


@pytest.fixture
def fake() -> FakeCudnn:
    return FakeCudnn()


@pytest.fixture
def open_cudnn(fake: FakeCudnn, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setattr(binding, "load_library", lambda name: None)
    monkeypatch.setitem(sys.modules, "cudnn", fake)  # type: ignore[arg-type]
    return lambda cache=None: Cudnn(FakeDevice(), cache)  # type: ignore[arg-type]


@pytest.fixture
def cudnn(open_cudnn: Open) -> Iterator[Cudnn]:
    with open_cudnn() as made:
        yield made


def graph_of(cudnn: Cudnn, fake: FakeCudnn, problem: Any) -> FakeGraph:
    assert cudnn.prepare(problem) is not None, cudnn.refusal(problem)
    return fake.graphs[-1]


def test_a_convolution_in_channels_last(cudnn: Cudnn, fake: FakeCudnn):
    graph = graph_of(cudnn, fake, CONV)
    assert graph.output.expression() == "conv(x, w)"
    half = {"data_type": "half"}
    assert graph.operand(1).fields == {"dim": [2, 16, 9, 7], "stride": [1008, 1, 112, 16], "uid": 1, **half}
    assert graph.operand(2).fields == {"dim": [32, 16, 3, 3], "stride": [144, 1, 48, 16], "uid": 2, **half}
    assert graph.output.fields == {"dim": [2, 32, 5, 4], "stride": [640, 1, 128, 32], "uid": 3, "output": True, **half}
    assert graph.options == {"pre_padding": [1, 0], "post_padding": [1, 2], "stride": [2, 2], "dilation": [1, 1]}


def test_one_axis_becomes_two(cudnn: Cudnn, fake: FakeCudnn):
    graph = graph_of(cudnn, fake, ConvolutionProblem(DType.F32, (2, 9, 4), (6, 3, 2), (2, 4, 6), (2,), (1,), (0,), (0,), group=2))
    assert graph.operand(1).fields["dim"] == [2, 4, 1, 9] and graph.operand(1).fields["stride"] == [36, 1, 36, 4]
    assert graph.operand(2).fields["dim"] == [6, 2, 1, 3] and graph.output.fields["dim"] == [2, 6, 1, 4]
    assert graph.options == {"pre_padding": [0, 0], "post_padding": [0, 0], "stride": [1, 2], "dilation": [1, 1]}


def test_three_axes_transposed(cudnn: Cudnn, fake: FakeCudnn):
    problem = ConvolutionProblem(
        *(DType.BF16, (1, 2, 3, 4, 8), (8, 2, 2, 2, 5), (1, 4, 6, 8, 5), (2, 2, 2), (1, 1, 1), (0, 0, 0), (0, 0, 0)),
        transposed=True,
        bias=True,
    )
    graph = graph_of(cudnn, fake, problem)
    assert graph.output.expression() == "add(dgrad(x, w), bias)"
    assert graph.operand(4).fields["dim"] == [1, 5, 1, 1, 1] and graph.operand(4).fields["stride"] == [5, 1, 5, 5, 5]
    assert [t.fields["dim"] for t in graph.tensors[2:]] == [[1, 5, 4, 6, 8], [1, 5, 1, 1, 1], [1, 5, 4, 6, 8]]


def test_every_part_of_the_epilogue(cudnn: Cudnn, fake: FakeCudnn):
    graph = graph_of(cudnn, fake, replace(CONV, activation=Activation.RELU, bias=True, residual=True))
    assert graph.output.expression() == "relu(add(add(conv(x, w), z), bias))"
    assert graph.operand(4).expression() == "bias" and graph.operand(5).expression() == "z"


def test_a_residual_alone_is_the_fourth_operand(cudnn: Cudnn, fake: FakeCudnn):
    assert graph_of(cudnn, fake, replace(CONV, residual=True)).operand(4).expression() == "z"


def test_the_other_order_of_a_sum_is_tried(cudnn: Cudnn, fake: FakeCudnn):
    problem = replace(CONV, bias=True, residual=True)
    fake.refuse = {"add(add(conv(x, w), z), bias)"}
    graph = graph_of(cudnn, fake, problem)
    assert graph.output.expression() == "add(add(conv(x, w), bias), z)"
    assert graph.operand(4).expression() == "bias" and graph.operand(5).expression() == "z"


def test_attention(cudnn: Cudnn, fake: FakeCudnn):
    graph = graph_of(cudnn, fake, replace(ATTENTION, causal=True, mask_shape=(1, 8, 64, 128)))
    assert graph.output.expression() == "sdpa(q, k, v, mask)"
    shapes = {1: [2, 8, 64, 40], 2: [2, 2, 128, 40], 3: [2, 2, 128, 48], 4: [2, 8, 64, 48], 5: [1, 8, 64, 128]}
    assert {n: graph.operand(n).fields["dim"] for n in shapes} == shapes
    assert graph.operand(1).fields["stride"] == [20480, 40, 320, 1] and graph.output.fields["stride"] == [24576, 48, 384, 1]
    assert graph.operand(5).fields["stride"] == [65536, 8192, 128, 1]
    assert graph.options == {
        "attn_scale": 0.125,
        "generate_stats": False,
        "name": "attention",
        "diagonal_alignment": "top left",
        "diagonal_band_right_bound": 0,
    }
    assert "diagonal_alignment" not in graph_of(cudnn, fake, ATTENTION).options


@pytest.mark.parametrize(
    "change",
    [
        {"y_shape": (2, 5, 5, 32)},
        {"y_shape": (1, 5, 4, 32)},
        {"y_shape": (2, 5, 4, 31)},
        {"w_shape": (32, 3, 3, 8)},
        {"w_shape": (32, 12, 3, 16)},
        {"pads_begin": (1,)},
        {"x_shape": (2, 9, 16)},
        {"activation": "tanh"},
        {"group": 3},
    ],
)
def test_contradictory_convolutions_are_bugs(change: dict[str, Any], cudnn: Cudnn):
    with pytest.raises(ValueError, match="do not belong together"):
        cudnn.prepare(replace(CONV, **change))


def test_an_output_longer_than_it_has_to_be(cudnn: Cudnn):
    # ONNX's output_padding: several sizes of y give the same x.
    base = replace(CONV, transposed=True, x_shape=(2, 5, 4, 32), y_shape=(2, 9, 7, 16))
    assert cudnn.prepare(base) is not None and cudnn.prepare(replace(base, y_shape=(2, 10, 8, 16))) is not None
    with pytest.raises(ValueError, match="belong"):
        cudnn.prepare(replace(base, y_shape=(2, 11, 7, 16)))


@pytest.mark.parametrize("failure", [RuntimeError, NotSupported, SystemError])
def test_the_first_plan_that_builds_is_taken(cudnn: Cudnn, fake: FakeCudnn, failure: type[Exception]):
    fake.failure = failure
    fake.plans = [
        ("random", 0, ("NONDETERMINISTIC",), True),
        ("broken", 0, (), False),
        ("large", 1 << 40, (), True),
        ("good", 512, ("TENSOR_CORE",), True),
        ("other", 0, (), True),
    ]
    prepared = cudnn.prepare(CONV)
    assert prepared is not None and (prepared.name, prepared.workspace_nbytes) == ("good", 512)
    assert cudnn.prepare(replace(CONV)) is prepared
    assert [c.name for c in cudnn.candidates(CONV)] == ["good", "other"]
    assert [c.name for c in cudnn.candidates(CONV, 1)] == ["good"]
    small = cudnn.prepare(CONV, workspace_limit=100)
    assert small is not None and small.name == "other"


def test_true_f32_takes_no_tensor_cores(cudnn: Cudnn, fake: FakeCudnn):
    fake.plans = [("tensor cores", 0, ("TENSOR_CORE",), True), ("plain", 0, (), True)]
    single = replace(CONV, dtype=DType.F32)
    assert cudnn.prepare(single).name == "plain"  # type: ignore[union-attr]
    assert cudnn.prepare(replace(single, compute=Compute.TF32)).name == "tensor cores"  # type: ignore[union-attr]
    assert cudnn.prepare(CONV).name == "tensor cores"  # type: ignore[union-attr]


def test_what_is_not_supported_is_none_with_a_reason(cudnn: Cudnn, fake: FakeCudnn):
    fake.refuse = {"relu(conv(x, w))"}
    problem = replace(CONV, activation=Activation.RELU)
    assert cudnn.refusal(problem) == ""
    assert cudnn.prepare(problem) is None and cudnn.prepare(problem) is None
    assert cudnn.refusal(problem) == "no engine for this graph" and len(fake.graphs) == 1
    assert cudnn.prepare(CONV) is not None and cudnn.refusal(CONV) == ""
    assert cudnn.prepare(replace(CONV, dtype=DType.F64)) is None
    fake.plans = []
    assert cudnn.prepare(replace(CONV, bias=True)) is None


def test_streams_have_handles_of_their_own(open_cudnn: Open, fake: FakeCudnn):
    cudnn = open_cudnn()
    prepared = cudnn.prepare(CONV)
    assert prepared is not None
    with pytest.raises(ValueError, match="stream 0x7 is not bound"):
        prepared.enqueue(7, [16, 32, 48])
    for stream in (7, 8, 7):
        cudnn.bind(stream)
    assert sorted(fake.handles.values(), key=str) == [7, 8, None]
    prepared.enqueue(7, [16, 32, 48])
    prepared.enqueue(8, [64, 32, 48], 256)
    one, two = cudnn.handle_for(7), cudnn.handle_for(8)
    assert fake.executed == [(0, {1: 16, 2: 32, 3: 48}, 0, one), (0, {1: 64, 2: 32, 3: 48}, 256, two)]
    cudnn.unbind(7)
    cudnn.unbind(7)
    assert list(fake.handles.values()) == [None, 0, 8]
    with pytest.raises(ValueError, match="stream 0x7 is not bound"):
        cudnn.handle_for(7)
    cudnn.bind(9)  # gets what 7 had
    assert list(fake.handles.values()) == [None, 9, 8] and cudnn.handle_for(9) == one
    cudnn.unbind(9)
    cudnn.close()
    cudnn.close()
    assert fake.handles == {}


def test_enqueue_refuses_what_cannot_be_right(cudnn: Cudnn, fake: FakeCudnn):
    fake.plans = [("eng0", 64, (), True)]
    prepared = cudnn.prepare(replace(CONV, bias=True))
    assert prepared is not None
    cudnn.bind(7)
    for addresses, workspace, message in (
        ([16, 32, 48], 64, "expected 4 addresses, got 3"),
        ([16, 32, 48, 40], 64, "multiples of 16 bytes"),
        ([16, 32, 48, 64], 0, "needs a workspace of 64 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared.enqueue(7, addresses, workspace)
    assert fake.executed == []


def test_a_failed_execution_names_problem_and_plan(cudnn: Cudnn, fake: FakeCudnn, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED\nmore")

    monkeypatch.setattr(FakeGraph, "execute_plan_at_index", fail)
    prepared = cudnn.prepare(CONV)
    assert prepared is not None
    cudnn.bind(7)
    with pytest.raises(DeviceError, match=r"cuDNN failed for ConvolutionProblem\(.*by eng0: CUDNN_STATUS_EXECUTION_FAILED\n"):
        prepared.enqueue(7, [16, 32, 48])


def test_plans_are_restored_in_later_processes(open_cudnn: Open, fake: FakeCudnn, tmp_path: Path):
    fake.plans = [("first", 0, (), True), ("second", 64, (), True)]
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        assert cudnn.prepare(CONV).name == "first"  # type: ignore[union-attr]
        built = fake.built
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        prepared = cudnn.prepare(CONV)
        assert prepared is not None and prepared.name == "first" and fake.built == built
        cudnn.bind(7)
        prepared.enqueue(7, [16, 32, 48])
        assert fake.executed == [(0, {1: 16, 2: 32, 3: 48}, 0, cudnn.handle_for(7))]
        # The one that was built last is not the one to keep.
        first, second = cudnn.candidates(CONV)
        assert (first.serialize(), second.serialize()) == (b"first\0plan 0", b"second\0plan 1")


def test_a_plan_that_is_too_large_for_one_caller_is_kept(open_cudnn: Open, fake: FakeCudnn, tmp_path: Path):
    fake.plans = [("large", 64, (), True), ("small", 0, (), True)]
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        assert cudnn.prepare(CONV).name == "large"  # type: ignore[union-attr]
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        assert cudnn.prepare(CONV, workspace_limit=0).name == "small"  # type: ignore[union-attr]
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        assert cudnn.prepare(CONV, workspace_limit=64).name == "large"  # type: ignore[union-attr]


def test_a_refused_plan_is_built_afresh(open_cudnn: Open, fake: FakeCudnn, tmp_path: Path):
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        cudnn.prepare(CONV)
    fake.refuse_plans = True
    fake.plans = [("new", 0, (), True)]
    with open_cudnn(TacticCache(tmp_path)) as cudnn:
        assert cudnn.prepare(CONV).name == "new"  # type: ignore[union-attr]


def test_without_the_front_end_the_error_says_how_to_get_it(open_cudnn: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cudnn", None)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="nvidia-cudnn-frontend cannot be imported") as caught:
        open_cudnn()
    assert "pip install" in caught.value.hint


def test_a_front_end_that_finds_no_library(open_cudnn: Open, fake: FakeCudnn, monkeypatch: pytest.MonkeyPatch):
    def missing() -> str:
        raise RuntimeError("Unable to find symbol cudnnGetVersion")

    monkeypatch.setattr(fake, "backend_version_string", missing)
    with pytest.raises(DeviceError, match="cuDNN cannot be used: Unable to find symbol"):
        open_cudnn()


def test_plans_are_kept_under_the_same_text_as_ever():
    problem = replace(CONV, activation=Activation.RELU, compute=Compute.TF32)
    assert "activation='relu', compute='tf32')" in repr(problem) and "activation=''" in repr(CONV)


TUNABLE = [
    ("eng34_k2=13_k13=2_k14=3", 0, (), True),
    ("eng12_k2=1", 4096, (), True),
    ("eng13", 0, ("NONDETERMINISTIC",), True),
    ("eng14", 0, (), False),
    ("eng0_k24=7_k99=-1", 128, (), True),
]


def test_variants_are_the_other_plans_by_engine_and_knobs(cudnn: Cudnn, fake: FakeCudnn):
    fake.plans = TUNABLE
    found = cudnn.variants(CONV, 8, 60)
    assert [v.opaque for v in found] == [
        {"engine": 12, "knobs": {"TILE_SIZE": 1}},
        {"engine": 0, "knobs": {"KERNEL_CFG": 7, "KNOB_99": -1}},
    ]
    assert cudnn.variants(CONV, 1, 60) == found[:1]
    assert cudnn.variants(CONV, 8, -1) == []  # no time for more than the first
    prepared = cudnn.prepare(CONV, found[0])
    assert prepared is not None and (prepared.workspace_nbytes, prepared.variant) == (4096, found[0])
    fake.plans = []
    assert cudnn.variants(ATTENTION, 8, 60) == []


def test_a_variant_is_restored_from_its_plan_or_built_again(open_cudnn: Open, fake: FakeCudnn):
    fake.plans = TUNABLE
    with open_cudnn() as first:
        variant = first.to_record(CONV, first.variants(CONV, 8, 60)[1])
        assert variant is not None
        said = {"engine": 0, "knobs": {"KERNEL_CFG": 7, "KNOB_99": -1}, "plan": b"plan 4"}
        assert {k: v for k, v in variant.opaque.items() if k != "problem"} == said
    built = fake.built
    with open_cudnn() as second:
        restored = second.prepare(CONV, variant)
        assert restored is not None and restored.workspace_nbytes == 128 and fake.built == built
        assert second.to_record(CONV, variant) == variant
    with open_cudnn() as other:  # a serialized plan is for its own problem: of another one engine and knobs alone count
        larger = replace(CONV, x_shape=(4, 9, 7, 16), y_shape=(4, 5, 4, 32))
        prepared = other.prepare(larger, variant)
        assert prepared is not None and fake.graphs[-1].restored is None and fake.built == built + 1
        kept = other.to_record(larger, variant)
        assert kept is not None and kept.opaque["problem"] != variant.opaque["problem"]
    with open_cudnn() as own_choice:
        chosen = own_choice.to_record(CONV, None)
        assert chosen is not None
        said = {"engine": 34, "knobs": {"STAGES": 3, "TILEK": 2, "TILE_SIZE": 13}, "plan": b"plan 0"}
        assert {k: v for k, v in chosen.opaque.items() if k != "problem"} == said
        fake.plans = []
        assert own_choice.to_record(ATTENTION, None) is None
        fake.plans = TUNABLE
    fake.refuse_plans, built = True, fake.built
    # As the library may list the knobs another time.
    fake.plans = [TUNABLE[0], ("eng0_k99=-1_k24=7", 64, (), True), ("eng0_k24=7_k99=0", 32, (), True)]
    with open_cudnn() as third:
        again = third.prepare(CONV, variant)
        assert again is not None and again.workspace_nbytes == 64 and fake.built == built + 1
        assert third.prepare(CONV, variant, workspace_limit=63) is None
        fake.plans = TUNABLE[:2]
        assert third.prepare(replace(CONV, bias=True), variant) is None
        assert third.refusal(replace(CONV, bias=True)) == ""
