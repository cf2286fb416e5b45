"""docs/cli.md names every command, every flag and every exit code."""

from pathlib import Path

import click
import pytest

from miniinfer_cli import errors
from miniinfer_cli.cli.commands import cli

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
COMMANDS = cli.list_commands(click.Context(cli))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_documented(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert f"## miniinfer {name} " in TEXT
    flags = [o for p in command.params if isinstance(p, click.Option) for o in p.opts if o.startswith("--")]
    assert [f for f in flags if f"`{f}" not in TEXT and f", {f}" not in TEXT] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_help(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


def test_every_exit_code_is_documented():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.MiniinferError)]
    codes = {c.exit_code for c in classes} | {0, 130, 143}
    assert codes == {0, 1, 2, 3, 4, 5, 6, 70, 130, 143}
    assert [c for c in codes if f"| {c} | " not in TEXT] == []
