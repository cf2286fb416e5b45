"""Advice applied: which flags a command then has, and what becomes of the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.benchmarks.applying import CannotApply, Commands, Subject, applied, edit
from tests.diagnosis.models import inner_outputs
from tests.diagnosis.other_models import written

PLAN = Path("m.plan")


@dataclass(frozen=True)
class Noted(Commands):
    """Commands that are written down, not run."""

    in_one_process: bool = True
    built: list[tuple[Any, ...]] = field(default_factory=list)

    def build(self, model: Path, flags: Sequence[Any] = (), name: str | None = None) -> Path:
        self.built.append((model.name, *flags))
        return Path(name or "built.plan")

    def json(self, *arguments: Any) -> dict[str, Any]:
        return {"inputs": [{"name": "x", "shape": [2, 3]}]}


def advice(name: str, command: str | None = None, names=(), **flags):
    return {
        "name": name,
        "command": command,
        "names": list(names),
        "flags": {f"--{k.replace('_', '-')}": v for k, v in flags.items()},
    }


def test_flags_of_a_run_are_added_and_left_out():
    subject, commands = Subject("m", Path("m.onnx")), Noted()
    run = ("--device", "cpu", "--no-cuda-graph")
    assert applied(subject, advice("batch 8", "run", batch="8"), PLAN, run, commands) == (PLAN, [*run, "--batch", "8"], 8)
    assert applied(subject, advice("CUDA graph", "run", no_cuda_graph=False), PLAN, run, commands) == (PLAN, [*run[:2]], 1)
    assert not commands.built


@pytest.mark.parametrize(
    ("built", "taken", "flags"),
    [
        (("--opt-level", "1"), advice("all passes", "build", opt_level="2"), ("--opt-level", "2")),
        (("--disable-pass", "fuse_matmul", "--no-tf32"), advice("all passes", "build", disable_pass=False), ("--no-tf32",)),
        (("--no-tf32",), advice("TF32", "build", no_tf32=False), ()),
        (("--no-tf32",), advice("fixed sizes", "build"), ("--no-tf32", "--shapes", "x:2x3")),
        ((), advice("f16", "build", fp16=True), ("--fp16",)),
    ],
)
def test_flags_of_a_build_take_the_place_of_others(built, taken, flags):
    commands = Noted()
    applied(Subject("m", Path("m.onnx"), build=built), taken, PLAN, (), commands)
    assert commands.built == [("m.onnx", *flags)]


def test_models_are_edited():
    kept = edit(inner_outputs(4, 8, 2), advice("without inner outputs", names=["h0"]))
    assert [o.name for o in kept.graph.output] == ["r1", "h1"]
    bytes_in = edit(written("[2,4] x", "y", "y = Relu(x)"), advice("uint8 input", names=["x"]))
    assert [n.op_type for n in bytes_in.graph.node] == ["Cast", "Relu"]
    assert bytes_in.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    with pytest.raises(CannotApply):
        edit(kept, advice("pinned input"))
