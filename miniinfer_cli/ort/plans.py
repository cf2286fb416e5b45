"""From a model to its plan, which is built on first use, and kept in the cache by the digest of the model."""

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_format import Plan, PlanError, read_plan, write_plan
from miniinfer_cli.cache_files import CacheFolder
from miniinfer_cli.ort.faults import PLUGINS, Fail, InvalidGraph, InvalidProtobuf, NoSuchFile, told_as
from miniinfer_cli.ort.nodes import ModelMetadata, NodeArg
from miniinfer_cli.runtime.cache_folder import default_cache, plan_cache_mib
from miniinfer_cli.version import VERSION

if TYPE_CHECKING:
    from miniinfer_cli.onnx_import.declared import Declared

_KEY = "onnxruntime"  # what a kept plan's metadata hold for us
_NAMES = re.compile(r"[0-9a-f]{40}\.plan")
_BUILDING = ("builder", "ir", "onnx_import", "onnx_import/upgrades", "ops", "passes", "passes/precision", "planning")
_ORT_FORMAT = b"ORTM"  # at byte 4 of a model in onnxruntime's own format


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model, a path or bytes, and what bears on its plan: inputs with an initializer that stay inputs (``overridable``), and
    whether each input has sizes of its own, whatever the model calls them (``own_sizes``).
    """

    source: str | bytes
    opt_level: int = 2
    free_dimensions: Sequence[tuple[str, int]] = ()
    overridable: Sequence[str] = ()
    own_sizes: bool = False


@dataclass(frozen=True, slots=True)
class Declarations:
    """What the model declares, as a plan's metadata keep it. Outputs without a declared shape have None."""

    inputs: tuple[NodeArg, ...]
    overridable: tuple[NodeArg, ...]
    outputs: tuple[tuple[str, str, list[int | str | None] | None], ...]
    metadata: ModelMetadata


def plan_of(wanted: Wanted) -> tuple[Plan, Declarations]:
    """The plan of a model, from the cache or built now. Raises onnxruntime's exceptions."""
    source = wanted.source
    if _plugins():
        from miniinfer_cli.plugins import load_plugins  # late: who has none of them pays nothing

        with told_as(Fail):
            load_plugins(_plugins())  # a kept plan needs their operations, too
    digest = _digest(source)
    key = _key(digest, wanted)
    folder = _folder()
    name = f"{key}.plan"
    kept = None if folder is None else _kept(folder, name, key, source)
    if kept is not None:
        return kept
    plan, record = _built(wanted, key)
    if folder is not None and _digest(source) == digest:  # the file may have changed meanwhile
        with contextlib.suppress(OSError, PlanError):  # a full or read-only disk: this process has it in memory
            folder.write_by(name, lambda path: write_plan(plan, path))
            written = _kept(folder, name, key, source)
            if written is not None:
                return written
    return plan, _declarations(record)


def _folder() -> CacheFolder | None:
    cache = default_cache()
    mib = plan_cache_mib()
    return None if cache is None or not mib else CacheFolder(cache / "plans", mib << 20, _NAMES)


def _digest(source: str | bytes) -> str:
    """Raises NoSuchFile and InvalidProtobuf."""
    if isinstance(source, bytes):
        _expect_onnx(source[:8], "the model")
        return hashlib.sha256(source).hexdigest()
    try:
        with Path(source).open("rb") as file:
            _expect_onnx(file.read(8), source)
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise NoSuchFile(f"{source}: there is no such file") from None
    except OSError as error:
        raise InvalidProtobuf(f"{source} cannot be read: {error.strerror}") from None


def _expect_onnx(start: bytes, label: str) -> None:
    if start[4:8] == _ORT_FORMAT:
        raise InvalidProtobuf(f"{label} is in onnxruntime's own format\n  hint: give the .onnx file that it was made of")


def _key(digest: str, wanted: Wanted) -> str:
    sizes = sorted(wanted.free_dimensions)
    parts = [VERSION, _code(), digest, wanted.opt_level, sizes, sorted(wanted.overridable), wanted.own_sizes, _plugins()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


@functools.cache
def _code() -> str:
    """What tells the code that builds plans from that of another day, where a release is changed in place."""
    root = Path(__file__).parents[1]
    files = (e for room in _BUILDING for e in os.scandir(root / room) if e.name.endswith(".py"))
    seen = sorted((e.path, (status := e.stat()).st_size, status.st_mtime_ns) for e in files)
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _plugins() -> list[str]:
    return [name for name in os.environ.get(PLUGINS, "").split(",") if name]


def _kept(folder: CacheFolder, name: str, key: str, source: str | bytes) -> tuple[Plan, Declarations] | None:
    """The kept plan; None where there is none, or it is damaged, of another key, or of other files beside the model."""
    path = folder.trusted_path(name)
    if path is None:
        return None
    try:
        plan = read_plan(path)
    except (OSError, PlanError):
        return None
    try:
        record = json.loads(str(plan.report.metadata[_KEY]))
        if record["key"] == key and all(_file_digest(source, file) == known for file, known in record["files"].items()):
            return plan, _declarations(record)
    except (KeyError, TypeError, ValueError, OSError):
        pass
    plan.close()
    return None


def _file_digest(source: str | bytes, name: str) -> str:
    with (_folder_of(source) / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_of(source: str | bytes) -> Path:
    return Path(source).parent if isinstance(source, str) else Path()


def _built(wanted: Wanted, key: str) -> tuple[Plan, dict[str, Any]]:
    # Late: whoever finds the plan in the cache pays for none of this.
    from miniinfer_cli.builder.building import build_plan
    from miniinfer_cli.builder.options import BuildOptions
    from miniinfer_cli.onnx_import.declared import read_declaration

    source, sizes = wanted.source, dict(wanted.free_dimensions)
    with told_as(InvalidProtobuf):
        declared = read_declaration(source)
    with told_as(InvalidGraph):
        shapes = _fixed(declared.inputs, sizes)
        options = BuildOptions(
            opt_level=wanted.opt_level,
            shapes=shapes,
            overridable=tuple(wanted.overridable),
            plugins=tuple(_plugins()),
            own_sizes=wanted.own_sizes,
        )
        built = build_plan(source, None, options)
    said = built.plan.report.metadata
    folder = _folder_of(source)
    record = {
        "key": key,
        "files": {name: _file_digest(source, name) for name in (os.path.relpath(f, folder) for f in declared.files)},
        "inputs": [_item(d, sizes) for d in declared.inputs],
        "overridable": [_item(d, sizes) for d in declared.overridable],
        "outputs": [_item(d, sizes) for d in declared.outputs],
        "metadata": {
            "producer_name": said["producer"],
            "graph_name": said["name"],
            "domain": said["domain"],
            "description": said["doc"],
            "graph_description": declared.graph_doc,
            "version": said["version"],
            "custom_metadata_map": custom if isinstance(custom := said["metadata"], Mapping) else {},
        },
    }
    report = replace(built.plan.report, metadata={**said, _KEY: json.dumps(record)})
    return replace(built.plan, report=report), record


def _item(declared: "Declared", sizes: Mapping[str, int]) -> list[Any]:
    shape = declared.shape
    if shape is not None:
        shape = tuple(sizes.get(d, d) if isinstance(d, str) else d for d in shape)
    return [declared.name, declared.type, shape]


def _fixed(inputs: "Sequence[Declared]", sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of those inputs that ``sizes`` make wholly known."""
    fixed: dict[str, tuple[int, ...]] = {}
    for declared in inputs:
        if declared.shape is not None and any(d in sizes for d in declared.shape if isinstance(d, str)):
            shape = [sizes.get(d) if isinstance(d, str) else d for d in declared.shape]
            known = [d for d in shape if d is not None]
            if len(known) == len(shape):
                fixed[declared.name] = tuple(known)
    return fixed


def _declarations(record: Mapping[str, Any]) -> Declarations:
    return Declarations(
        inputs=tuple(NodeArg(name, type, shape or []) for name, type, shape in record["inputs"]),
        overridable=tuple(NodeArg(name, type, shape or []) for name, type, shape in record["overridable"]),
        outputs=tuple((name, type, None if shape is None else list(shape)) for name, type, shape in record["outputs"]),
        metadata=ModelMetadata(**record["metadata"]),
    )
