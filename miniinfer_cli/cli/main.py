"""The entry point of the ``miniinfer`` script: everything else is loaded where an interruption is handled already."""

import sys

from miniinfer_cli.cli.interruption import Interruptions

_NO_MEMORY = 6  # the code of errors.OutOfMemoryError, which may not even be there to be raised
_HINT = "raise the limit of this process (ulimit -v), or free memory"


def main(args: list[str] | None = None) -> None:
    """Runs the command line ``args``, by default the process's own. Always ends by SystemExit."""
    with Interruptions() as interruptions:
        try:
            code = _invoke(args, interruptions)
        except BaseException:
            if not interruptions.received:
                raise
            code = interruptions.exit_code
            if sys.stderr is not None:
                print(interruptions.told, file=sys.stderr)
    sys.exit(code)


def _invoke(args: list[str] | None, interruptions: Interruptions | None = None) -> int:
    """The exit code of a command, run in this process; what went wrong is told."""
    from miniinfer_cli.shortage import expect_room_to_start, memory_ran_out

    try:
        expect_room_to_start()
        from miniinfer_cli.cli.invocation import invoke
    except Exception as error:
        if not memory_ran_out(error):
            raise
        if sys.stderr is not None:
            print(f"miniinfer: error: this machine's memory ran out: {_last_line(error)}\n  hint: {_HINT}", file=sys.stderr)
        return _NO_MEMORY
    return invoke(args, interruptions or Interruptions())


def _last_line(error: BaseException) -> str:
    """What numpy says of a library that cannot be loaded is a page, and ends with what the loader said."""
    return (str(error).strip().splitlines() or ["not enough to start"])[-1]
