"""One case: its files, its commands, what they ended with, and which promises that breaks."""

import contextlib
import os
import random
import re
import resource
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from miniinfer_cli.cli.main import _invoke
from miniinfer_cli.errors import CheckFailed
from tests.fuzz.semantic import oracle
from tests.fuzz.semantic.commands import commands_on_files
from tests.fuzz.semantic.device_plans import edited_device_plan, emulated_devices
from tests.fuzz.semantic.input_files import RUN, commands_on_inputs
from tests.fuzz.semantic.known import reason_of, reason_to_refuse
from tests.fuzz.semantic.models import edited_model
from tests.fuzz.semantic.plans import edited_plan
from tests.fuzz.semantic.runtime_server import RuntimeServer

KINDS = ("models", "plans", "device", "cli", "inputs")
SECONDS = 30.0
"""Processor time that building or opening may take."""
NBYTES = 2 << 30
"""Peak memory that it may take beyond what the process had."""
_VERIFIED_SHARE = 0.005  # it starts an interpreter; `oracle` compares all
_A_BUG = "this is a bug in"  # of what may fail without the command
_CAUSED = "The above exception was the direct cause of the following exception"
_FRAMES = 4
_NAMED = 6  # operations

_HINT = re.compile(r"(  |\[\S+\] \[E\] )hint: ")  # the latter is trtexec's


@dataclass
class Outcome:
    """What a case came to: the exit code of each command, and what was seen on the way.

    ``signature``: exception and innermost functions of a traceback, or the signal; "" where there is none. ``unhinted``: the
    error that ended without a hint. ``compared``: ONNX Runtime ran the model, too. ``difference``: from its answer;
    where that is not ours, ``excuse`` is the reason instead; ``operations``: what the differing outputs are computed by.
    """

    kind: str
    seed: int
    commands: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    peak_nbytes: int = 0
    signature: str = ""
    unhinted: str = ""
    compared: bool = False
    difference: str = ""
    excuse: str = ""
    operations: str = ""

    @property
    def broken(self) -> bool:
        """Whether a promise is broken; differences from ONNX Runtime have to be looked at first."""
        late = self.seconds > SECONDS or self.peak_nbytes > NBYTES
        return late or bool(self.signature or self.unhinted) or any(c not in range(7) for c in self.codes)

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def run_case(kind: str, seed: int, folder: Path, kept: Path, server: RuntimeServer) -> Outcome:
    """Runs a case in ``folder``, which must be there and empty; leaves its files there. ``kept`` is for plans to edit."""
    os.chdir(folder)
    rng = random.Random(f"{kind} {seed}")
    outcome = Outcome(kind, seed)
    commands = _commands(kind, rng, folder, kept)
    _reset_peak()
    before = _peak_nbytes()
    for command in commands:
        started = _processor_s()
        code, text = _captured(command, folder / "told", kind == "device")
        if command[0] != "run":  # which takes what the sizes of its inputs ask for
            outcome.seconds = max(outcome.seconds, _processor_s() - started)
            outcome.peak_nbytes = max(outcome.peak_nbytes, _peak_nbytes() - before)
        outcome.commands.append(command[0])
        outcome.codes.append(code)
        if code not in range(7) or _A_BUG in text:
            outcome.signature = signature_of(text)
        elif code and not _HINT.match(text.rstrip().rpartition("\n")[2]):
            outcome.unhinted = general(text.rstrip().rpartition("\n")[2]) or "nothing is told"
        if code == CheckFailed.exit_code and command[0] == "build":
            add_difference(outcome, folder / "m.onnx", unverified(text))
        if code:
            break
    if kind == "models" and outcome.codes == [0, 0]:
        answer = oracle.ask(server, folder / "m.onnx", folder / "m.plan", seed)
        outcome.compared = answer.compared
        add_difference(outcome, folder / "m.onnx", answer)
    return outcome


def unverified(text: str) -> oracle.Answer:
    """What ``build --verify`` tells of a difference when it fails; that nothing could be verified is none.

    The outputs are those that differ: none where the plan fails, for which there are reasons of their own.
    """
    told = re.search(r"the plan and \S.* differ: .*|the plan fails where .*", text)
    if told is None:
        return oracle.NOTHING
    outputs = () if "the plan fails where" in told[0] else tuple(re.findall(r"'([^']*)' by \S+ \(allowed", told[0]))
    return oracle.Answer(True, told[0], outputs)


def add_difference(outcome: Outcome, path: Path, answer: oracle.Answer) -> None:
    """Puts what the model's answer differs in into the outcome, or the reason why that is not ours."""
    if answer.difference:
        model = onnx.load(path, load_external_data=False)
        outputs = answer.outputs or [o.name for o in model.graph.output]
        outcome.operations = ", ".join(sorted({n.op_type for n in oracle.nodes_behind(model, outputs)})[:_NAMED])
        known = reason_of(model, answer.outputs, answer.feeds) if answer.outputs else reason_to_refuse(model)
        outcome.excuse = answer.reason or known
        outcome.difference = "" if outcome.excuse else answer.difference


def emptied(folder: Path) -> Path:
    """``folder`` with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _commands(kind: str, rng: random.Random, folder: Path, kept: Path) -> list[list[str]]:
    if kind == "models":
        (folder / "m.onnx").write_bytes(edited_model(rng)[1])
        level = rng.choice(("0", "2", "2"))
        verify = ["--verify"] if rng.random() < _VERIFIED_SHARE else []
        return [["build", "m.onnx", "-q", "--opt-level", level, *verify], ["run", "m.plan", *RUN]]
    if kind == "plans":
        (folder / "m.plan").write_bytes(edited_plan(rng, kept))
        return [["inspect", "m.plan", "-q"], ["run", "m.plan", *RUN]]
    if kind == "device":
        data, trust = edited_device_plan(rng, kept, folder)
        (folder / "m.plan").write_bytes(data)
        return [["inspect", "m.plan", "-q"], ["run", "m.plan", *RUN, "--device", "cuda:0", *trust]]
    if kind == "cli":
        return commands_on_files(rng, folder)
    return commands_on_inputs(rng, folder)


def _captured(command: list[str], told: Path, on_device: bool) -> tuple[int, str]:
    """Exit code and standard error of the command, run here; ``on_device``: every device is an emulated one."""
    with told.open("wb") as file:
        streams = [os.dup(1), os.dup(2)]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file.fileno(), 2)
        try:
            with emulated_devices() if on_device else contextlib.nullcontext():
                code = _invoke(command)
        except SystemExit as ended:  # a plugin's
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
    return code, told.read_text(errors="replace")


def signature_of(text: str) -> str:
    """Exception and innermost functions of the last traceback in ``text``, or of its cause: one for each way to fail."""
    text = text.partition(_CAUSED)[0]
    frames = re.findall(r'File "([^"]*)", line \d+,? in (\S+)', text)
    lines = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|Warning|Exit|Undecided)\b", line)]
    inner = " < ".join(f"{Path(file).name}:{name}" for file, name in frames[::-1][:_FRAMES])
    return f"{general(lines[-1].partition(':')[0]) if lines else 'no exception'} @ {inner or general(text[-200:])}"


def general(text: str) -> str:
    """``text`` without names and numbers, so that what is alike is equal."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|-?\d+", "_", text)[:160]


def _processor_s() -> float:
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_nbytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
