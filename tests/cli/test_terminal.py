"""What a person sees: tables and progress on a terminal, drawn without disturbing what is measured."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from miniinfer_cli.cli import report


def on_terminal(*args: object) -> tuple[int, str]:
    """The exit code and everything printed by the command on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "miniinfer_cli", *map(str, args)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed = b""
    try:
        while data := os.read(ours, 1 << 16):
            printed += data
    except OSError:
        pass  # Linux tells the end of a terminal by an error
    os.close(ours)
    return process.wait(timeout=60), printed.decode()


def test_tables_and_progress(plan: Path, tmp_path):
    code, text = on_terminal("profile", plan, "--duration", "0.6", "--warmup", "0", "--json", tmp_path / "s.json")
    assert code == 0
    assert "\x1b[1mnode" in text  # a heading in bold
    assert "Throughput: " in text
    drawings = text.count("inferences ")
    # Once at the start, every quarter of a second, at the end; a bar drawn at every inference would show thousands of times.
    assert 2 <= drawings <= 12
    assert json.loads((tmp_path / "s.json").read_text())["iterations"] > 50


def test_quiet_holds_on_a_terminal_too(plan: Path):
    assert on_terminal("run", plan, "--duration", "0", "--quiet") == (0, "")


def test_names_are_not_taken_for_markup(capsys):
    report._rich_table(("node",), [["[bold]x[/bold]"]], [False])
    assert "[bold]x[/bold]" in capsys.readouterr().out
