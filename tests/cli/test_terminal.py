"""What a person sees: tables and progress on a terminal, drawn without disturbing what is measured."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from miniinfer_cli.builder import building
from miniinfer_cli.cli import report
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer
from tests.forked import on_terminal


def test_tables_and_progress(plan: Path, tmp_path):
    flags = ("--duration", "0.8", "--warmup", "300", "--iterations", "2", "--json", tmp_path / "s.json")
    code, text = on_terminal("profile", plan, *flags)
    assert code == 0
    assert "\x1b[1mnode" in text  # a heading in bold
    assert "Throughput: " in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    drawn = re.findall(r"(warm-up|inferences|nodes) +\S*\s+(\d+)%", plain)
    assert list(dict.fromkeys(stage for stage, _ in drawn)) == ["warm-up", "inferences", "nodes"]
    parts = [int(percent) for stage, percent in drawn if stage == "inferences"]
    # At the start and every quarter of a second, of 0.8 s: what ends the run is the duration, not the two iterations. A bar
    # drawn at every inference would show thousands of times.
    assert 3 <= len(parts) <= 12
    assert parts[0] < 30 and 50 < parts[-1] <= 100
    assert parts == sorted(parts)
    assert json.loads((tmp_path / "s.json").read_text())["iterations"] > 50


@pytest.mark.parametrize(
    ("extent", "done", "elapsed_s", "part"),
    [
        (Extent(10), 5, 99.0, 0.5), (Extent(10, 4.0), 5, 1.0, 0.25), (Extent(10, 4.0), 1, 3.0, 0.1),
        (Extent(10, 4.0), 20, 9.0, 1.0), (Extent(seconds=2.0), 3, 1.0, 0.5), (Extent(), 3, 1.0, None),
        (Extent(2, 2.0), 1, 0.0, 0.0),
    ],
)  # fmt: skip
def test_how_much_of_a_stage_is_over(extent: Extent, done: int, elapsed_s: float, part: float | None):
    assert extent.part(done, elapsed_s) == part


def test_writing_and_verifying_are_shown(miniinfer, model, plan, tmp_path, monkeypatch):
    told: list[str] = []

    @contextmanager
    def stages(self: Printer) -> Iterator[Callable[[str], None]]:
        yield told.append

    monkeypatch.setattr(Printer, "stages", stages)
    monkeypatch.setattr(building, "_TELL_S", 0)
    assert miniinfer("build", model, "--verify").code == 0
    assert [t for t in told if "%" not in t] == ["import", "optimize", "freeze", "write", "verify"]
    percents = [int(t.split()[1]) for t in told if "%" in t]
    assert percents == sorted(percents) and percents[-1] <= 100 and len(percents) >= 2
    told.clear()
    assert miniinfer("run", plan, "--duration", 0, "--output", tmp_path / "o.npz").code == 0
    assert told == ["write outputs"]


def test_quiet_holds_on_a_terminal_too(plan: Path):
    assert on_terminal("run", plan, "--duration", "0", "--quiet") == (0, "")


def test_names_are_not_taken_for_markup(capsys):
    report._rich_table(("node",), [["[bold]x[/bold]"]], [False])
    assert "[bold]x[/bold]" in capsys.readouterr().out
