"""The tables of docs/trtexec.md, written from the table of flags: ``python -m tests.trtexec_page``."""

from collections.abc import Sequence
from pathlib import Path

from miniinfer_cli.cli.trtexec.flags import GROUPS, REFUSED, UNHEEDED, Flag

PAGE = Path(__file__).parents[1] / "docs" / "trtexec.md"
START = "<!-- What follows is written by: python -m tests.trtexec_page -->\n"


def tables() -> str:
    """The flags that are done, by group; those that change nothing; those that are refused."""
    done = "".join(
        f"\n### {title}\n\n| flag | meaning |\n|---|---|\n{''.join(f'| {_shown(f)} | {_cell(f.text)} |{chr(10)}' for f in group)}"
        for title, group in GROUPS.items()
    )
    rest = "".join(
        f"\n## {title}\n\n| flags | why |\n|---|---|\n{_by_reason(flags)}"
        for title, flags in (("Flags that change nothing, with a `[W]` line", UNHEEDED), ("Flags that are refused", REFUSED))
    )
    return f"\n## Flags\n{done}{rest}"


def _by_reason(flags: Sequence[Flag]) -> str:
    reasons = dict.fromkeys(f.text for f in flags)
    return "".join(f"| {', '.join(f'`--{f.name}`' for f in flags if f.text == why)} | {_cell(why)} |\n" for why in reasons)


def _shown(flag: Flag) -> str:
    return f"`--{flag.name}{f'={_cell(flag.value)}' if flag.value else ''}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    head, start, _ = PAGE.read_text().partition(START)
    PAGE.write_text(head + start + tables())
