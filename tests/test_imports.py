"""Who may import whom: the order of the packages, the one place of each library, and what running a plan never loads."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from engine_format import write_plan
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.planning.freeze import freeze

ROOT = Path(__file__).parents[1]

BASE = {"engine_format", "errors", "ir", "limits", "ops", "pipes", "shortage", "visible", "wording"}
# Each part of the code, and the parts that it may import besides itself.
PARTS: dict[str, set[str]] = {
    "engine_format": set(),
    "version": set(),
    "visible": set(),
    "wording": set(),
    "errors": {"engine_format", "visible", "wording"},
    "limits": {"errors", "wording"},
    "fields": {"errors"},
    "pipes": set(),
    "shortage": set(),
    "trusted_files": set(),
    "cache_files": {"engine_format", "trusted_files"},
    "host_memory": {"errors"},
    "ir": {"engine_format", "errors", "limits", "visible", "wording"},
    "ops": {"engine_format", "errors", "ir", "limits", "shortage", "visible", "wording"},
    "onnx_import": BASE,
    "passes": BASE,
    "planning": {*BASE, "version"},
    "backends": {*BASE, "planning", "host_memory", "cache_files", "trusted_files"},
    "runtime": {*BASE, "planning", "backends", "host_memory", "trusted_files"},
    "devices": {*BASE, "backends", "cache_files", "planning", "runtime"},
    "serving": {*BASE, "backends", "devices", "runtime"},
    "server": {*BASE, "backends", "devices", "runtime", "serving", "version"},
    "measuring": {"backends", "errors", "runtime", "serving", "shortage"},
    "comparison": {
        *("backends", "devices", "engine_format", "errors", "ir", "measuring", "planning", "plugins", "shortage", "verification"),
        *("fields", "wording"),
    },
    "diagnosis": {*BASE, "backends", "measuring", "passes"},
    "report": {"errors", "fields", "visible"},
    "plugins": {"errors", "ops", "shortage", "wording"},
    "builder": {*BASE, "backends", "devices", "onnx_import", "passes", "planning", "plugins", "runtime", "version"},
    "onnxruntime_process": set(),
    "integrations": {"backends", "devices", "engine_format", "errors", "ir", "runtime", "server", "serving", "wording"},
    "polygraphy_plugin": {"builder", "devices", "runtime"},
    "torch_backend": {"backends", "builder", "devices", "errors", "ir", "runtime", "serving"},
    "ort_shim": {"ort", "version"},
    "ort": {
        *(
            "backends",
            "builder",
            "cache_files",
            "devices",
            "engine_format",
            "errors",
            "ir",
            "onnx_import",
            "plugins",
            "runtime",
            "version",
        ),
    },
    "verification": {
        *BASE,
        "backends",
        "builder",
        "devices",
        "onnx_import",
        "onnxruntime_process",
        "passes",
        "planning",
        "runtime",
    },
    "cli": {
        *(*BASE, "__init__", "backends", "builder", "comparison", "devices", "diagnosis", "measuring", "onnx_import"),
        *(
            "integrations",
            "passes",
            "planning",
            "plugins",
            "report",
            "runtime",
            "server",
            "serving",
            "verification",
            "version",
            "ort_shim",
        ),
    },
    "__init__": {"builder", "devices", "engine_format", "runtime", "serving", "version"},
    "__main__": {"cli"},
}
SHARED_BY_BACKENDS = (
    *(["ceilings"], ["choosing"], ["dlpack"], ["interface"], ["kept_programs"], ["lowering_registry"], ["node_estimates"]),
    ["reference"],
)
# Who may name a backend: others know what every backend is asked, and the modules above, which the backends share.
NAME_BACKENDS = {"backends", "builder", "devices"}
# The rooms of the CUDA backend, and of its tactics: each imports only from those in front of it.
CUDA_ROOMS = (
    *("contract", "launching", "codegen"),
    *(f"tactics.{family}" for family in ("sorting", "reduction", "spatial", "pointwise", "movement", "normalization")),
    *(f"tactics.{family}" for family in ("products", "convolution", "attention", "recurrent")),
    *("joins", "choice", "scheduling", "making", "arrays", "driver", "loading", "hosting", "contexts", "models", "tuning"),
)
# Each library, and the modules (or packages of them) that may import it.
LIBRARIES = {
    "numpy": ("miniinfer_cli",),
    "msgpack": ("engine_format",),
    "xxhash": ("engine_format",),
    "onnx": (
        "miniinfer_cli.onnx_import",
        "miniinfer_cli.ops.adapted",
        "miniinfer_cli.ops.guarded_references",
        "miniinfer_cli.ops.learned_references",
        "miniinfer_cli.ops.mended_references",
        "miniinfer_cli.ops.onnx_reference",
        "miniinfer_cli.ops.tree_references",
    ),
    "google": ("miniinfer_cli.onnx_import", "miniinfer_cli.ops.adapted"),  # protobuf, onnx's own dependency
    "PIL": ("miniinfer_cli.ops.guarded_references",),
    "re2": ("miniinfer_cli.ops.guarded_references",),
    "ml_dtypes": ("miniinfer_cli.ir.arrays",),
    "cuda": ("miniinfer_cli.backends.cuda.driver",),
    "cudnn": ("miniinfer_cli.backends.cuda.driver",),
    "nvtx": ("miniinfer_cli.backends.cuda.driver",),
    "click": ("miniinfer_cli.cli",),
    "rich": ("miniinfer_cli.cli",),
    "threadpoolctl": ("miniinfer_cli.backends.cpu.blas",),
    "onnxruntime": ("miniinfer_cli.onnxruntime_process",),
    "polygraphy": ("miniinfer_cli.polygraphy_plugin",),
    "torch": ("miniinfer_cli.torch_backend",),
    "ray": ("miniinfer_cli.integrations.ray", "miniinfer_cli.integrations.ray_resources"),
    "starlette": ("miniinfer_cli.integrations.ray_replica",),
    "litserve": ("miniinfer_cli.integrations.litserve",),
    "fastapi": ("miniinfer_cli.integrations.litserve",),
    "kserve": ("miniinfer_cli.integrations.kserve",),
    "triton_python_backend_utils": ("miniinfer_cli.integrations.triton_model",),
    "uvicorn": ("miniinfer_cli.server.http",),
    "uvloop": ("miniinfer_cli.server.lifecycle",),
    "prometheus_client": ("miniinfer_cli.server.metrics",),
    "opentelemetry": ("miniinfer_cli.server.tracing",),
}
# Imports inside functions: they cost time that most runs should not pay.
LATE = {
    ("miniinfer_cli.cli.baseline", "miniinfer_cli.cli.baseline_times"),
    ("miniinfer_cli.cli.measuring", "miniinfer_cli.devices.placement"),
    ("miniinfer_cli", "miniinfer_cli.builder.building"),
    ("miniinfer_cli", "miniinfer_cli.devices.head_start"),
    ("miniinfer_cli", "miniinfer_cli.devices.opening"),
    ("miniinfer_cli", "miniinfer_cli.builder.targets"),
    ("miniinfer_cli", "miniinfer_cli.builder.tuning"),
    ("miniinfer_cli", "miniinfer_cli.serving.batcher"),
    ("miniinfer_cli.backends.cuda.driver.bindings", "cuda"),
    ("miniinfer_cli.backends.cuda.driver.cudnn", "cudnn"),
    ("miniinfer_cli.backends.cuda.driver.libraries", "cuda"),
    ("miniinfer_cli.backends.cuda.driver.library_loading", "cuda"),
    ("miniinfer_cli.backends.cuda.driver.nvtx", "nvtx"),
    ("miniinfer_cli.backends.cuda.loading.libraries", "miniinfer_cli.backends.cuda.driver.cublaslt"),
    ("miniinfer_cli.backends.cuda.loading.libraries", "miniinfer_cli.backends.cuda.driver.cudnn"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.contexts.context"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.driver.device"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.driver.kernel_cache"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.driver.library_loading"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.driver.nvtx"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.driver.tactic_cache"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.loading.functions"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.loading.libraries"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.models.model"),
    ("miniinfer_cli.backends.cuda.models.opening", "miniinfer_cli.backends.cuda.choice.stored"),
    ("miniinfer_cli.backends.cuda.driver.libraries", "importlib"),
    ("miniinfer_cli.cli.feeds", "miniinfer_cli.onnx_import.tensor_file"),
    ("miniinfer_cli.cli.inspect", "miniinfer_cli.onnx_import"),
    ("miniinfer_cli.cli.main", "miniinfer_cli.shortage"),
    ("miniinfer_cli.cli.main", "miniinfer_cli.cli.invocation"),
    ("miniinfer_cli.cli.progress", "rich"),
    ("miniinfer_cli.cli.invocation", "miniinfer_cli.plugins"),
    ("miniinfer_cli.cli.report", "rich"),
    ("miniinfer_cli.cli.serve", "miniinfer_cli.server.hosting"),
    ("miniinfer_cli.cli.sources", "miniinfer_cli.onnx_import.data_files"),
    ("miniinfer_cli.cli.trtexec.command", "miniinfer_cli.plugins"),
    ("miniinfer_cli.devices.facts", "miniinfer_cli.backends.cuda.driver.device"),
    ("miniinfer_cli.devices.facts", "miniinfer_cli.backends.cuda.driver.properties"),
    ("miniinfer_cli.errors", "difflib"),
    ("miniinfer_cli.ir.arrays", "ml_dtypes"),
    ("miniinfer_cli.onnxruntime_process", "onnxruntime"),
    ("miniinfer_cli.devices.gpu_memory", "miniinfer_cli.backends.cuda.driver.device"),
    ("miniinfer_cli.devices.registering", "miniinfer_cli.backends.cuda.driver.device"),
    ("miniinfer_cli.ort.values", "miniinfer_cli.devices.gpu_memory"),
    ("miniinfer_cli.ort.plans", "miniinfer_cli.builder.building"),
    ("miniinfer_cli.ort.plans", "miniinfer_cli.builder.options"),
    ("miniinfer_cli.ort.plans", "miniinfer_cli.onnx_import.declared"),
    ("miniinfer_cli.ort.plans", "miniinfer_cli.plugins"),
    ("miniinfer_cli.integrations.ray", "ray"),
    ("miniinfer_cli.integrations.ray", "miniinfer_cli.integrations.ray_replica"),
    ("miniinfer_cli.ort_shim.site.sitecustomize", "miniinfer_cli.ort.lacking"),
    ("miniinfer_cli.ort_shim.site.sitecustomize", "miniinfer_cli.version"),
    ("miniinfer_cli.ops.adapted", "google"),
    ("miniinfer_cli.ops.adapted", "onnx"),
    ("miniinfer_cli.ops.guarded_references", "PIL"),
    ("miniinfer_cli.ops.guarded_references", "re2"),
    ("miniinfer_cli.ops.onnx_reference", "miniinfer_cli.ops.guarded_references"),
    ("miniinfer_cli.ops.onnx_reference", "miniinfer_cli.ops.mended_references"),
    ("miniinfer_cli.ops.onnx_reference", "onnx"),
    ("miniinfer_cli.runtime.context", "asyncio"),
    ("miniinfer_cli.devices.head_start", "miniinfer_cli.backends.cuda.driver.head_start"),
    ("miniinfer_cli.devices.models", "miniinfer_cli.backends.cpu.device"),
    ("miniinfer_cli.devices.models", "miniinfer_cli.backends.cpu.thread_count"),
    ("miniinfer_cli.devices.ceilings", "miniinfer_cli.backends.cpu.ceilings"),
    ("miniinfer_cli.devices.ceilings", "miniinfer_cli.backends.cuda.models.ceilings"),
    ("miniinfer_cli.devices.inventory", "miniinfer_cli.backends.cuda.driver.device"),
    ("miniinfer_cli.runtime.watching", "concurrent"),
    ("miniinfer_cli.server.lifecycle", "uvloop"),
    ("miniinfer_cli.server.tracing", "opentelemetry"),
    ("miniinfer_cli.serving.request", "asyncio"),
    ("miniinfer_cli.serving.request", "concurrent"),
    ("miniinfer_cli.serving.request", "logging"),
}
# These may only be imported late.
ALWAYS_LATE = {"cuda", "cudnn", "ml_dtypes", "nvtx", "onnxruntime", "rich"}
OURS = ("engine_format", "miniinfer_cli")


@dataclass(frozen=True)
class Import:
    """``module`` imports ``name``; ``late``: inside a function; ``for_types``: only for the type checker."""

    module: str
    name: str
    late: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module} imports {self.name}{' late' if self.late else ''}"


def read_imports(module: str, source: str) -> Iterator[Import]:
    def visit(node: ast.AST, late: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(module, a.name, late, for_types) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                parent = "." * child.level + (child.module or "")
                # What is imported from one of our packages may be a module of it.
                names = [f"{parent}.{a.name}" for a in child.names] if is_ours(parent) else []
                found = [n for n in names if n in MODULES]
                yield from (Import(module, n, late, for_types) for n in found or [parent])
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from visit(child, late or inside, for_types or typing)

    yield from visit(ast.parse(source), False, False)


def find_modules() -> dict[str, Path]:
    files = (p for package in OURS for p in (ROOT / package).rglob("*.py"))
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}


MODULES = find_modules()


def is_ours(name: str) -> bool:
    return name.split(".")[0] in OURS


def part_of(module: str) -> str:
    first, *rest = module.split(".")
    return first if first == "engine_format" else rest[0] if rest else "__init__"


def is_late(found: Import) -> bool:
    package = found.name if is_ours(found.name) else found.name.split(".")[0]
    return (found.module, package) in LATE


def faults_of(imports: list[Import]) -> list[str]:
    """What the tables do not allow."""
    faults = []
    for found in imports:
        top = found.name.split(".")[0]
        if is_ours(found.name):
            mine, other = part_of(found.module), part_of(found.name)
            allowed = mine == other or other in PARTS[mine]
            backend = found.name.split(".")[2:3] if other == "backends" else []
            if mine not in NAME_BACKENDS and backend not in (*SHARED_BY_BACKENDS, []):
                allowed = False
            siblings = [m.split(".")[2:3] for m in (found.module, found.name)] if mine == other == "backends" else []
            if siblings and siblings[1] not in (siblings[0], *SHARED_BY_BACKENDS, []):
                allowed = False
        else:
            places = LIBRARIES.get(top, ("",) if top in sys.stdlib_module_names else ())
            allowed = any(found.module == p or found.module.startswith(f"{p}.") or not p for p in places)
            if top in ALWAYS_LATE and not found.late and part_of(found.module) != "backends":
                allowed = False
        if found.late and not found.for_types and not is_late(found):
            allowed = False
        if not allowed:
            faults.append(str(found))
    return faults


@functools.cache
def all_imports() -> list[Import]:
    return [i for module, path in MODULES.items() for i in read_imports(module, path.read_text())]


def test_every_part_is_in_the_table():
    assert {part_of(m) for m in MODULES} == set(PARTS)


def test_imports_go_down_and_libraries_have_one_place():
    assert faults_of(all_imports()) == []


def room_of(module: str) -> str:
    """The room of the CUDA backend that a module stands in; "" for others."""
    first, *rest = [*module.removeprefix("miniinfer_cli.backends.cuda.").split("."), ""]
    if not module.startswith("miniinfer_cli.backends.cuda."):
        return ""
    return f"{first}.{rest[0]}" if first == "tactics" and rest[0] else first


def test_rooms_of_the_cuda_backend_import_those_in_front():
    places = {room: number for number, room in enumerate(CUDA_ROOMS)}
    rooms = {room_of(m) for m in MODULES} - {"", "tactics"}
    assert rooms == set(CUDA_ROOMS)
    moves = [(i, room_of(i.module), room_of(i.name)) for i in all_imports() if not i.for_types]
    back = [str(i) for i, mine, other in moves if mine and other and mine != other and places[other] > places[mine]]
    assert back == []


def test_late_imports_in_the_table_exist():
    found = {(i.module, i.name if is_ours(i.name) else i.name.split(".")[0]) for i in all_imports() if i.late}
    assert found == LATE


def test_modules_do_not_import_each_other_in_a_circle():
    uses: dict[str, set[str]] = {m: set() for m in MODULES}
    for found in all_imports():
        if found.name in MODULES and not found.late and not found.for_types and found.name != found.module:
            uses[found.module].add(found.name)
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine_format.reader", "import numpy"),
        ("engine_format.reader", "from miniinfer_cli.errors import ModelError"),
        ("miniinfer_cli.ir.graph", "from miniinfer_cli.ops import lookup"),
        ("miniinfer_cli.ir.graph", "from miniinfer_cli import ops"),
        ("miniinfer_cli.ir.graph", "if TYPE_CHECKING:\n    from miniinfer_cli.ops import OpDef"),
        ("miniinfer_cli.passes.driver", "import miniinfer_cli.planning.memory"),
        ("miniinfer_cli.planning.thaw", "from miniinfer_cli.passes import pipeline"),
        ("miniinfer_cli.planning.thaw", "from . import freeze"),
        ("miniinfer_cli.runtime.engine", "from miniinfer_cli.onnx_import import import_model"),
        ("miniinfer_cli.runtime.engine", "from miniinfer_cli.backends.cuda.models import opening"),
        ("miniinfer_cli.runtime.engine", "from miniinfer_cli.backends import cpu"),
        ("miniinfer_cli.runtime.engine", "from miniinfer_cli.devices.models import load_model"),
        ("miniinfer_cli.measuring.benchmark", "from miniinfer_cli.backends.cpu.device import CpuModel"),
        ("miniinfer_cli.cli.run", "from miniinfer_cli.backends.cuda.driver import device"),
        ("miniinfer_cli.backends.cpu.program", "from miniinfer_cli.backends.cuda import driver"),
        ("miniinfer_cli.backends.cuda.executor", "import cuda.bindings"),
        ("miniinfer_cli.ops.softmax", "import onnx"),
        ("miniinfer_cli.ops.softmax", "def f():\n    import numpy"),
        ("miniinfer_cli.ops.softmax", "import scipy.special"),
        ("miniinfer_cli.ir.arrays", "import ml_dtypes"),
        ("miniinfer_cli.cli.report", "from rich.table import Table"),
    ],
)
def test_the_tables_refuse(module: str, source: str):
    assert len(faults_of(list(read_imports(module, source)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine_format.reader", "import msgpack, os\nfrom engine_format.strict import parse"),
        ("miniinfer_cli.backends.cuda.driver.check", "from cuda.bindings import driver"),
        ("miniinfer_cli.backends.cpu.program", "from miniinfer_cli.backends.interface import Step"),
        ("miniinfer_cli.runtime.engine", "from miniinfer_cli.backends.interface import LoadModel"),
        ("miniinfer_cli.devices.models", "from miniinfer_cli.backends.cuda.models import opening"),
        ("miniinfer_cli.ir.arrays", "def f():\n    import ml_dtypes"),
        ("miniinfer_cli.onnx_import.source", "from onnx import checker\nfrom miniinfer_cli.ops import lookup"),
    ],
)
def test_the_tables_allow(module: str, source: str):
    assert faults_of(list(read_imports(module, source))) == []


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after ``code``."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    )


HEAVY = {"click", "cuda", "cudnn", "google.protobuf", "numpy.random", "nvtx", "onnx", "onnxruntime", "rich"}
BUILDING = {"miniinfer_cli.builder", "miniinfer_cli.onnx_import", "miniinfer_cli.passes"}


def test_engine_format_loads_no_numpy_and_nothing_of_ours():
    assert loaded_by("import engine_format") & {*HEAVY, "numpy", "miniinfer_cli"} == set()


def test_the_package_itself_loads_nothing():
    loaded = loaded_by("import miniinfer_cli")
    assert {m for m in loaded if m.startswith("miniinfer_cli")} == {"miniinfer_cli", "miniinfer_cli.version"}
    assert loaded & {*HEAVY, "numpy", "engine_format"} == set()


def test_running_a_plan_loads_no_onnx_no_pass_and_no_cuda(tmp_path: Path):
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (symbol("batch"), 4)))
    w = graph.add_constant(np.ones((4, 3), np.float32), "w")
    y = graph.add("MatMul", x, w, type=TensorType(DType.F32, (symbol("batch"), 3)))
    graph.set_outputs([y], ["y"])
    write_plan(freeze(graph), tmp_path / "a.plan")
    loaded = loaded_by(
        "import miniinfer_cli, numpy\n"
        f"with miniinfer_cli.load({str(tmp_path / 'a.plan')!r}, device='cpu') as engine:\n"
        "    assert engine.run({'x': numpy.ones((2, 4), numpy.float32)})['y'].tolist() == [[4.0] * 3] * 2"
    )
    assert loaded & {*HEAVY, *BUILDING, "ml_dtypes"} == set()


def test_running_a_plan_on_a_gpu_loads_nothing_of_the_build_and_of_the_cpu(tmp_path: Path):
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (2, 4)))
    y = graph.add("Softmax", x, type=TensorType(DType.F32, (2, 4)))
    graph.set_outputs([y], ["y"])
    write_plan(freeze(graph), tmp_path / "a.plan")
    loaded = loaded_by(
        "import miniinfer_cli, numpy\n"
        "from miniinfer_cli.backends.cuda.models import opening\n"
        "from miniinfer_cli.devices import models\n"
        "import miniinfer_cli.backends.cuda.driver.device, miniinfer_cli.backends.cuda.driver.kernel_cache\n"
        "import miniinfer_cli.backends.cuda.loading.functions, miniinfer_cli.backends.cuda.loading.libraries\n"
        "from tests.emulation.engine import load_emulated\n"
        "models.open_model = lambda graph, _, options, tf32, beside: load_emulated()(graph, 'cuda:0', options, {'tf32': tf32})\n"
        f"with miniinfer_cli.load({str(tmp_path / 'a.plan')!r}, device='cuda:0', cache=None) as engine:\n"
        "    assert engine.device == 'cuda:0' and numpy.allclose(engine.run({'x': numpy.zeros((2, 4), 'f')})['y'], 0.25)"
    )
    assert loaded & {*HEAVY, *BUILDING, "ml_dtypes", "importlib.metadata"} == set()
    assert {m for m in loaded if m.startswith("miniinfer_cli.backends.cpu")} == set()
