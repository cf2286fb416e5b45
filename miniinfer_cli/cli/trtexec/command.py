"""``miniinfer trtexec``: a command line of trtexec from beginning to end; its exit code is what its last line says."""

import re
import sys
import traceback

import click

from miniinfer_cli.builder.calibration.calibrate import NO_DATA
from miniinfer_cli.cli.streams import RefusedOutput
from miniinfer_cli.cli.trtexec.arguments import Arguments
from miniinfer_cli.cli.trtexec.log import Log
from miniinfer_cli.cli.trtexec.options import dialect_of
from miniinfer_cli.cli.trtexec.running import run
from miniinfer_cli.errors import MiniinferError, OutOfMemoryError
from miniinfer_cli.shortage import memory_ran_out

# What errors name as flags of build and run, and what they are here.
_OURS = {
    "--min-shapes": "--minShapes", "--opt-shapes": "--optShapes", "--max-shapes": "--maxShapes", "--input": "--loadInputs",
    "--timing-cache": "--timingCacheFile", "--plugin": "--plugins",
}  # fmt: skip

_NO_SCALES = "give --calib=FILE that miniinfer build --calibrate FOLDER --calibration-cache FILE made"


class _Raw(click.Command):
    """A command that takes its words as they are: the flags are trtexec's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        ctx.params = {"words": tuple(args)}
        ctx.args = []
        return []


@click.command("trtexec", cls=_Raw)
def command(words: tuple[str, ...]) -> int:
    """Build and measure by the flags of NVIDIA's trtexec."""
    arguments = Arguments.of(words)
    dialect = dialect_of(arguments)
    log = Log(words, dialect.number)
    log.running()
    passed = False
    try:
        passed = run(words, arguments, dialect, log)
    except (RefusedOutput, SystemExit):  # there is nowhere to tell it, or a plugin wants it so
        raise
    except MiniinferError as error:
        _tell(log, error.in_flags())
    except Exception as error:
        _tell_unexpected(log, error)
    except BaseException:  # Ctrl-C, SIGTERM
        log.ended(passed=False)
        raise
    return log.ended(passed=passed)


def _tell(log: Log, text: str) -> None:
    """An error, line by line, with the flags that it names as they are spelt here."""
    text = text.replace(NO_DATA.flags, _NO_SCALES)
    text = re.sub(r"--keep-(?:fp32|float) (\S+)", r"--layerPrecisions=\1:fp32", text.replace("--device cpu", "--device=cpu"))
    for line in text.splitlines():
        log.error(re.sub(r"(?<![\w-])--[\w-]+", lambda found: _OURS.get(found[0], found[0]), line.strip()))


def _tell_unexpected(log: Log, error: Exception) -> None:
    from miniinfer_cli.plugins import fault_of_plugin  # late: brings the operations

    if memory_ran_out(error):
        _tell(log, OutOfMemoryError(f"this machine's memory ran out: {error}", hint="run smaller shapes").in_flags())
        return
    of_plugin = fault_of_plugin(error)
    if of_plugin is not None:
        _tell(log, of_plugin.in_flags())
        return
    traceback.print_exception(error, file=sys.stderr)
    log.error("this is a bug in miniinfer; please report it with the lines above")
