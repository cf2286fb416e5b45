"""What is worth trying for a run, and what became of it: an advice is what was measured to help."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from miniinfer_cli.diagnosis.bounds import Run
from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.findings import WORTH_TELLING, Advice, Gain, Kind
from miniinfer_cli.diagnosis.lint import FULL_LEVEL, few
from miniinfer_cli.wording import Wording

LEAST_PAIRS = 3
"""Comparisons without which nothing is claimed."""
_AGREED = 0.1  # part of the time between the fastest without a change and the slowest with it, at least
_ALIKE = 0.3  # part of the gain in the middle by which others may differ from it and be like it
_LARGE_INPUT = 1 << 16  # bytes from which on an input is worth a smaller type
_BUSY_MS = 0.02  # that a layer takes where a GPU is kept busy; shorter ones gain by more at once
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
    """What is worth trying: what promises most for the least time first.

    That is smaller types where a GPU is kept busy; elsewhere what takes another set of weights comes last.
    """
    load, types = _of_the_load(run, kind, situation), _of_the_sizes_and_types(run, kind, situation)
    is_busy = run.on_gpu and kind is not Kind.LAUNCH and run.wall_ms >= _BUSY_MS * len(run.layers)
    return [
        *_of_the_device(run, kind, situation),
        *_of_the_build(situation),
        *((*types, *load) if is_busy else (*load, *types)),
    ]


def advice_of(trial: Trial, pairs: Sequence[tuple[float, float]], wall_ms: float | None = None) -> Advice | None:
    """The advice for a change, from milliseconds of an inference without it and with it, measured in turn.

    None where there are less than three comparisons whose gains are within 30 % of that in the middle; where it gains less than
    15 % in the middle; and where the slowest time with it is not 10 % below the fastest without it. ``wall_ms``: what an
    inference took in the run: the gain is that part of it. Without it, it is of the comparisons themselves.
    """
    if len(pairs) < LEAST_PAIRS or _gain((min(b for b, _ in pairs), max(a for _, a in pairs))) < _AGREED:
        return None
    gains = list(map(_gain, pairs))
    middle = statistics.median(gains)
    if sum(abs(gain - middle) <= _ALIKE * middle for gain in gains) < LEAST_PAIRS:
        return None
    kept = 1 - middle
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


def _of_the_device(run: Run, kind: Kind, s: Situation) -> list[Trial]:
    if not run.on_gpu:
        if s.threads < s.processors and kind is not Kind.HOST_STEP:
            return [_threads(s.processors, f"compute with all {s.processors} processors")]
        if s.threads > 1 and kind in (Kind.LAUNCH, Kind.BALANCED):
            return [_threads(1, "compute with one thread: the steps are too small to be shared")]
        return []
    switches = (
        ("CUDA graph", "cuda_graph", s.cuda_graph, "replay one captured graph: one launch for an inference"),
        ("overlap", "overlap", s.overlap, "let copies run beside the computation"),
        ("dependent launches", "pdl", s.pdl, "let kernels begin before those in front of them have ended"),
    )
    found = []
    for name, option, is_on, what in switches:
        if not is_on:
            dashed = option.replace("_", "-")
            leave_out = Wording(f"load(plan, {option}=True)", flags=f"leave --no-{dashed} out")
            found.append(Trial(name, Change(options={option: True}), what, leave_out, "run", flags={f"--no-{dashed}": False}))
    wide = tuple(name for name, nbytes in s.wide_inputs.items() if nbytes >= _LARGE_INPUT)
    if kind is Kind.TRANSFER and wide:
        what = f"give {', '.join(wide)} as uint8, and convert on the device: a quarter of the bytes"
        how = "in the model: an input of uint8, and Cast (with scale and offset) behind it"
        note = "where values are pixels, or other whole numbers up to 255"
        found.append(Trial("uint8 input", Change(uint8=wide), what, how, note=note, names=wide))
        what = "write inputs where the device reads them: nothing is copied on the host"
        how = "context.pinned_buffer(name), filled and given as the input"
        note = "compared with arrays of the caller's own, one inference at a time"
        found.append(Trial("pinned input", Change(pinned=True), what, how, note=note))
    return found


def _of_the_build(s: Situation) -> list[Trial]:
    found = []
    low, disabled = s.opt_level < FULL_LEVEL, sorted(s.disabled)
    if low or disabled:
        level = max(s.opt_level, FULL_LEVEL)
        what = "build the plan with all passes: they fuse what stands apart"
        how = Wording(
            f"build(model, opt_level={level})",
            flags=f"miniinfer build --opt-level {level}" + (f", without --disable-pass {' '.join(disabled)}" if disabled else ""),
        )
        found.append(
            Trial(
                *("all passes", Change(full=True), what, how, "build"),
                flags={**({"--opt-level": str(level)} if low else {}), **({"--disable-pass": False} if disabled else {})},
            )
        )
    if s.inner_outputs:
        what = f"leave the output{'s' * (len(s.inner_outputs) > 1)} {few(s.inner_outputs)} out: they keep work from being fused"
        how = Wording(
            "take them off the model's outputs, or off mark_outputs",
            flags="take them off the model's outputs, or off --mark-outputs",
        )
        found.append(Trial("without inner outputs", Change(without=s.inner_outputs), what, how, names=s.inner_outputs))
    return found


def _of_the_load(run: Run, kind: Kind, s: Situation) -> list[Trial]:
    found = []
    if s.batch is not None and kind is not Kind.TRANSFER:
        batch = s.batch * _BATCH if s.most_batch is None else min(s.batch * _BATCH, s.most_batch)
        if batch > s.batch:
            how = Wording(
                f"inputs of {batch} samples",
                flags=f"--batch {batch}" + (f" --batch-dim {s.batch_dim}" if s.batch_dim is not None else ""),
            )
            note = f"times are of {s.batch} of the {batch} samples; each inference takes longer"
            found.append(
                Trial(
                    *(f"batch {batch}", Change(batch=batch, was=s.batch), f"compute {batch} samples at a time", how, "run"),
                    flags={"--batch": str(batch), **({"--batch-dim": s.batch_dim} if s.batch_dim is not None else {})},
                    note=note,
                )
            )
    if run.streams > 1:
        return found
    note = "throughput rises; each inference takes longer"
    if not run.on_gpu and s.threads > 1:
        each = s.threads // 2
        change = Change(streams=2, options={"threads": each})
        what = f"run two inferences at once, each with {each} thread{'s' * (each > 1)}, which wait for each other less"
        how = Wording(f"two contexts of load(plan, threads={each})", flags=f"--streams 2 --threads {each}")
        name = "2 streams, fewer threads"
        found.append(Trial(name, change, what, how, "run", flags={"--streams": "2", "--threads": str(each)}, note=note))
    elif run.on_gpu or s.threads < s.processors:
        how = Wording("a context for each of two threads", flags="--streams 2")
        what = "run two inferences at once"
        found.append(Trial("2 streams", Change(streams=2), what, how, "run", flags={"--streams": "2"}, note=note))
    return found


def _of_the_sizes_and_types(run: Run, kind: Kind, s: Situation) -> list[Trial]:
    found = []
    if run.on_gpu and not s.tf32 and s.f32_products:
        what = "let tensor cores compute f32 products (TF32: operands rounded to 11 bits)"
        note = "results change in the fourth digit"
        how = Wording("build(model, tf32=True)", flags="miniinfer build without --no-tf32")
        found.append(Trial("TF32", Change(tf32=True), what, how, "build", flags={"--no-tf32": False}, note=note))
    if s.fixable:
        what = "fix the sizes that are always the same: passes then do what open sizes forbid"
        how = Wording(
            "build(model, shapes=...), of the sizes of this run", flags="miniinfer build --shapes with the sizes of this run"
        )
        found.append(Trial("fixed sizes", Change(fixed=True), what, how, "build"))
    if run.on_gpu and s.f32_products and kind not in (Kind.TRANSFER, Kind.HOST_STEP):
        what = "compute in f16: half the bytes, and tensor cores at twice the rate"
        note = "results are rounded to 11 bits; verify them"
        how = Wording("build(model, precision='f16')", flags="miniinfer build --fp16")
        found.append(Trial("f16", Change(half=True), what, how, "build", flags={"--fp16": True}, note=note))
    return found


def _threads(count: int, what: str) -> Trial:
    name = f"{count} thread{'s' * (count > 1)}"
    how = Wording(f"load(plan, threads={count})", flags=f"--threads {count}")
    return Trial(name, Change(options={"threads": count}), what, how, "run", flags={"--threads": str(count)})
