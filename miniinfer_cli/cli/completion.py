"""``miniinfer completion``: what a shell is to read so that it completes commands, flags and files."""

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_MINIINFER_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what SHELL reads to complete commands, flags and files.

    bash and zsh: source <(miniinfer completion bash); fish: miniinfer completion fish | source.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "miniinfer", _VARIABLE).source())
