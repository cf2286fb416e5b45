"""The entry point of the ``miniinfer`` script: everything else is loaded where an interruption is handled already."""

import sys

from miniinfer_cli.cli.interruption import Interruptions


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
    from miniinfer_cli.cli.invocation import invoke

    return invoke(args, interruptions or Interruptions())
