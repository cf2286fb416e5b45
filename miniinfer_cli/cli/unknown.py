"""What to say of flags and commands that are not ours: what they are called here, or what looks like them."""

import re
from collections.abc import Callable, Iterator, Sequence

import click

from miniinfer_cli.cli.foreign_flags import tool_of, way_of
from miniinfer_cli.errors import UsageError, nearest

PAGE = "docs/coming-from-trtexec.md"

# What other tools call their commands, and what is typed where a command should stand.
_COMMANDS = {
    **dict.fromkeys(("benchmark", "bench", "perf", "perf_analyzer", "benchmark_app", "infer", "exec", "execute", "test"), "run"),
    **dict.fromkeys(("convert", "compile", "optimize", "export", "mo", "ovc"), "build"),
    **dict.fromkeys(("show", "info", "dump", "print", "list", "check", "view"), "inspect"),
    **dict.fromkeys(("device", "gpus", "doctor", "smi"), "devices"),
}
_TWO_COMMANDS = f"build makes the plan and run measures it: see {PAGE}"


def no_command(name: str, commands: Sequence[str]) -> UsageError:
    """What to raise for a command that there is not; a file in its place is told what to do with it."""
    plain = name.lower()
    if plain.endswith(".onnx"):
        hint = f"build it first: miniinfer build {name}"
    elif plain.endswith((".plan", ".engine", ".trt")):
        hint = f"miniinfer run {name}, or profile, or inspect"
    elif plain == "polygraphy":
        hint = _TWO_COMMANDS
    elif plain in _COMMANDS:
        hint = f"that is {_COMMANDS[plain]} here: miniinfer {_COMMANDS[plain]} -h"
    else:
        close = nearest(plain, commands)
        hint = f"{close} The commands are {', '.join(commands)}" if close else f"the commands are {', '.join(commands)}"
    return UsageError(f"No such command {name!r}.", hint=hint)


def no_options(
    args: Sequence[str], refused: str, command: click.Command, title: str, others: Callable[[], Sequence[click.Command]]
) -> UsageError:
    """What to raise when ``command``, called ``title``, has been given flags that it does not have: what is known of each.

    ``args`` are those of the command, ``refused`` is what click stopped at: the first, or a letter of it. ``others`` gives all
    commands, which are imported when no table helps.
    """
    flags = list(dict.fromkeys(_not_ours(args, command))) or [refused]
    sentences = {flag: _sentence(flag, command, others) for flag in flags}
    said = [f"{flag}: {sentence}" for flag, sentence in sentences.items() if sentence]
    page = f"{PAGE} has them all; " if any(way_of(flag) for flag in flags) else ""
    if all(tool_of(flag) == "trtexec" for flag in flags):
        page = f"miniinfer trtexec takes command lines of trtexec as they are; {page}"
    message = f"No such option{'s' * (len(flags) > 1)}: {', '.join(flags)}"
    return UsageError(message, details=said, hint=f"{page}{title} -h lists the flags")


def _sentence(flag: str, command: click.Command, others: Callable[[], Sequence[click.Command]]) -> str:
    """What is known of a flag that the command does not have; may be nothing."""
    way = way_of(flag)
    if way:
        return way
    holders = [other.name or "" for other in others() if flag in own_flags(other)]
    if holders:
        told = " and ".join([", ".join(holders[:-1]), holders[-1]] if len(holders) > 1 else holders)
        return f"it is a flag of {told}, and stands behind the command"
    long = [name for name in own_flags(command) if name.startswith("--")]
    return nearest(_dashed(flag), long)


def own_flags(command: click.Command) -> dict[str, bool]:
    """Every flag of a command, and whether it takes a value."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    found = {name: not (o.is_flag or o.count) for o in options for name in (*o.opts, *o.secondary_opts)}
    return found | {"-h": False, "--help": False}


def _not_ours(args: Sequence[str], command: click.Command) -> Iterator[str]:
    own = own_flags(command)
    rest = iter(args)
    for word in rest:
        if word == "--":
            return
        name, equals, _ = word.partition("=")
        if name in own:
            if own[name] and not equals:
                next(rest, None)  # its value, whatever that looks like
        elif re.fullmatch(r"--?[A-Za-z][\w-]*", name) and not own.get(name[:2], False):  # -oFILE is ours
            yield name


def _dashed(flag: str) -> str:
    """``--warmUp`` and ``-warm_up`` as they would be spelt here: ``--warm-up``."""
    return "--" + re.sub(r"(?<=[a-z0-9])([A-Z])", r"-\1", flag.lstrip("-")).replace("_", "-").lower()
