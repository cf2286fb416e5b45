"""A process that opens a plan, and measures segments of it when it is told to: ``python -m`` this module.

It reads a Job from its standard input, then requests, each answered by one line on its standard output, and ends with its input.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack
from typing import IO

from miniinfer_cli.comparison.messages import described, read_job, write_line
from miniinfer_cli.comparison.processors import stay_on
from miniinfer_cli.devices.opening import load
from miniinfer_cli.measuring.segments import Rig
from miniinfer_cli.plugins import load_plugins

_MOST_LATENCIES = 512  # of a segment, that are told: evenly among the sorted ones


def main() -> None:
    """Serves until the input ends. A fault that a user may see is an answer; a bug is a traceback on standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes: who started this one ends it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints is no answer
    try:
        _serve(sys.stdin.buffer, answers)
    except (EOFError, BrokenPipeError):
        pass  # who started this one is gone
    except BaseException as error:
        write_line(answers, described(error))


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    job = read_job(requests)
    load_plugins(job.plugins)
    with load(job.plan, job.device, job.options) as engine, ExitStack() as stack:
        rigs = []
        for feeds in job.feeds:
            rig = stack.enter_context(Rig(engine, engine.check(feeds), streams=job.streams, transfers=job.transfers))
            rig.warm_up(job.warmup_s / len(job.feeds))
            rigs.append(rig)
        times_ms = [rig.segment(0.0).time_ms for rig in rigs]
        write_line(answers, {"device": engine.device, "times_ms": times_ms, "cpu_s": time.process_time()})
        for line in requests:
            if line == b"state\n":
                write_line(answers, {"state": engine.model.state()})
                continue
            if line.startswith(b"stay "):
                stay_on([int(cpu) for cpu in line[5:].split(b",")])
                for rig in rigs:
                    rig.segment(0.0)  # what it finds cold there is not measured
                write_line(answers, {"cpu_s": time.process_time()})
                continue
            case, seconds = line.split()
            measured = rigs[int(case)].segment(float(seconds))
            latencies = _few(measured.latencies_ms)
            write_line(answers, {"time_ms": measured.time_ms, "latencies_ms": latencies, "cpu_s": time.process_time()})


def _few(latencies: tuple[float, ...]) -> list[float]:
    """All of them, or as many as are told: each stands for as many neighbours in order."""
    ordered: list[float] = sorted(latencies)
    if len(ordered) <= _MOST_LATENCIES:
        return ordered
    return [ordered[(2 * i + 1) * len(ordered) // (2 * _MOST_LATENCIES)] for i in range(_MOST_LATENCIES)]


if __name__ == "__main__":
    main()
