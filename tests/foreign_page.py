"""The tables of docs/coming-from-trtexec.md, written from the register: ``python -m tests.foreign_page``."""

from pathlib import Path

from miniinfer_cli.cli.foreign_flags import FOREIGN

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-trtexec.md"
START = "<!-- What follows is written by: python -m tests.foreign_page -->\n"


def tables() -> str:
    """A table for each tool."""
    tools = dict.fromkeys(f.tool for f in FOREIGN)
    parts = []
    for tool in tools:
        rows = [f"| {', '.join(f'`{n}`' for n in f.names)} | {f.way} |\n" for f in FOREIGN if f.tool == tool]
        parts.append(f"\n## {tool}\n\n| flag | here |\n|---|---|\n{''.join(rows)}")
    return "".join(parts)


if __name__ == "__main__":
    head, start, _ = PAGE.read_text().partition(START)
    PAGE.write_text(head + start + tables())
