"""A plan's first result in a fresh process: seconds beside a process that only loads CUDA and the libraries, and where they go.

    python -m tests.benchmarks.first_result [--model NAME ...] [--untuned] [--rounds 5] [--against FOLDER] [--trace FILE]

Models are generated in f16 and tuned; plans lie in the page cache. Cold: our caches and the driver's are empty folders. Warm:
they are those of a process before. ``--against``: a checkout of another commit, in turns with this one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import miniinfer_cli
from sample_models.catalogue import generate
from sample_models.request import Request

_LIBRARIES = """
import time; t = [time.perf_counter()]
import numpy
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt
t.append(time.perf_counter())
d = open_device(0); d.make_current(); t.append(time.perf_counter())
c = Cudnn(d); t.append(time.perf_counter())
l = CublasLt(d); t.append(time.perf_counter())
s = d.create_stream(); c.bind(s.handle); t.append(time.perf_counter())
"""
_RESULT = """
import time; t = [time.perf_counter()]
import numpy, miniinfer_cli
e = miniinfer_cli.load({plan!r}, "cuda:0"); t.append(time.perf_counter())
x = {{b.name: numpy.zeros([d if isinstance(d, int) else 1 for d in b.shape], b.dtype) for b in e.inputs}}
e.program(e.check(x)); t.append(time.perf_counter())
e.run(x); t.append(time.perf_counter())
"""
_TOLD = "\nprint(t[-1] - t[0], *(b - a for a, b in zip(t, t[1:])))"
_NAMES = {"libraries": ("imports", "device", "cuDNN", "cuBLASLt", "handle"), "result": ("opening", "program", "running")}
_TRACED = """
import time; start = time.perf_counter()
import sys
from tests.benchmarks.spans import Recorder
from tests.benchmarks.first_result import FUNCTIONS
with Recorder(FUNCTIONS, start) as recorder:
{code}
print(recorder.text(0.001))
maps = dict.fromkeys(line.split()[-1] for line in open("/proc/self/maps") if ".so" in line and "/" in line)
print("\\n".join(p for p in maps if "nvidia" in p or "cud" in p or "cublas" in p or "libnv" in p))
"""
_CUDA = "miniinfer_cli.backends.cuda."
FUNCTIONS = (
    "ctypes:CDLL.__init__",
    "miniinfer_cli.runtime.plan_files:read_plan",
    "miniinfer_cli.runtime.engine:thaw",
    "miniinfer_cli.runtime.engine:Engine.__init__",
    "miniinfer_cli.runtime.engine:Engine.program",
    "miniinfer_cli.runtime.engine:Engine.run",
    "miniinfer_cli.devices.models:open_model",
    "cuda.pathfinder:load_nvidia_dynamic_lib",
    "cuda.pathfinder:find_nvidia_header_directory",
    f"{_CUDA}driver.presence:driver_fault",
    f"{_CUDA}driver.device:open_device",
    f"{_CUDA}driver.device:load_driver",
    f"{_CUDA}driver.device:read_properties",
    *(
        f"{_CUDA}driver.device:Device.{n}"
        for n in ("__init__", "_retain", "load", "allocate", "allocate_pinned", "create_stream")
    ),
    f"{_CUDA}loading.weights:preload",
    *(f"{_CUDA}loading.preload:{n}" for n in ("PinnedRing.__init__", "PinnedRing.close", "_Preload.run", "_Preload._read")),
    *(f"{_CUDA}models.model:{n}" for n in ("make_program", "stored_kernels", "records_for", "gpu_of")),
    *(f"{_CUDA}models.model:CudaModel.{n}" for n in ("__init__", "use_targets", "compile_ahead", "evaluate", "program_of")),
    f"{_CUDA}loading.loaded_program:_solved",
    f"{_CUDA}loading.loaded_program:LoadedProgram.__init__",
    f"{_CUDA}loading.loaded_program:LoadedProgram._place_constants",
    *(f"{_CUDA}loading.functions:{n}" for n in ("source_digest", "read_stored", "Functions.prepare", "Functions._compiled")),
    f"{_CUDA}driver.module:Module.__init__",
    f"{_CUDA}driver.module:Function.__init__",
    f"{_CUDA}making.ways:lower",
    f"{_CUDA}making.maker:infer_graph",
    f"{_CUDA}making.maker:lay_out_memory",
    f"{_CUDA}choice.deciding:tactics",
    f"{_CUDA}choice.deciding:objection",
    f"{_CUDA}choice.deciding:signature",
    f"{_CUDA}choice.deciding:maker_of",
    f"{_CUDA}choice.deciding:emitted",
    *(f"{_CUDA}loading.libraries:Libraries.{n}" for n in ("prepare", "_networks", "_matrices", "bind", "solved_by")),
    *(
        f"{_CUDA}driver.cudnn:{n}"
        for n in ("load_library", "Cudnn.__init__", "Cudnn._make_handle", "Cudnn.bind", "Cudnn.prepare")
    ),
    *(f"{_CUDA}driver.cudnn:Cudnn.{n}" for n in ("_restore", "_again", "_built", "_new_graph", "_deserialized")),
    *(f"{_CUDA}driver.cublaslt:{n}" for n in ("load_library", "CublasLt.__init__", "CublasLt.candidates", "CublasLt._restore")),
    f"{_CUDA}driver.cudnn_prepared:PreparedGraph.enqueue",
    f"{_CUDA}driver.cublaslt:PreparedMatmul.enqueue",
    f"{_CUDA}driver.stream:Stream.launch",
    f"{_CUDA}driver.stream:Stream.end_capture",
    f"{_CUDA}contexts.context:bind",
    f"{_CUDA}contexts.context:CudaContext.__init__",
    f"{_CUDA}contexts.context:CudaContext.enqueue",
    f"{_CUDA}contexts.context_memory:ContextMemory.grow",
    f"{_CUDA}contexts.running:Runner.run",
    f"{_CUDA}contexts.pending:Pending.result",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["resnet50", "bert_base"])
    parser.add_argument("--untuned", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trace", type=Path, help="a file for the spans of one process of each kind")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    roots = {"here": Path.cwd(), **({"against": options.against} if options.against else {})}
    found: dict[str, dict[str, list[list[float]]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for model in options.model:
            plan = made(model, folder, tuned=not options.untuned)
            found[model] = compared(plan, roots, options.rounds)
            for what, times in found[model].items():
                print(line_of(model, what, times), flush=True)
            if options.out:
                options.out.write_text(json.dumps(found, indent=2) + "\n")
            if options.trace:
                with options.trace.open("a") as file:
                    for kind, code in (("libraries", _LIBRARIES), ("result", _RESULT.format(plan=str(plan)))):
                        print(f"== {model}: {kind}, cold\n{traced(code)}", file=file, flush=True)


def made(model: str, folder: Path, *, tuned: bool) -> Path:
    """The plan of a model; one that lies in the folder is taken as it is."""
    path = folder / f"{model}{'-tuned' if tuned else ''}.plan"
    if not path.exists():
        generated = generate(model, Request("batch", 128, False), dtype="f16", seed=1)
        miniinfer_cli.build(generated, path, tuning={"level": "fast"} if tuned else None)
    return path


def compared(plan: Path, roots: Mapping[str, Path], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of fresh processes, each kind once a round: in all, then of its phases."""
    times: dict[str, list[list[float]]] = {}
    code = _RESULT.format(plan=str(plan))
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as empty:
                times.setdefault("libraries", []).append(fresh(_LIBRARIES, Path.cwd(), Path(empty)))
            for root_name, root in roots.items():
                kept = Path(name) / root_name
                with tempfile.TemporaryDirectory() as empty:
                    times.setdefault(f"cold result, {root_name}", []).append(
                        fresh(_RESULT.format(plan=str(plan)), root, Path(empty))
                    )
                if not kept.exists():
                    fresh(code, root, kept)
                times.setdefault(f"warm result, {root_name}", []).append(fresh(code, root, kept))
    return times


def fresh(code: str, root: Path, caches: Path) -> list[float]:
    """What the code tells, run in a fresh process of the checkout ``root`` with its caches in that folder."""
    return [float(word) for word in _run(code + _TOLD, root, caches).split()]


def traced(code: str) -> str:
    """The spans of the code in a fresh process with empty caches, and the libraries that it ends with."""
    indented = "\n".join("    " + line for line in code.strip().splitlines())
    with tempfile.TemporaryDirectory() as empty:
        return _run(_TRACED.format(code=indented), Path.cwd(), Path(empty))


def _run(code: str, root: Path, caches: Path) -> str:
    # An installed package has its bytecode.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    paths = [str(root), *(p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and Path(p) != Path.cwd())]
    environment |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "XDG_CACHE_HOME": str(caches),
        "CUDA_CACHE_PATH": str(caches / "driver"),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def line_of(model: str, what: str, times: list[list[float]]) -> str:
    """Medians in seconds, the range of the whole, and the medians of the phases."""
    whole, *phases = zip(*times, strict=True)
    names = _NAMES[what.partition(",")[0].rpartition(" ")[2]]
    parts = ", ".join(f"{name} {statistics.median(p):.3f}" for name, p in zip(names, phases, strict=True))
    return f"{model} {what}: {statistics.median(whole):.3f} ({min(whole):.3f} to {max(whole):.3f}): {parts}"


if __name__ == "__main__":
    main()
