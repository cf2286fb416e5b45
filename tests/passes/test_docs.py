"""docs/passes.md has a row for every pass, in the order of the pipeline, with its level, and for nothing else."""

import re
from pathlib import Path

from miniinfer_cli.passes.pipeline import PHASES
from tests.passes.names import pass_names

ROW = re.compile(r"^\| `(\w+)` \| (\d) \| \S.* \|$", re.MULTILINE)
TEXT = (Path(__file__).parents[2] / "docs" / "passes.md").read_text()


def test_every_pass_has_a_row_with_its_level():
    levels = {p.name: p.level for phase in PHASES for p in phase.passes}
    assert [(name, int(level)) for name, level in ROW.findall(TEXT)] == [(name, levels[name]) for name in pass_names()]


def test_every_row_is_read():
    assert len(re.findall(r"^\| `", TEXT, re.MULTILINE)) == len(ROW.findall(TEXT))
