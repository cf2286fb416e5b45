"""The group of all sub-commands; each is imported when it is asked for."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from miniinfer_cli import __version__
from miniinfer_cli.cli.unknown import no_command, no_options

USAGE = 2
_COMMANDS = {
    "build": "miniinfer_cli.cli.build",
    "run": "miniinfer_cli.cli.run",
    "tune": "miniinfer_cli.cli.tune",
    "profile": "miniinfer_cli.cli.profile",
    "compare": "miniinfer_cli.cli.compare",
    "report": "miniinfer_cli.cli.report_command",
    "inspect": "miniinfer_cli.cli.inspect",
    "devices": "miniinfer_cli.cli.devices",
    "serve": "miniinfer_cli.cli.serve",
    "template": "miniinfer_cli.cli.template",
    "trtexec": "miniinfer_cli.cli.trtexec.command",
    "ort-shim": "miniinfer_cli.cli.ort_shim",
    "completion": "miniinfer_cli.cli.completion",
}


class _Commands(click.Group):
    """Imports a command's module when it is asked for: ``run`` must not pay for what ``build`` needs."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """See click.Command. Raises UsageError for flags and commands that there are not, with what they are called here."""
        typed = sys.argv[1:] if args is None else list(args)
        try:
            return super().main(args, *more, **options)
        except click.NoSuchOption as error:
            context = error.ctx if error.ctx is not None else click.Context(self)
            name = context.info_name
            behind = typed[typed.index(name) + 1 :] if context.parent is not None and name in typed else typed
            refused = no_options(behind, error.option_name, context.command, context.command_path, self.all_commands)
            raise refused from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group."""
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise no_command(args[0], list(_COMMANDS))
        return super().resolve_command(ctx, args)

    def all_commands(self) -> list[click.Command]:
        """Every command, imported."""
        return [importlib.import_module(module).command for module in _COMMANDS.values()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command


@click.group(
    cls=_Commands,
    invoke_without_command=True,  # as a fault: see below
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="miniinfer")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Builds ONNX models into portable plans, and runs, profiles, compares and inspects them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(USAGE)
