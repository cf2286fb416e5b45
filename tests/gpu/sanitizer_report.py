"""What compute-sanitizer's text complains of, without what it cannot judge."""

import re
from collections import Counter
from dataclasses import dataclass

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


@dataclass(frozen=True)
class Excuse:
    """Complaints of a tool that say nothing: those in whose text the pattern is found, and why."""

    tool: str
    pattern: str
    reason: str


EXCUSES = (
    Excuse(
        "initcheck",
        r"on access by cu(da)?Memcpy\w* source",
        "a copy reads more than was written: outputs lie in one region, which is copied whole with the bytes that align them, "
        "and one whose size is a result is written as far as its count",
    ),
)
_PREFIX = "========= "
_SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors?")
_CASES = re.compile(r"^\d+ of \d+ cases, 0 wrong$", re.MULTILINE)


@dataclass(frozen=True)
class Report:
    """``complaints`` are texts of one complaint each, ``excused`` counts the others by reason. ``text`` is all without those."""

    complaints: list[str]
    excused: Counter[str]
    text: str
    whole: bool
    """Whether as many were found as the tool says that it found, and the cases ran to their end, none of them wrong."""

    @property
    def clean(self) -> bool:
        """True when nothing is left to complain of."""
        return self.whole and not self.complaints


def read_report(tool: str, text: str) -> Report:
    """The report in what a watched process printed."""
    kept: list[str] = []
    complaints: list[str] = []
    excused: Counter[str] = Counter()
    block: list[str] = []

    def end_block() -> None:
        if block:
            whole = "\n".join(block)
            reason = next((e.reason for e in EXCUSES if e.tool == tool and re.search(e.pattern, whole)), None)
            if reason is None:
                complaints.append(whole)
                kept.extend(block)
            else:
                excused[reason] += 1
            block.clear()

    for line in text.splitlines():
        detail = line.startswith(_PREFIX + " ")
        if not (detail and block):
            end_block()
        if detail or _begins_complaint(line):
            block.append(line)
        else:
            kept.append(line)
    end_block()
    told = _SUMMARY.search(text)
    found = len(complaints) + excused.total()
    return Report(complaints, excused, "\n".join(kept), told is not None and int(told[1]) == found and bool(_CASES.search(text)))


def _begins_complaint(line: str) -> bool:
    """Every line of the tool's that is not indented, but for its own name, and its sums."""
    said = line.removeprefix(_PREFIX)
    return line.startswith(_PREFIX) and bool(said.strip()) and not said.startswith(("COMPUTE-SANITIZER", "ERROR SUMMARY"))
