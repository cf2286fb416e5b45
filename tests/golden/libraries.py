"""What cuBLASLt and cuDNN answer, without a GPU: nothing, yes to all that they may take, or what was recorded on one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from miniinfer_cli.backends.cuda.contract.problems import Activation, AttentionProblem, Compute, MatmulProblem, Problem
from miniinfer_cli.backends.cuda.driver import cublaslt_forms
from miniinfer_cli.backends.cuda.driver.cudnn_graphs import descriptions
from miniinfer_cli.backends.cuda.driver.libraries import library_versions
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType

PLAIN_DEVICE = {"arch": 90, "multiprocessors": 132, "shared_nbytes": 227 << 10}
"""The device of programs for which no answers were recorded."""
_SOLVERS = ("cuBLASLt", "cuDNN", "cudnn-frontend")
_MOST_HEAD = 128  # elements of an attention's head that every release of cuDNN takes


class NotRecorded(LookupError):
    """A library is asked what nobody asked it while the answers were recorded."""


class Answers(Protocol):
    """Answers of the libraries on ``device``: its compute capability, multiprocessors and shared memory."""

    title: str
    device: Mapping[str, int]

    def supports(self, problem: Problem) -> bool:
        """Whether a library solves the problem."""

    def answer(self, problem: Problem) -> str:
        """How it does, in a word; asked of what is supported."""


class NoAnswers:
    """There is no library."""

    title = "no libraries"
    device: Mapping[str, int] = PLAIN_DEVICE

    def supports(self, problem: Problem) -> bool:
        return False

    def answer(self, problem: Problem) -> str:
        raise AssertionError(f"nothing solves {problem}")


class AllAnswers:
    """Every problem that the libraries' documentation lets them take is solved."""

    title = "all libraries"
    device: Mapping[str, int] = PLAIN_DEVICE

    def supports(self, problem: Problem) -> bool:
        match problem:
            case MatmulProblem():
                inexact = problem.compute is Compute.F64 and problem.activation is Activation.GELU_TANH
                return cublaslt_forms.describe(problem) is not None and not inexact
            case AttentionProblem():
                sizes = (problem.size, problem.v_size)
                fit = all(n % 8 == 0 and n <= _MOST_HEAD for n in sizes) and problem.heads % problem.kv_heads == 0
                return fit and problem.dtype in (DType.F16, DType.BF16)
        return next(iter(descriptions(problem)), None) is not None

    def answer(self, problem: Problem) -> str:
        return "accepted"


@dataclass
class Recorded:
    """The answers that a GPU's libraries gave, by the problem's text: None for a refusal.

    ``about`` says which GPU, and which libraries.
    """

    device: Mapping[str, int]
    about: Mapping[str, str]
    answers: dict[str, str | None] = field(default_factory=dict)
    title = "recorded libraries"

    def supports(self, problem: Problem) -> bool:
        return self._answer(problem) is not None

    def answer(self, problem: Problem) -> str:
        answer = self._answer(problem)
        assert answer is not None, f"nothing solves {problem}"
        return answer

    def _answer(self, problem: Problem) -> str | None:
        key = problem_text(problem)
        if key not in self.answers:
            raise NotRecorded(f"no answer was recorded to: {key}; record anew on a GPU: python -m tests.golden --record FILE")
        return self.answers[key]

    def write(self, path: Path) -> None:
        """As JSON, an answer to a line."""
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(self.answers.items())]
        head = json.dumps({"about": dict(self.about), "device": dict(self.device)}, sort_keys=True)
        path.write_text(head[:-1] + ', "answers": {\n' + ",\n".join(lines) + "\n}}\n")

    @classmethod
    def read(cls, path: Path) -> "Recorded":
        """What ``write`` wrote."""
        return cls(**json.loads(path.read_text()))


class Recording(Recorded):
    """Asks the libraries of a device (loading.libraries.Libraries), and keeps what they answer."""

    def __init__(self, device: Any, libraries: Any) -> None:
        super().__init__({name: int(getattr(device, name)) for name in PLAIN_DEVICE}, {"gpu": device.name})
        self._libraries = libraries

    def finished(self) -> Recorded:
        """The answers. Raises DeviceError when a library is missing, which would look like refusals."""
        for reason in self._libraries.missing.values():
            raise DeviceError(reason)
        versions = {name: version for name, version in library_versions().items() if name in _SOLVERS}
        return Recorded(self.device, {**self.about, **versions}, self.answers)

    def _answer(self, problem: Problem) -> str | None:
        key = problem_text(problem)
        if key not in self.answers:
            prepared = self._libraries.prepare(problem)
            self.answers[key] = None if prepared is None else _answer_text(prepared.workspace_nbytes, prepared.name)
        return self.answers[key]


def problem_text(problem: Problem) -> str:
    """The kind of the problem and its fields, sorted, without those at their defaults: the same for equal problems."""
    kind = type(problem).__name__.removesuffix("Problem").lower()
    given = {f.name: getattr(problem, f.name) for f in fields(problem) if getattr(problem, f.name) != f.default}
    return " ".join([kind, *(f"{name}={_value(value)}" for name, value in sorted(given.items()))])


def _value(value: Any) -> str:
    return ",".join(map(_value, value)) if isinstance(value, tuple) else str(value)


def _answer_text(workspace_nbytes: int, name: str) -> str:
    return f"{hashlib.sha256(name.encode()).hexdigest()[:12]}/workspace:{workspace_nbytes}"
