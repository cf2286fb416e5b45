"""The ONNX suite on our own kernels, launched one by one on one device: what compute-sanitizer is to look at.

    compute-sanitizer --tool memcheck --report-api-errors no python -m tests.gpu.sanitize [PATTERN] [SECONDS]

PATTERN chooses cases by name. Every case is compared with its expected outputs. Cases are taken from all over the suite, so
that a run that is cut short has seen some of everything. API errors are left out: the bindings look for functions that an
older driver lacks.
"""

import re
import sys
import time
from typing import Any
from unittest import mock

import miniinfer_cli
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.executing.context import ContextOptions
from miniinfer_cli.backends.cuda.executing.functions import Functions
from miniinfer_cli.backends.cuda.executing.libraries import NoLibraries
from miniinfer_cli.backends.cuda.executing.model import CudaModel
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import Graph
from miniinfer_cli.runtime import engine
from miniinfer_cli.runtime.cache_folder import default_cache
from tests.conformance.cases import all_cases, assert_equal_outputs
from tests.conformance.test_onnx_backend import FAILING, WITHOUT_VALUES

_STRIDE = 7


class Kept:
    """Something that outlives the models that use it."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def close(self) -> None:
        """Not now."""


def main(pattern: str = "", seconds: str = "inf") -> int:
    """Runs the cases; 1 when an output is wrong."""
    folder = default_cache()
    device = open_device(0)
    functions = Functions(device, KernelCache(None if folder is None else folder / "kernels"))

    def load_model(graph: Graph, name: str, options: DeviceOptions, recorded: Any) -> CudaModel:
        options_ = ContextOptions(cuda_graph=False)
        return CudaModel(graph, Kept(device), Kept(functions), NoLibraries(), tf32=False, options=options_)

    named = re.compile(pattern)
    cases = [c for c in all_cases() if c.kind == "node" and named.search(c.name) and c.name not in FAILING]
    until = time.monotonic() + float(seconds)
    done, wrong = 0, []
    for case in (c for start in range(_STRIDE) for c in cases[start::_STRIDE]):
        if time.monotonic() > until:
            break
        with mock.patch.object(engine, "load_model", load_model):
            opened = engine.Engine(miniinfer_cli.build(case.model), "cuda:0")
        with opened:
            try:
                for inputs, expected in case.runs():
                    outputs = list(opened.run(inputs).values())
                    assert_equal_outputs(expected, outputs, case.rtol, case.atol, values=case.name not in WITHOUT_VALUES)
            except AssertionError as error:
                wrong.append(case.name)
                print(f"{case.name}: {str(error)[:300]}")
        done += 1
    print(f"{done} of {len(cases)} cases, {len(wrong)} wrong")
    functions.close()
    device.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
