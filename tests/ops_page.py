"""docs/ops.md, written from the registers: ``python -m tests.ops_page``."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from miniinfer_cli.backends.cuda.choice.coverage import way_of
from miniinfer_cli.backends.cuda.contract.site import lowered_operations
from miniinfer_cli.ops.registry import defined

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
_WAYS = {
    "kernel": "a lowering of its own: our kernels, cuBLASLt or cuDNN",
    "expansion": "taken apart into operations that have one",
    "view": "nothing to do: the same bytes under another shape",
    "shape": "answered when the program is made",
    "control": "the host decides, the bodies run on the GPU",
    "host": "runs on the host, through its numpy reference, with copies either way",
}
_HEAD = """\
# Operations on the GPU

Written by `python -m tests.ops_page` from the registers; a test holds that it is up to date. Every operation that miniinfer
knows runs on the CPU. What a GPU does with each is below. Some forms of an operation may run on the host although the
operation has a lowering: where element types are strings or complex numbers, and, where there is little to do, what follows once
a size depends on data or an operand that decides a shape is a result. (Where there is much, that is a late part: made ready, and
run on the GPU, as soon as the sizes are known.) `build`, `run` and `inspect` name the nodes of a model that do.

What ONNX leaves open is the same on every device and at every level of optimization. Integers divided by zero (`Div`, `Mod`) give
0, where ONNX Runtime ends the inference on a CPU and promises nothing on a GPU; the least integer divided by -1 is itself.

"""


@dataclass(frozen=True, slots=True)
class Coverage:
    """One operation. ``way`` is one of ``_WAYS``."""

    domain: str
    name: str
    way: str


def coverage() -> Iterator[Coverage]:
    """Every operation that is defined, and the regions, by domain and name."""
    for domain, name in sorted(set(lowered_operations()) | {(d.domain, d.name) for d in defined()}):
        yield Coverage(domain, name, way_of(domain, name))


def page() -> str:
    """The whole page."""
    entries = list(coverage())
    counts = Counter(e.way for e in entries)
    rows = "".join(f"| {way} | {counts[way]} | {text} |\n" for way, text in _WAYS.items())
    lists = "".join(f"\n## {way}\n\n{_names(entries, way)}\n" for way in _WAYS)
    return f"{_HEAD}| way | operations | what it means |\n|---|---|---|\n{rows}{lists}"


def _names(entries: list[Coverage], way: str) -> str:
    names = [f"`{e.domain}.{e.name}`" if e.domain else f"`{e.name}`" for e in entries if e.way == way]
    lines: list[str] = [""]
    for name in names:
        if len(lines[-1]) + len(name) > 120:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + name
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
