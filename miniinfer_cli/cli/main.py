"""The ``miniinfer`` command: finds the sub-command, and turns every error into one line and a documented exit code."""

import errno
import importlib
import io
import os
import sys
import traceback

import click

from miniinfer_cli import __version__
from miniinfer_cli.errors import MiniinferError, OutOfMemoryError, unwritable

_COMMANDS = {
    "build": "miniinfer_cli.cli.build",
    "run": "miniinfer_cli.cli.run",
    "profile": "miniinfer_cli.cli.profile",
    "inspect": "miniinfer_cli.cli.inspect",
    "devices": "miniinfer_cli.cli.devices",
}
_USAGE = 2
_BUG = 70
_INTERRUPTED = 130


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
    invoke_without_command=True,  # as a fault: see cli()
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="miniinfer")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Builds ONNX models into portable plans, and runs, profiles and inspects them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(_USAGE)


def main(args: list[str] | None = None) -> None:
    """The entry point of the ``miniinfer`` script. Always ends by SystemExit."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: nobody reads it, and no file of ours may take its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    sys.exit(_invoke(args))


def _invoke(args: list[str] | None) -> int:
    try:
        status = cli.main(args, prog_name="miniinfer", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "miniinfer"
        print(f"miniinfer: error: {error.format_message()}\n  hint: {command} -h lists the flags", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        print("miniinfer: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except MiniinferError as error:
        print(f"miniinfer: error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"miniinfer: error: {OutOfMemoryError(_one_line(error), hint='run smaller shapes')}", file=sys.stderr)
        return OutOfMemoryError.exit_code
    except BrokenPipeError:
        _drop_output()  # the reader went away (``| head``): nothing to say
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _bug()
        _drop_output()
        print(f"miniinfer: error: {unwritable(error, error.filename or 'standard output')}", file=sys.stderr)
        return OutOfMemoryError.exit_code
    except Exception:
        return _bug()


def _bug() -> int:
    """Prints the traceback of the error that is being handled."""
    traceback.print_exc()
    print("miniinfer: this is a bug in miniinfer; please report it with the lines above", file=sys.stderr)
    return _BUG


def _drop_output() -> None:
    """Lets what standard output still holds go nowhere, so that Python does not complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: MemoryError) -> str:
    """What numpy says has the size that it wanted; Python itself says nothing."""
    return f"this machine's memory ran out{f': {error}' if str(error) else ''}"
