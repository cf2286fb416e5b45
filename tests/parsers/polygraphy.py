"""Polygraphy's own commands with miniinfer in them: ``run --miniinfer``, and ``debug reduce`` checked by ``miniinfer build``."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCRIPTS = Path(sys.executable).parent


def _polygraphy(*words: str, folder: str) -> int:
    line = [str(SCRIPTS / "polygraphy"), *words]
    environment = {"PATH": f"{SCRIPTS}:/usr/bin:/bin", "HOME": folder}
    ended = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    if "Traceback" in ended.stderr or "Failed to load plugin" in ended.stdout + ended.stderr:
        raise SystemExit(ended.stdout + ended.stderr)
    return ended.returncode


def _chain(path: Path, *ops: str) -> None:
    """y = ops applied to x @ w, one after another; ``Broken`` is an operation that nobody knows."""
    w = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["v0"], name="product")]
    for number, op in enumerate(ops):
        out = "y" if number == len(ops) - 1 else f"v{number + 1}"
        domain = "example" if op == "Broken" else ""
        nodes.append(helper.make_node(op, [f"v{number}"], [out], name=f"node{number}", domain=domain))
    values = [helper.make_tensor_value_info(f"v{n}", TensorProto.FLOAT, [2, 3]) for n in range(len(ops))]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(w, "w")],
        value_info=values,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def run() -> None:
    """Outputs agree within a tolerance that f32 keeps, and do not within one that bf16 does not."""
    with tempfile.TemporaryDirectory() as folder:
        _chain(Path(folder) / "m.onnx", "Sigmoid", "Exp")
        words = ("run", "m.onnx", "--onnxrt", "--miniinfer", "--miniinfer-device", "cpu", "--atol", "1e-4")
        assert _polygraphy(*words, folder=folder) == 0
        assert _polygraphy(*words, "--onnx-outputs", "mark", "all", folder=folder) == 0
        assert _polygraphy(*words, "--rtol", "1e-6", "--miniinfer-precision", "bf16", folder=folder) != 0
    print("ok: polygraphy run --onnxrt --miniinfer")


def debug_reduce() -> None:
    """A model is reduced to the one node that cannot be built."""
    with tempfile.TemporaryDirectory() as folder:
        _chain(Path(folder) / "m.onnx", "Relu", "Sigmoid", "Broken", "Exp", "Tanh")
        check = ("--check", "miniinfer", "build", "polygraphy_debug.onnx", "--verify")
        words = ("debug", "reduce", "m.onnx", "-o", "reduced.onnx", "--mode=linear", "--no-shape-inference")
        assert _polygraphy(*words, *check, folder=folder) == 0
        left = [node.op_type for node in onnx.load(Path(folder) / "reduced.onnx").graph.node]
        assert left == ["Broken"], left
    print("ok: polygraphy debug reduce --check miniinfer build")
