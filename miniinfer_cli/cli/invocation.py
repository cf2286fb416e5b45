"""One command from beginning to end: every fault becomes one line and a documented exit code."""

import errno
import sys
import traceback

import click

from miniinfer_cli.cli.commands import cli
from miniinfer_cli.cli.interruption import Interruptions
from miniinfer_cli.cli.streams import RefusedOutput, drop_output, lasting_streams
from miniinfer_cli.errors import MiniinferError, OutOfMemoryError, unwritable
from miniinfer_cli.shortage import memory_ran_out

_BUG = 70


def invoke(args: list[str] | None, interruptions: Interruptions) -> int:
    """Runs the command, and gives its exit code. Raises SystemExit only when a plugin does."""
    with lasting_streams():
        try:
            code = _run(args)
            sys.stdout.flush()
        except SystemExit:
            raise
        except BaseException as error:
            if interruptions.received or isinstance(error, KeyboardInterrupt):  # whatever it became on its way up
                code = interruptions.exit_code
                print(interruptions.told, file=sys.stderr)
            else:
                code = _fault(error)
    return code


def _run(args: list[str] | None) -> int:
    try:
        status = cli.main(args, prog_name="miniinfer", standalone_mode=False)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "miniinfer"
        print(f"miniinfer: error: {error.format_message()}\n  hint: {command} -h lists the flags", file=sys.stderr)
        return error.exit_code
    except click.exceptions.Abort as error:  # click's word for what it caught
        cause = error.__cause__
        raise (error if cause is None else cause) from None
    return status if isinstance(status, int) else 0


def _fault(error: BaseException) -> int:
    """Tells the fault, and gives its exit code."""
    match error:
        case MiniinferError():
            print(f"miniinfer: error: {error.in_flags()}", file=sys.stderr)
            return error.exit_code
        case RefusedOutput() | OSError(errno=errno.ENOSPC | errno.EDQUOT):
            drop_output()
            told = unwritable(error, error.filename or "standard output")
            print(f"miniinfer: error: {told.in_flags()}", file=sys.stderr)
            return told.exit_code
    if memory_ran_out(error):
        print(f"miniinfer: error: {OutOfMemoryError(_one_line(error), hint='run smaller shapes').in_flags()}", file=sys.stderr)
        return OutOfMemoryError.exit_code
    from miniinfer_cli.plugins import fault_of_plugin  # late: brings the operations

    of_plugin = fault_of_plugin(error)
    if of_plugin is not None:
        print(f"miniinfer: error: {of_plugin.in_flags()}", file=sys.stderr)
        return of_plugin.exit_code
    traceback.print_exception(error)
    print("miniinfer: this is a bug in miniinfer; please report it with the lines above", file=sys.stderr)
    return _BUG


def _one_line(error: BaseException) -> str:
    """What numpy says has the size that it wanted; Python itself says nothing."""
    told = str(error).strip().splitlines()
    return f"this machine's memory ran out{f': {told[-1]}' if told else ''}"
