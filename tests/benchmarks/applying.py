"""Advice applied by public means: commands with other flags, and edits of the ONNX model."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from miniinfer_cli.cli.main import main


class CannotApply(Exception):
    """The advice is of a kind that is not followed here."""


@dataclass(frozen=True)
class Subject:
    """A model file, flags of its run and build, and what is expected of its diagnosis where that is known.

    ``advice``: is to be tried; ``blocked``: that fusions are is to be told.
    """

    name: str
    path: Path
    run: Sequence[str] = ()
    build: Sequence[str] = ()
    kind: str | None = None
    advice: str | None = None
    blocked: bool = False


@dataclass(frozen=True)
class Commands:
    """The command line, in a process for each command or in this one. What fails raises RuntimeError with its last line."""

    in_one_process: bool

    def build(self, model: Path, flags: Sequence[Any] = (), name: str | None = None) -> Path:
        """The plan of a model."""
        plan = model.with_suffix(".plan") if name is None else model.with_name(name)
        self._run("build", model, "-o", plan, "-q", *flags)
        return plan

    def wall_ms(self, plan: Path, flags: Sequence[Any], seconds: float) -> float:
        """Milliseconds of wall time over the inferences in it."""
        document = self.json("run", plan, *flags, "--duration", seconds, "--iterations", 3, "--json", "-")
        return 1e3 / float(document["throughput_qps"])

    def json(self, *arguments: Any) -> dict[str, Any]:
        """The document that a command writes to standard output."""
        document: dict[str, Any] = json.loads(self._run(*arguments))
        return document

    def _run(self, *arguments: Any) -> str:
        words = list(map(str, arguments))
        if not self.in_one_process:
            done = subprocess.run([sys.executable, "-m", "miniinfer_cli", *words], capture_output=True, text=True)
            return _checked(done.returncode, done.stdout, done.stderr)
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(words)
            except SystemExit as ended:
                code = int(ended.code or 0)
        return _checked(code, out.getvalue(), err.getvalue())


def _checked(code: int, out: str, err: str) -> str:
    if code:
        told = [line for line in err.splitlines() if line.strip() and not line.startswith("  hint")]
        raise RuntimeError(told[-1] if told else f"exit code {code}")
    return out


def applied(
    subject: Subject, advice: Mapping[str, Any], plan: Path, run: Sequence[Any], commands: Commands
) -> tuple[Path, Sequence[Any], float]:
    """The plan and the flags of run with the advice, and how many times the samples an inference then has.

    Raises CannotApply, and RuntimeError where a build fails.
    """
    flags = advice["flags"]
    left_out = {name for name, value in flags.items() if value is False}
    more = [text for name, value in flags.items() if value is not False for text in ((name,) if value is True else (name, value))]
    if advice["command"] == "run":
        return plan, [*(f for f in run if f not in left_out), *more], int(flags.get("--batch", 1))
    name = f"{subject.path.stem}.edited"
    if advice["name"] == "fixed sizes":
        document = commands.json("run", plan, *run, "--json", "-", "--duration", 0, "--iterations", 1)
        more = [t for i in document["inputs"] for t in ("--shapes", f"{i['name']}:{'x'.join(map(str, i['shape']))}")]
    if advice["command"] == "build":
        kept = [] if "--opt-level" in flags else list(_without(subject.build, left_out))
        return commands.build(subject.path, [*kept, *more], f"{name}.plan"), run, 1
    edited = subject.path.with_name(f"{name}.onnx")
    onnx.save(edit(onnx.load(subject.path), advice), edited)
    return commands.build(edited, subject.build), run, 1


def _without(flags: Sequence[str], left_out: set[str]) -> Sequence[str]:
    """``flags`` but those that are left out, with their values."""
    kept: list[str] = []
    dropped = False
    for flag in flags:
        dropped = flag in left_out or (dropped and not flag.startswith("--"))
        kept += [] if dropped else [flag]
    return kept


def edit(model: onnx.ModelProto, advice: Mapping[str, Any]) -> onnx.ModelProto:
    """The model without the outputs that the advice names, or with inputs of uint8. Raises CannotApply for any other advice."""
    graph = model.graph
    if advice["name"] == "without inner outputs":
        kept = [o for o in graph.output if o.name not in advice["names"]]
        del graph.output[:]
        graph.output.extend(kept)
        return model
    if advice["name"] != "uint8 input":
        raise CannotApply("this advice is not followed here")
    for value in (i for i in graph.input if i.name in advice["names"]):
        code, name = value.type.tensor_type.elem_type, value.name
        value.type.tensor_type.elem_type = TensorProto.UINT8
        for node in graph.node:
            node.input[:] = [f"{name}_converted" if i == name else i for i in node.input]
        graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_converted"], to=code))
    return model
