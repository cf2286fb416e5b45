"""Programs of others that call ours and read what it leaves: ``make parsers-test``, which wants PyPI's polygraphy-trtexec.

Polygraphy's runner of trtexec, as it was released, is given ``miniinfer-trtexec`` in the place of trtexec: it writes the inputs,
makes the command line, reads the row of latencies and the file of outputs. Fails where these are not the model's.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from polygraphy.logger import G_LOGGER
from polygraphy_trtexec.backend.runner import TrtexecRunner

from tests.parsers import polygraphy

if not hasattr(G_LOGGER, "severity"):  # the runner asks for it, and the releases of Polygraphy that it wants lack it
    type(G_LOGGER).severity = property(lambda logger: logger.module_severity.get())

_SETTINGS = (
    {"trtexec_iterations": 5},
    {"trtexec_iterations": 20, "avg_runs": 5, "mem_pool_size": {0: 1 << 30}, "use_cuda_graph": True, "use_spin_wait": True},
    {"fp16": True, "streams": 2, "dump_profile": True, "separate_profile_run": True, "no_data_transfers": True},
)


def main() -> None:
    """One program after another."""
    trtexec_runner()
    polygraphy.run()
    polygraphy.debug_reduce()


def trtexec_runner() -> None:
    """Every setting, one after another."""
    trtexec = shutil.which("miniinfer-trtexec") or str(Path(sys.executable).parent / "miniinfer-trtexec")
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    w = np.linspace(-0.5, 1.5, 12, dtype=np.float32).reshape(4, 3)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(w, "w")],
    )
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "m.onnx")
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
        for setting in _SETTINGS:
            with TrtexecRunner(model, "onnx", trtexec_path=trtexec, duration=0, trtexec_warmup=10, **setting) as runner:
                outputs = runner.infer({"x": x}, check_inputs=False)
                times = runner.last_inference_time_stats()
            np.testing.assert_allclose(outputs["y"], np.maximum(x @ w, 0), rtol=1e-2 if "fp16" in setting else 1e-5, atol=1e-3)
            assert list(times) == ["min", "max", "mean", "median", *(f"percentile({p}%)" for p in (90, 95, 99))]
            assert 0 < times["min"] <= times["median"] <= times["max"]
            print(f"ok: {setting}: median {times['median']} ms")


if __name__ == "__main__":
    main()
