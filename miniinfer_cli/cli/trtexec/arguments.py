"""A command line of trtexec taken apart: flags and their values, and what is no flag."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from miniinfer_cli.cli.trtexec.flags import FLAGS, SHORT, Fate
from miniinfer_cli.cli.trtexec.values import pool_sizes
from miniinfer_cli.errors import UsageError, nearest

ADDING_UP = (
    *("minShapes", "optShapes", "maxShapes", "shapes", "loadInputs", "layerPrecisions", "plugins", "staticPlugins"),
    "dynamicPlugins",
)
"""Flags that may be given several times, each with more of the same."""


@dataclass(slots=True)
class Arguments:
    """The values of each flag, in order; "" where it was given with none. ``unknown``: words that are no flag."""

    values: dict[str, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, words: Sequence[str]) -> "Arguments":
        """The words of a command line, taken apart; none of them is refused yet."""
        found = cls()
        for word in words:
            name, _, value = word.strip().lstrip("-").partition("=")
            name = SHORT.get(name, name) if word.startswith("-") and not word.startswith("--") else name
            if word.startswith("-") and name in FLAGS:
                found.values.setdefault(name, []).append(value)
            else:
                found.unknown.append(word)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, *names: str) -> str | None:
        """The value of the flag of one of these names, the last one given; None where there is none. Raises UsageError for ""."""
        given = [(name, value) for name in names for value in self.values.get(name, ())]
        if not given:
            return None
        name, value = given[-1]
        if not value:
            raise UsageError(f"--{name} has no value", hint=f"write --{name}={FLAGS[name].value}, in one word")
        return value

    def entries(self, name: str) -> str:
        """The values of a flag that holds a list, as one: given several times, their entries add up. Raises UsageError for ""."""
        return "" if self.text(name) is None else ",".join(self.values[name])

    def on(self, *names: str) -> bool:
        """Whether a flag of one of these names is given: with any value, as trtexec has it."""
        return any(name in self.values for name in names)

    def words_on_unknown(self) -> list[str]:
        """A line on each word that is no flag, and one with what may be meant."""
        return [line for word in self.unknown for line in (f"Unknown option: {_shown(word)}", f"hint: {_guess(word)}")]

    def warnings(self) -> list[str]:
        """What is to be said of flags that change nothing, that are given twice, and of values that do not count."""
        told = []
        for name, values in self.values.items():
            flag = FLAGS[name]
            if flag.fate is Fate.UNHEEDED:
                told.append(f"--{name} changes nothing: {flag.text}")
            elif not flag.value and any(value.lower() in ("false", "0", "off", "no") for value in values):
                told.append(f"--{name}={values[-1]} turns it on: a flag of this kind is on with any value")
            if flag.value and len(set(values)) > 1 and name not in ADDING_UP:
                told.append(f"--{name} is given {len(values)} times: the last one holds")
        if self.on("fp16") and self.on("bf16"):
            told.append("--bf16 changes nothing beside --fp16: one type of 16 bits is taken")
        if self.on("best") and self.on("fp16", "bf16", "int8", "fp8"):
            told.append("--fp16, --bf16, --int8 and --fp8 change nothing beside --best: all are permitted")
            return told
        if self.on("int8") and self.on("fp8"):
            told.append("--int8 changes nothing beside --fp8: one type of 8 bits is taken")
        if self.on("calib") and not self.on("int8", "fp8", "best"):
            told.append("--calib changes nothing without --int8, --fp8 or --best")
        if self.on("layerPrecisions") and not self.on("fp16", "bf16", "int8", "fp8", "best"):
            told.append("--layerPrecisions changes nothing without --fp16, --bf16, --int8, --fp8 or --best")
        return told

    def expect_done(self) -> None:
        """Raises UsageError for flags that are refused, all of them in one go."""
        for name in ("memPoolSize", "workspace"):
            for value in self.values.get(name, ()):
                pool_sizes(name, value)
        refused = [FLAGS[name] for name in self.values if FLAGS[name].fate is Fate.REFUSED]
        if refused:
            reasons = dict.fromkeys(flag.text for flag in refused)
            told = [f"{' '.join(f'--{f.name}' for f in refused if f.text == why)}: {why}" for why in reasons]
            raise UsageError(told[0], details=told[1:], hint="leave them out" if len(refused) > 1 else "leave it out")


def _shown(word: str) -> str:
    name, _, value = word.partition("=")
    return f"{name} {value}".rstrip()


def _guess(word: str) -> str:
    if not word.startswith("-"):
        return "a flag has its value behind =, in one word"
    plain = word.lstrip("-").partition("=")[0]
    by_case = {name.lower(): name for name in FLAGS}
    close = by_case.get(plain.replace("-", "").replace("_", "").lower())
    if close is not None:
        return f"did you mean --{close}?"
    close = nearest(plain, list(FLAGS))
    return close.replace("mean ", "mean --") if close else "--help lists the flags"
