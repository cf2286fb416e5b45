"""The tables of docs/onnxruntime.md, written from what is there: ``python -m tests.ort_page``."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from miniinfer_cli import ort
from miniinfer_cli.ort import capi
from miniinfer_cli.ort.lacking import LACKING, LACKING_IN_CAPI, LACKING_MEMBERS, LACKING_MODULES

PAGE = Path(__file__).parents[1] / "docs" / "onnxruntime.md"
START = "<!-- What follows is written by: python -m tests.ort_page -->\n"
CLASSES = ("InferenceSession", "IOBinding", "ModelMetadata", "NodeArg", "OrtDevice", "OrtValue", "RunOptions", "SessionOptions")
MODULES = ("onnxruntime", "onnxruntime.capi", *(f"onnxruntime.capi.{name}" for name in capi.__all__))


def there() -> list[tuple[str, str]]:
    """Each name that is there, and what it is for."""
    package = [(name, _first_line(getattr(ort, name))) for name in sorted(ort.__all__) if name not in CLASSES and name != "capi"]
    inner = [
        (f"capi.onnxruntime_pybind11_state.{n}", _first_line(getattr(capi.onnxruntime_pybind11_state, n))) for n in _errors()
    ]
    return [*package, *inner]


OWN = {"SessionOptions": {"free_dimensions", "providers"}, "IOBinding": {"run", "session"}}
"""Names of ours, which onnxruntime's classes lack."""


def members(name: str) -> list[str]:
    """The names of a class that are onnxruntime's, too."""
    kind = getattr(ort, name)
    names = {*dir(kind), *getattr(kind, "_KINDS", ()), *getattr(kind, "__dataclass_fields__", ())}
    return sorted(n for n in names if not n.startswith("_") and n not in OWN.get(name, ()))


def tables() -> str:
    """All of it."""
    classes = "".join(f"| `{name}` | {', '.join(f'`{m}`' for m in members(name))} |\n" for name in CLASSES)
    modules = {f"onnxruntime.{name}": hint for name, hint in LACKING_MODULES.items()}
    inner = {f"capi.onnxruntime_pybind11_state.{n}": h for n, h in LACKING_IN_CAPI.items() if n not in LACKING}
    of_classes = {f"{kind}.{name}": hint for kind, hints in LACKING_MEMBERS.items() for name, hint in hints.items()}
    return (
        f"\n## Names that are there\n\nModules: {', '.join(f'`{m}`' for m in MODULES)}.\n\n"
        f"| class | its names |\n|---|---|\n{classes}\n"
        f"| name | what it is |\n|---|---|\n{''.join(f'| `{n}` | {_cell(t)} |{chr(10)}' for n, t in there())}"
        "\n## Names that are refused\n\n| names | what to do instead |\n|---|---|\n"
        f"{_by_hint({**LACKING, **inner, **of_classes, **modules})}"
    )


def _errors() -> list[str]:
    state = capi.onnxruntime_pybind11_state
    return [n for n in state.__all__ if isinstance(getattr(state, n), type) and issubclass(getattr(state, n), Exception)]


def _first_line(value: object) -> str:
    if isinstance(value, str):
        return f"`{value!r}`"
    return (value.__doc__ or "").splitlines()[0].rstrip(".")


def _by_hint(hints: Mapping[str, str]) -> str:
    ways: Iterable[str] = dict.fromkeys(hints.values())
    return "".join(f"| {', '.join(f'`{n}`' for n, h in hints.items() if h == way)} | {_cell(way)} |\n" for way in ways)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    head, start, _ = PAGE.read_text().partition(START)
    PAGE.write_text(head + start + tables())
