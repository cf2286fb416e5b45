"""Which plans are served: a file, and the name and version by which clients ask for it."""

import re
from dataclasses import dataclass
from pathlib import Path

from miniinfer_cli.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan is, and what it is called."""

    name: str
    version: str
    path: Path


def name_of(path: Path) -> str:
    """The name of a plan that is given none: its file's, as far as that has characters of a name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)


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
