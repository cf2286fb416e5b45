"""Attack: a broken file, the rule that it breaks, and the answer; and how such files are made from a sound one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.engine_format.samples import edited, with_header


@dataclass(frozen=True)
class Attack:
    """``make`` turns the bytes of a sound plan into a file that breaks ``rule``; the reader answers with ``message``.

    ``at`` is the value of the header that is to blame, as a path; None where the message itself has the byte.
    """

    rule: str
    message: str
    make: Callable[[bytes], bytes]
    at: tuple[int | str, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.rule}: {self.message[:60]}"


def put(path: str, value: Any) -> Callable[[bytes], bytes]:
    """Sets the value at a path of the header, to ``value`` or to what it makes of the old one."""
    *steps, last = steps_of(path)

    def edit(document: Any) -> None:
        for step in steps:
            document = document[step]
        document[last] = value(document[last]) if callable(value) else value

    return lambda data: edited(data, edit)


def broken(rule: str, message: str, path: str, value: Any, at: str = "") -> Attack:
    """A file whose header has another value at a path; the reader points to it, or to ``at``."""
    return Attack(rule, message, put(path, value), steps_of(at or path))


def steps_of(path: str) -> tuple[int | str, ...]:
    """``attrs/perm/0`` as steps, the first of which may be short for several."""
    first, _, rest = path.partition("/")
    whole = f"{SHORT.get(first, first)}/{rest}" if rest else SHORT.get(first, first)
    return tuple(int(s) if s.isdigit() else s for s in whole.split("/"))


def patched(offset: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + new + data[offset + len(new) :] if offset >= 0 else data[:offset] + new


def raw(header: bytes) -> Callable[[bytes], bytes]:
    return lambda data: with_header(data, header)


def nested(depth: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


# The parts of the sample that attacks aim at: its nodes, the attributes of the last, its first target section.
SHORT = {
    "nodes": "graph/5", "region": "graph/5/0", "choice": "graph/5/1", "custom": "graph/5/2", "attrs": "graph/5/2/5",
    "tactics": "targets/0/2", "kernels": "targets/0/3",
    "gpu": "targets/0/4", "records": "targets/0/5",
}  # fmt: skip
