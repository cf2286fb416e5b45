"""The programs of a few models are those of the golden record; and what the record holds, how it is compared and replayed."""

import enum
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contract.problems import (
    Activation,
    AttentionProblem,
    Compute,
    ConvolutionProblem,
    MatmulProblem,
    Problem,
)
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType
from tests.golden import record, recording
from tests.golden.__main__ import main
from tests.golden.comparing import differences, programs, summary
from tests.golden.libraries import (
    PLAIN_DEVICE,
    AllAnswers,
    NoAnswers,
    NotRecorded,
    Recorded,
    Recording,
    problem_text,
)
from tests.golden.models import BATCHES, DTYPES, MODELS, Model, build
from tests.golden.text import program_text

MATMUL = MatmulProblem(8, 16, 32, DType.F16, DType.F16, DType.F16, Compute.F32)
CONV = ConvolutionProblem(DType.F16, (1, 9, 9, 8), (16, 3, 3, 8), (1, 7, 7, 16), (1, 1), (1, 1), (0, 0), (0, 0))
STRIDES = (8, 8, 8, 1)
ATTENTION = AttentionProblem(DType.F16, 1, 2, 2, 16, 16, 64, 64, STRIDES, STRIDES, STRIDES, STRIDES, 0.125)

cached = cache(build)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("simple_cnn", "f32"), ("resnet50", "f16"), ("lstm_tagger", "f32"), ("refiner", "f16"), ("vit_b16", "f16")],
)
def test_programs_are_those_of_the_record(name: str, dtype: str) -> None:
    made = "".join(record.sections(name, (dtype,)))
    assert (found := differences(record.read(name, (dtype,)), made)) == [], summary(found, 20)


@pytest.mark.parametrize("name", MODELS)
def test_the_record_is_of_every_model_type_batch_and_answer(name: str) -> None:
    wanted = [f"{name} {d} batch {b}, {a.title}" for d in DTYPES for b in BATCHES for a in record.all_answers()]
    assert [title for title in programs(record.read(name)) if title.count(",") == 1] == wanted


def test_the_record_names_all_kinds_of_steps() -> None:
    text = "".join(map(record.read, MODELS))
    kinds = ("launch", "copy", "fill", "matmul", "convolution", "attention")
    assert [k for k in kinds if f"\n  {k} " not in text] == []
    for part in (
        "tactic=host",
        "tactic=control",
        "tactic=late",
        ", body of ",
        ", then_branch of ",
        ", late part of ",
        ", weights by ",
    ):
        assert part in text, part


def test_the_record_takes_little_room() -> None:
    assert sum(p.stat().st_size for p in record.FOLDER.iterdir()) < 1 << 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_stand_ins_give_the_programs_of_real_weights(dtype: str) -> None:
    (one,) = {"".join(record.sections("lstm_tagger", (dtype,), [NoAnswers()], real_weights=real)) for real in (False, True)}
    assert "lstm.weight_ih_l0" in one


def test_other_launches_are_told_by_step_and_field(monkeypatch: pytest.MonkeyPatch) -> None:
    small = NoAnswers()
    monkeypatch.setattr(small, "device", {**PLAIN_DEVICE, "multiprocessors": 1})
    model = cached("refiner", "f32")
    old, new = (program_text("refiner", model.graph, model.inputs(8), a) for a in (NoAnswers(), small))
    found = differences(old, new)
    assert "refiner: step /embed/linear/MatMul: does launch gemv_along_n; did launch gemv_along_n, launch add_parts" in found, (
        summary(found, 20)
    )
    assert "refiner, body of /Loop: step /round/norm/LayerNormalization: launch normalize_rows: grid 8 -> 2" in found


BEFORE = """== a
input x = f32[2]
step one op=Relu
  launch args=x,one:0,int32:2 block=256 grid=1 kernel=pointwise shared=0 text=aa
step two op=Add
  launch args=one:0,two:0 block=256 grid=1 kernel=pointwise shared=0 text=bb
  copy from=two:0 nbytes=8 to=scratch
output y = two:0
== b
host three in=x op=NonZero out=i64[?] reason=none tactic=host
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "grid=1 kernel=pointwise shared=0 text=aa",
            "grid=2 kernel=pointwise shared=0 text=aa",
            "a: step one: launch pointwise: grid 1 -> 2",
        ),
        ("text=aa", "text=cc", "a: step one: launch pointwise: text aa -> cc"),
        ("nbytes=8", "nbytes=4", "a: step two: 2. copy: nbytes 8 -> 4"),
        ("  copy from=two:0 nbytes=8 to=scratch\n", "", "a: step two: does launch pointwise; did launch pointwise, copy"),
        ("= f32[2]", "= f32[3]", "a: input x: value f32[2] -> f32[3]"),
        ("output y = two:0", "output y = one:0", "a: output y: value two:0 -> one:0"),
        ("op=Relu", "op=Neg", "a: step one: op Relu -> Neg"),
        ("tactic=host", "tactic=late", "b: host three: tactic host -> late"),
        ("step two op=Add", "step four op=Add", "a: step two: gone, it was step two op=Add; launch pointwise; copy"),
        ("step one", "step zero op=Neg\nstep one", "a: step zero: new, it is step zero op=Neg"),
        ("== b", "== c", "b: no such program any more"),
        ("== b", "== c", "c: a new program"),
    ],
)
def test_a_difference_is_told(old: str, new: str, told: str) -> None:
    assert old in BEFORE
    assert told in differences(BEFORE, BEFORE.replace(old, new))
    assert differences(BEFORE, BEFORE) == []


def test_programs_in_another_order_are_a_difference() -> None:
    first, second = BEFORE.split("== b")
    assert differences(BEFORE, f"== b{second}{first}") == ["the programs are equal, their order is not"]


def test_many_differences_are_summed_up() -> None:
    found = [f"a: step s{i}: launch k: text a -> b" for i in range(5)] + ["a: step t: launch k: grid 1 -> 2"]
    assert summary(found, 2).splitlines()[2:] == ["... and 4 more", "fields that differ: text 5x, grid 1x"]


def _variants(problem: Problem) -> Iterator[Problem]:
    for field in fields(problem):
        value: Any = getattr(problem, field.name)
        other: Any
        if isinstance(value, DType):
            other = DType.BF16
        elif isinstance(value, tuple):
            other = (*value[:-1], value[-1] + 1)
        elif value is None:
            other = (1, 1, 1, 1)
        elif isinstance(value, enum.Enum):
            other = next(m for m in type(value) if m is not value)
        else:
            other = value + 1
        yield replace(problem, **{field.name: other})


@pytest.mark.parametrize("problem", [MATMUL, CONV, ATTENTION])
def test_two_problems_never_have_one_text(problem: Problem) -> None:
    variants = [problem, *_variants(problem)]
    assert len({problem_text(p) for p in variants}) == len(variants) == len(fields(problem)) + 1


@pytest.mark.parametrize(
    ("problem", "taken"),
    [
        (MATMUL, True),
        (replace(MATMUL, activation=Activation.TANH), False),
        (replace(MATMUL, a=DType.F64, b=DType.F64, d=DType.F64, compute=Compute.F64, activation=Activation.GELU_TANH), False),
        (CONV, True),
        (replace(CONV, dtype=DType.F64), False),
        (ATTENTION, True),
        (replace(ATTENTION, dtype=DType.F32), False),
        (replace(ATTENTION, size=60), False),
        (replace(ATTENTION, v_size=512), False),
    ],
)
def test_all_libraries_take_what_they_document(problem: Problem, taken: bool) -> None:
    assert AllAnswers().supports(problem) is taken


class Libraries:
    """Solves what is wider than 64, and counts."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.asked: list[Problem] = []
        self.closed = False

    def prepare(self, problem: Problem) -> Any:
        self.asked.append(problem)
        width = problem.n if isinstance(problem, MatmulProblem) else 100
        return SimpleNamespace(workspace_nbytes=width * 2, name=f"algorithm {width}") if width > 64 else None

    def close(self) -> None:
        self.closed = True


def a_device() -> Any:
    return SimpleNamespace(**{**PLAIN_DEVICE, "multiprocessors": 78}, name="some GPU", close=lambda: None)


def test_recorded_answers_are_replayed(tmp_path: Path) -> None:
    libraries = Libraries()
    answers = recording.ask(lambda: (a_device(), libraries), "refiner", "f16")
    assert libraries.closed and len(set(libraries.asked)) == len(libraries.asked) == len(answers.answers)
    assert {a is None for a in answers.answers.values()} == {True, False}
    path = tmp_path / "answers.json"
    recording.merged([answers, answers]).write(path)
    found = Recorded.read(path)
    assert found == answers and found.about["gpu"] == "some GPU" and found.device["multiprocessors"] == 78
    model: Model = cached("refiner", "f16")
    one, other = (program_text("refiner", model.graph, model.inputs(8), a) for a in (found, Recording(a_device(), Libraries())))
    assert one == other and "/workspace:512 " in one


def test_a_question_that_nobody_asked_the_gpu_is_an_error() -> None:
    answers = Recorded(PLAIN_DEVICE, {}, {problem_text(MATMUL): None})
    assert not answers.supports(MATMUL)
    with pytest.raises(NotRecorded, match=r"matmul .*m=9 .*record anew on a GPU: python -m tests.golden --record"):
        answers.supports(replace(MATMUL, m=9))


def test_a_library_that_is_missing_is_no_refusal() -> None:
    libraries = Libraries()
    libraries.missing["cudnn"] = "no cuDNN here"
    with pytest.raises(DeviceError, match="no cuDNN here"):
        recording.ask(lambda: (a_device(), libraries), "simple_cnn", "f32")
    assert libraries.closed


def test_the_command_compares_writes_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = record.read("simple_cnn")
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    chosen = ["--match", "simple", "--workers", "1"]
    monkeypatch.setattr(record, "made", lambda name, real_weights: (name, text))
    assert main([*chosen, "--write"]) == 0 and main([*chosen, "--write"]) == 0
    assert capsys.readouterr().out == "simple_cnn: written\nsimple_cnn: as it was\n"
    assert main([*chosen, "--show"]) == 0
    assert capsys.readouterr().out == text
    assert main(chosen) == 0
    assert capsys.readouterr().out == "simple_cnn: equal\n"
    monkeypatch.setattr(record, "made", lambda name, real_weights: (name, text.replace("block=256", "block=128", 1)))
    assert main(chosen) == 1
    out = capsys.readouterr().out
    assert "block 256 -> 128" in out and "fields that differ: block 1x" in out
    with pytest.raises(SystemExit):
        main(["--match", "nothing"])
