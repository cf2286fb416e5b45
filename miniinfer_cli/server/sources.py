"""Which plans are served: a file, and the name and version by which clients ask for it."""

import re
from dataclasses import dataclass
from pathlib import Path

from engine_format import Plan
from miniinfer_cli.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan is, and what it is called. ``held``: a plan in memory, which has no file to be taken from again."""

    name: str
    version: str
    path: Path
    held: Plan | None = None


def name_of(path: Path) -> str:
    """The name of a plan that is given none: its file's, as far as that has characters of a name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)


def source_of(plan: "str | Path | Plan", name: str | None) -> Source:
    """Version 1 of a plan that an adapter was given: a path, or a plan that is open, which is closed where its file has it.

    ``name``: None for the file's, or for that of the graph where there is no file.
    """
    if isinstance(plan, Plan) and not plan.path:
        return Source(name or name_of(Path(plan.graph.name or "plan")), "1", Path(), plan)
    path = Path(plan.path if isinstance(plan, Plan) else plan)
    if isinstance(plan, Plan):
        plan.close()  # its digest was compared when it came
    return Source(name or name_of(path), "1", path)


def is_name(text: str) -> bool:
    """True where clients may call a plan so."""
    return _NAME.fullmatch(text) is not None


def parse_source(text: str) -> Source:
    """``PLAN``, ``NAME=PLAN`` or ``NAME:VERSION=PLAN``; the name is else the file's, the version 1. Raises UsageError."""
    named, separator, path = text.rpartition("=") if not Path(text).exists() else ("", "", text)
    name, colon, version = named.partition(":")
    if not separator:
        name = name_of(Path(path))
    if not path or not is_name(name) or (colon and not _VERSION.fullmatch(version)):
        hint = "NAME=model.plan or NAME:2=model.plan; a name has letters, digits, _, . and -, a version is a whole number"
        raise UsageError(f"PLAN: {text!r} does not tell a name and a file", hint=hint)
    return Source(name, str(int(version)) if version else "1", Path(path))
