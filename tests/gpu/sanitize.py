"""Our own kernels under compute-sanitizer: the ONNX suite and small networks, launched one by one, several processes at once.

    python -m tests.gpu.sanitize --tool memcheck|racecheck|initcheck|synccheck [--match PATTERN] [--seconds S] [--workers N]
        [--case-seconds S]

Every case is compared with its expected outputs. Cases are taken from all over the suite, so that a run that is cut short has
seen some of everything: no case is started after --seconds (an hour), and a worker that goes on for more than --case-seconds (ten
minutes) after that is ended, and its case named. Without --tool the cases run in this process, with nothing watching. API errors
are left out: the bindings look for functions that an older driver lacks. What a tool cannot judge is left out by
``sanitizer_report.py``, and counted by its reason.
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli.backends.cuda.contexts.context import ContextOptions
from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import DType, Graph
from miniinfer_cli.runtime import engine
from miniinfer_cli.runtime.cache_folder import default_cache
from miniinfer_cli.runtime.random_inputs import random_inputs
from tests.conformance.cases import Case, all_cases, assert_equal_outputs
from tests.conformance.test_onnx_backend import FAILING, WITHOUT_VALUES
from tests.emulation.libraries import NoLibraries
from tests.gpu.driver.operands import TOLERANCES, relative_error
from tests.gpu.plans import sizes_of, small
from tests.gpu.sanitizer_report import TOOLS, read_report
from tests.gpu.watched_processes import run_watched

_STRIDE = 7
_BEGINS = "begins "  # a watched worker says so of each case
NETWORKS = ("simple_cnn", "resnet50", "mobilenet_v2", "efficientnet_b0", "vit_b16", "bert_base", "gpt2", "lstm_tagger")
# A case by name; called with the function that opens a plan.
Check = Callable[[Callable[[Any], engine.Engine]], None]


class Kept:
    """Something that outlives the models that use it."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def close(self) -> None:
        """Not now."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", choices=TOOLS)
    parser.add_argument("--match", default="", help="choose cases by a regular expression found in their names")
    parser.add_argument("--seconds", type=float, default=3600, help="start no case after so many seconds")
    parser.add_argument("--case-seconds", type=float, default=600, help="end a worker so many seconds after that")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--part", default="0/1", help="of the cases, every n-th from the i-th: i/n")
    options = parser.parse_args(arguments)
    if options.tool:
        return watched(options)
    part, parts = map(int, options.part.split("/"))
    named = re.compile(options.match)
    return run([(name, check) for name, check in checks() if named.search(name)][part::parts], options.seconds)


def watched(options: argparse.Namespace) -> int:
    """Workers under the tool, each with its part of the cases; what they print, and 1 when the tool or a case complains."""
    # All complaints are printed, so that those that are excused hide no other.
    tool = [
        "compute-sanitizer",
        "--tool",
        options.tool,
        "--report-api-errors",
        "no",
        "--error-exitcode",
        "3",
        "--print-limit",
        "0",
    ]
    case = [sys.executable, "-m", "tests.gpu.sanitize", "--match", options.match, "--seconds", str(options.seconds)]
    limit = options.seconds + options.case_seconds
    workers = run_watched([[*tool, *case, "--part", f"{i}/{options.workers}"] for i in range(options.workers)], limit)
    failed, excused = 0, Counter[str]()
    for worker in workers:
        lines = worker.text.splitlines()
        report = read_report(options.tool, "\n".join(line for line in lines if not line.startswith(_BEGINS)))
        print(report.text, flush=True)
        if worker.code is None:
            last = next((line.removeprefix(_BEGINS) for line in reversed(lines) if line.startswith(_BEGINS)), "its start")
            print(f"{options.tool}: a worker was ended after {limit:.0f} s, in {last}")
        failed += worker.code is None or (worker.code != 0 and not report.clean)
        excused += report.excused
    for reason, count in excused.items():
        print(f"{options.tool}: {count} complaints left out: {reason}")
    print(f"{options.tool}: {failed} of {options.workers} workers with complaints")
    return 1 if failed else 0


def checks() -> Iterator[tuple[str, Check]]:
    """Networks first, which are few; the suite's cases in strides."""
    for name in NETWORKS:
        for dtype in ("f32", "f16", "bf16"):
            yield f"{name}_{dtype}", partial(check_network, name, DType(dtype))
    cases = [c for c in all_cases() if c.kind == "node" and c.name not in FAILING]
    for start in range(_STRIDE):
        for case in cases[start::_STRIDE]:
            yield case.name, partial(check_case, case)


def check_case(case: Case, load: Callable[[Any], engine.Engine]) -> None:
    with load(miniinfer_cli.build(case.model)) as opened:
        for inputs, expected in case.runs():
            outputs = list(opened.run(inputs).values())
            assert_equal_outputs(expected, outputs, case.rtol, case.atol, values=case.name not in WITHOUT_VALUES)


def check_network(name: str, dtype: DType, load: Callable[[Any], engine.Engine]) -> None:
    plan = small(name, dtype.value)
    with load(plan) as opened, miniinfer_cli.load(plan, "cpu") as cpu:
        shapes = {b.name: sizes_of(b, 3) for b in cpu.inputs}
        feeds = random_inputs(cpu.inputs, cpu.ranges, shapes, {}, 1)
        got = opened.run(feeds)
        for output, want in cpu.run(feeds).items():
            error = relative_error(got[output], want.astype(np.float64))
            assert error <= TOLERANCES[dtype, Compute.F32], f"{output}: {error:.1e}"


def run(chosen: list[tuple[str, Check]], seconds: float) -> int:
    """Runs the cases on one device, with one store of compiled kernels; 1 when an output is wrong."""
    folder = default_cache()
    device = open_device(0)
    functions = Functions(device, KernelCache(None if folder is None else folder / "kernels"))

    def load_model(graph: Graph, name: str, options: DeviceOptions, recorded: Any, beside: Any = None) -> CudaModel:
        options_ = ContextOptions(cuda_graph=False)
        return CudaModel(graph, Kept(device), Kept(functions), NoLibraries(), tf32=False, options=options_)

    def load(plan: Any) -> engine.Engine:
        return engine.Engine(plan, "cuda:0", load=load_model)

    until = time.monotonic() + seconds
    done, wrong = 0, 0
    for name, check in chosen:
        if time.monotonic() > until:
            break
        print(f"{_BEGINS}{name}", flush=True)
        try:
            check(load)
        except (AssertionError, MiniinferError) as error:
            wrong += 1
            print(f"{name}: {str(error)[:300]}")
        done += 1
    print(f"{done} of {len(chosen)} cases, {wrong} wrong")
    functions.close()
    device.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
