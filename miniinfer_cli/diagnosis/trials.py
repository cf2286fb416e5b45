"""What is worth trying for a run, and what became of it: an advice is what was measured to help."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from miniinfer_cli.diagnosis.bounds import Run
from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.findings import WORTH_TELLING, Advice, Gain, Kind
from miniinfer_cli.diagnosis.lint import FULL_LEVEL

LEAST_PAIRS = 3
"""Comparisons without which nothing is claimed."""
_AGREED = 0.1  # part of the time between the fastest without a change and the slowest with it, at least
_LARGE_INPUT = 1 << 16  # bytes from which on an input is worth a smaller type
_BATCH = 8  # times the batch of the run is tried


@dataclass(frozen=True, slots=True)
class Trial:
    """A change, and the advice that it becomes when it helps. ``name``: a word or two for it; the rest is as in Advice."""

    name: str
    change: Change
    what: str
    how: str
    command: Literal["build", "run"] | None = None
    flags: Mapping[str, str | bool] = field(default_factory=dict)
    note: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """What the run was like, beyond what was measured of it.

    ``threads``: that compute, of ``processors``. ``batch``: of the inputs where it can be another, up to ``most_batch`` (None is
    any).
    ``opt_level``, ``disabled``, ``tf32``: how the plan was built. ``inner_outputs``: outputs that keep work from being fused.
    ``fixable``: sizes that are open, though passes leave fewer nodes where they are fixed. ``wide_inputs``: names and bytes of
    inputs in floats. ``f32_products``: products and convolutions in f32.
    """

    cuda_graph: bool = True
    overlap: bool = True
    pdl: bool = True
    threads: int = 1
    processors: int = 1
    batch: int | None = None
    most_batch: int | None = None
    batch_dim: str | None = None
    opt_level: int = FULL_LEVEL
    disabled: Sequence[str] = ()
    tf32: bool = True
    inner_outputs: tuple[str, ...] = ()
    fixable: bool = False
    wide_inputs: Mapping[str, int] = field(default_factory=dict)
    f32_products: int = 0


def trials_for(run: Run, kind: Kind, situation: Situation) -> list[Trial]:
    """What is worth trying, the most likely to help first."""
    return [*_of_the_build(situation), *_of_the_device(run, kind, situation), *_of_the_load(run, kind, situation)]


def advice_of(trial: Trial, pairs: Sequence[tuple[float, float]], wall_ms: float | None = None) -> Advice | None:
    """The advice for a change, from milliseconds of an inference without it and with it, measured in turn.

    None where there are less than three comparisons; where it gains less than 15 % in the middle; and where the slowest time with
    it is not 10 % below the fastest without it, as chance has it. ``wall_ms``: what an inference took in the run: the gain is
    that part of it. Without it, it is of the comparisons themselves.
    """
    if len(pairs) < LEAST_PAIRS or _gain((min(b for b, _ in pairs), max(a for _, a in pairs))) < _AGREED:
        return None
    kept = 1 - statistics.median(map(_gain, pairs))
    if wall_ms is None:
        before = statistics.median(first for first, _ in pairs)
        gain = Gain(before, before * kept, "measured", "latency")
    else:
        gain = Gain(wall_ms, wall_ms * kept, "measured")
    if gain.share < WORTH_TELLING:
        return None
    return Advice(trial.what, trial.how, gain, trial.name, trial.command, trial.flags, trial.note, trial.names)


def is_hopeless(pair: tuple[float, float]) -> bool:
    """True when a first comparison says that further ones need not be made."""
    return _gain(pair) < _AGREED


def _gain(pair: tuple[float, float]) -> float:
    return 1 - pair[1] / pair[0] if pair[0] > 0 else 0.0


def _of_the_build(s: Situation) -> list[Trial]:
    found = []
    if s.opt_level < FULL_LEVEL or s.disabled:
        flags: dict[str, str | bool] = {}
        if s.opt_level < FULL_LEVEL:
            flags["--opt-level"] = str(FULL_LEVEL)
        if s.disabled:
            flags["--disable-pass"] = False
        without = f", without --disable-pass {' '.join(sorted(s.disabled))}" if s.disabled else ""
        how = f"miniinfer build --opt-level {max(s.opt_level, FULL_LEVEL)}{without}"
        found.append(
            Trial(
                "all passes",
                Change(full=True),
                "build the plan with all passes: they fuse what stands apart",
                how,
                "build",
                flags,
            )
        )
    if s.inner_outputs:
        named = ", ".join(s.inner_outputs[:3]) + (f" and {len(s.inner_outputs) - 3} more" if len(s.inner_outputs) > 3 else "")
        what = f"leave the output{'s' * (len(s.inner_outputs) > 1)} {named} out: they keep work from being fused"
        how = "take them off the model's outputs, or off --mark-outputs"
        found.append(Trial("without inner outputs", Change(without=s.inner_outputs), what, how, names=s.inner_outputs))
    if s.fixable:
        what = "fix the sizes that are always the same: passes then do what open sizes forbid"
        found.append(
            Trial("fixed sizes", Change(fixed=True), what, "miniinfer build --shapes with the sizes of this run", "build")
        )
    return found


def _of_the_device(run: Run, kind: Kind, s: Situation) -> list[Trial]:
    found = []
    if not run.on_gpu:
        if s.threads < s.processors and kind is not Kind.HOST_STEP:
            found.append(_threads(s.processors, f"compute with all {s.processors} processors"))
        elif s.threads > 1 and kind in (Kind.LAUNCH, Kind.BALANCED):
            found.append(_threads(1, "compute with one thread: the steps are too small to be shared"))
        return found
    switches = (
        ("CUDA graph", "cuda_graph", s.cuda_graph, "--no-cuda-graph", "replay one captured graph: one launch for an inference"),
        ("overlap", "overlap", s.overlap, "--no-overlap", "let copies run beside the computation"),
        ("dependent launches", "pdl", s.pdl, "--no-pdl", "let kernels begin before those in front of them have ended"),
    )
    for name, option, is_on, flag, what in switches:
        if not is_on:
            change = Change(options={option: True})
            found.append(Trial(name, change, what, f"leave {flag} out", "run", {flag: False}))
    if not s.tf32 and s.f32_products:
        what = "let tensor cores compute f32 products (TF32: operands rounded to 11 bits)"
        note = "results change in the fourth digit"
        found.append(
            Trial("TF32", Change(tf32=True), what, "miniinfer build without --no-tf32", "build", {"--no-tf32": False}, note)
        )
    wide = tuple(name for name, nbytes in s.wide_inputs.items() if nbytes >= _LARGE_INPUT)
    if kind is Kind.TRANSFER and wide:
        what = f"give {', '.join(wide)} as uint8, and convert on the device: a quarter of the bytes"
        how = "in the model: an input of uint8, and Cast (with scale and offset) behind it"
        note = "where values are pixels, or other whole numbers up to 255"
        found.append(Trial("uint8 input", Change(uint8=wide), what, how, note=note, names=wide))
        what = "write inputs where the device reads them: nothing is copied on the host"
        how = "context.pinned_buffer(name), filled and given as the input"
        found.append(
            Trial("pinned input", Change(pinned=True), what, how, note="compared with arrays of the caller's own, one at a time")
        )
    if s.f32_products and kind in (Kind.COMPUTE, Kind.MEMORY, Kind.BALANCED):
        what = "compute in f16: half the bytes, and tensor cores at twice the rate"
        how = "export the model in f16 (model.half())"
        found.append(Trial("f16", Change(half=True), what, how, note="results are rounded to 11 bits; verify them"))
    return found


def _of_the_load(run: Run, kind: Kind, s: Situation) -> list[Trial]:
    found = []
    if s.batch is not None and kind is not Kind.TRANSFER:
        batch = s.batch * _BATCH if s.most_batch is None else min(s.batch * _BATCH, s.most_batch)
        if batch > s.batch:
            flags: dict[str, str | bool] = {"--batch": str(batch)}
            if s.batch_dim is not None:
                flags["--batch-dim"] = s.batch_dim
            how = " ".join(("--batch", str(batch), *(("--batch-dim", s.batch_dim) if s.batch_dim is not None else ())))
            note = f"times are of {s.batch} of the {batch} samples; each inference takes longer"
            what = f"compute {batch} samples at a time"
            found.append(Trial(f"batch {batch}", Change(batch=batch, was=s.batch), what, how, "run", flags, note))
    if run.streams > 1:
        return found
    note = "throughput rises; each inference takes longer"
    if not run.on_gpu and s.threads > 1:
        each = s.threads // 2
        options = {"threads": each}
        what = f"run two inferences at once, each with {each} thread{'s' * (each > 1)}, which wait for each other less"
        flags = {"--streams": "2", "--threads": str(each)}
        how = f"--streams 2 --threads {each}"
        found.append(Trial("2 streams, fewer threads", Change(streams=2, options=options), what, how, "run", flags, note))
    elif run.on_gpu or s.threads < s.processors:
        found.append(
            Trial("2 streams", Change(streams=2), "run two inferences at once", "--streams 2", "run", {"--streams": "2"}, note)
        )
    return found


def _threads(count: int, what: str) -> Trial:
    change = Change(options={"threads": count})
    return Trial(f"{count} thread{'s' * (count > 1)}", change, what, f"--threads {count}", "run", {"--threads": str(count)})
