"""The ``miniinfer`` command from beginning to end: every fault becomes one line and a documented exit code.

What takes long to import is imported inside, where an interruption is handled already.
"""

import errno
import sys
from collections.abc import Sequence

from miniinfer_cli.cli.interruption import INTERRUPTED, Interruption, interruptible
from miniinfer_cli.cli.streams import drop_output, lasting_streams
from miniinfer_cli.errors import MiniinferError, OutOfMemoryError, unwritable

_BUG = 70


def main(args: list[str] | None = None) -> None:
    """The entry point of the ``miniinfer`` script. Always ends by SystemExit."""
    with lasting_streams(), interruptible() as received:
        code = _invoke(args, received)
    sys.exit(code)


def _invoke(args: list[str] | None, received: Sequence[Interruption] = ()) -> int:
    """The exit code of a command; what went wrong is told. ``received`` grows by the signals that come meanwhile."""
    try:
        code = _command(args)
        sys.stdout.flush()
    except BaseException as error:
        if not received:
            return _fault(error)
        print(f"miniinfer: {received[-1].told}", file=sys.stderr)  # whatever the interruption became on its way up
        return received[-1].exit_code
    return code


def _command(args: list[str] | None) -> int:
    import click

    from miniinfer_cli.cli.commands import cli

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
        case SystemExit():  # a plugin's
            raise error
        case KeyboardInterrupt():  # raised by other means than the signal
            print(f"miniinfer: {INTERRUPTED.told}", file=sys.stderr)
            return INTERRUPTED.exit_code
        case MiniinferError():
            print(f"miniinfer: error: {error}", file=sys.stderr)
            return error.exit_code
        case MemoryError():
            print(f"miniinfer: error: {OutOfMemoryError(_one_line(error), hint='run smaller shapes')}", file=sys.stderr)
            return OutOfMemoryError.exit_code
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            drop_output()
            print(f"miniinfer: error: {unwritable(error, error.filename or 'standard output')}", file=sys.stderr)
            return OutOfMemoryError.exit_code
    import traceback

    traceback.print_exception(error)
    print("miniinfer: this is a bug in miniinfer; please report it with the lines above", file=sys.stderr)
    return _BUG


def _one_line(error: MemoryError) -> str:
    """What numpy says has the size that it wanted; Python itself says nothing."""
    return f"this machine's memory ran out{f': {error}' if str(error) else ''}"
