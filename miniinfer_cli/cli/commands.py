"""The group of all sub-commands; each is imported when it is asked for."""

import importlib

import click

from miniinfer_cli import __version__

USAGE = 2
_COMMANDS = {
    "build": "miniinfer_cli.cli.build",
    "run": "miniinfer_cli.cli.run",
    "profile": "miniinfer_cli.cli.profile",
    "inspect": "miniinfer_cli.cli.inspect",
    "devices": "miniinfer_cli.cli.devices",
}


class _Commands(click.Group):
    """Imports a command's module when it is asked for: ``run`` must not pay for what ``build`` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

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
    """Builds ONNX models into portable plans, and runs, profiles and inspects them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(USAGE)
