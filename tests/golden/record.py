"""The record on disk: a file for each model, with all its programs."""

import lzma
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.golden.libraries import AllAnswers, Answers, NoAnswers, Recorded
from tests.golden.models import BATCHES, DTYPES, build
from tests.golden.text import program_text

FOLDER = Path(__file__).parent.parent / "fixtures" / "golden"
ANSWERS = FOLDER / "h200.json"
"""What the libraries of a real H200 answered."""


def all_answers() -> list[Answers]:
    """What is asked of the libraries, three ways; two while nothing was recorded."""
    return [AllAnswers(), NoAnswers(), *([Recorded.read(ANSWERS)] if ANSWERS.is_file() else [])]


def sections(
    name: str, dtypes: Sequence[str] = DTYPES, answers: Sequence[Answers] | None = None, *, real_weights: bool = False
) -> Iterator[str]:
    """The programs of a model as they are made now: a text for each element type, batch size and answer of the libraries."""
    for dtype in dtypes:
        model = build(name, dtype, real_weights=real_weights)
        for batch in BATCHES:
            for one in all_answers() if answers is None else answers:
                title = f"{name} {dtype} batch {batch}, {one.title}"
                yield program_text(title, model.graph, model.inputs(batch), one)


def made(name: str, *, real_weights: bool = False) -> tuple[str, str]:
    """The model's name, and all its programs as they are made now."""
    return name, "".join(sections(name, real_weights=real_weights))


def read(name: str, dtypes: Sequence[str] = DTYPES) -> str:
    """The record of a model, of these element types alone."""
    text = lzma.decompress(path_of(name).read_bytes()).decode()
    parts = re.split(r"^(?=== )", text, flags=re.MULTILINE)
    return "".join(p for p in parts if p and p.split(" ", 3)[2] in dtypes)


def write(name: str, text: str) -> bool:
    """Writes the record of a model; False when it is on disk already."""
    path = path_of(name)
    if path.is_file() and read(name) == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    return True


def path_of(name: str) -> Path:
    """The file of a model's record."""
    return FOLDER / f"{name}.txt.xz"
