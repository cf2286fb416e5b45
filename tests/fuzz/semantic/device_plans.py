"""Plans on a device: kernels and tactic records for the emulated GPU stand in their target sections, edited like all others."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from engine_format import StoredKernel, TacticRecord, TargetGpu, TargetSection, read_plan, write_plan
from engine_format.signing import sign
from engine_format.targets import OpaqueValue
from miniinfer_cli.backends.cuda.choice.deciding import emitted
from miniinfer_cli.backends.cuda.choice.makers import maker_of
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.target_sections import read_stored, source_digest
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tuning.candidates import collect_sites
from miniinfer_cli.devices import opening
from miniinfer_cli.devices.placement import optimal_types
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.thaw import thaw
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.engine import load_emulated
from tests.fuzz.semantic import seeds
from tests.fuzz.semantic.plans import edited

_KEY_NBYTES = 32
_MOST_KERNELS = 4
_GPU = TargetGpu(EmulatedDevice.name, EmulatedDevice.multiprocessors, EmulatedDevice.l2_nbytes)
_OPAQUE: tuple[Mapping[str, OpaqueValue], ...] = (
    *({}, {}, {}, {"algorithm": bytes(64)}, {"algorithm": -1}, {"engine": 2**62, "knobs": {"": -1}, "plan": b""}),
)
_ARCHS = ("sm_90", "sm_90", "sm_90", "sm_80", "sm_100", "sm_90a", "gfx90a", "")


def edited_device_plan(rng: random.Random, kept: Path, folder: Path) -> tuple[bytes, list[str]]:
    """The file of a plan with target sections, edited, and the flags of ``run`` that say whom to trust.

    ``folder`` gets the key that some sections are signed with.
    """
    key = rng.randbytes(_KEY_NBYTES)
    (folder / "key").write_bytes(key.hex().encode())
    (folder / "key").chmod(0o600)
    path = folder / "sound.plan"
    path.write_bytes(seeds.sound_plan(rng, kept))
    with read_plan(path) as plan:
        changed = plan
        for _ in range(rng.choice((0, 1, 1, 2))):
            section = TargetSection(rng.choice(_ARCHS), {"nvrtc": "12.9"}, kernels=_kernels(rng, plan))
            if rng.random() < 0.5:
                section = replace(section, arch="sm_90", gpu=_GPU, records=_records(rng, plan, len(section.kernels)))
            changed = changed.with_target(sign(section, key) if rng.random() < 0.5 else section)
        write_plan(changed, folder / "with_sections.plan")
    trust = ["--trust-targets", rng.choice(("auto", "always", "never"))]
    trust += ["--trust-key", "key"] if rng.random() < 0.5 else []
    return edited(rng, (folder / "with_sections.plan").read_bytes(), "targets" if rng.random() < 0.3 else "graph"), trust


def _kernels(rng: random.Random, plan: Any) -> tuple[StoredKernel, ...]:
    """Code that is none, for kernels that the plan asks for and for others."""
    kernels: Sequence[Kernel] = ()
    with contextlib.suppress(MiniinferError):
        graph = thaw(plan)
        kernels = make_program(graph, optimal_types(graph, {r.name: r for r in plan.ranges}), Target()).kernels[:_MOST_KERNELS]
    asked_for = [(k.name, source_digest(k)) for k in kernels]
    others = [("mi_other", hashlib.sha256(rng.randbytes(4)).hexdigest()[:40])]
    return tuple(StoredKernel(name, source, rng.randbytes(rng.choice((0, 1, 300)))) for name, source in (*asked_for, *others))


def _records(rng: random.Random, plan: Any, kernels: int) -> tuple[TacticRecord, ...]:
    """Records of what the plan's nodes compute: of tactics that they have, right and wrong ones."""
    found: dict[str, TacticRecord] = {}
    target = Target(multiprocessors=_GPU.multiprocessors)
    with contextlib.suppress(MiniinferError):
        graph = thaw(plan)
        for site in collect_sites(graph, optimal_types(graph, {r.name: r for r in plan.ranges}), target, lambda c: True):
            tactic = rng.choice(site.offered)
            maker = maker_of(tactic, emitted(tactic), target) if rng.random() < 0.8 else "somebody"
            key = tactic.key if rng.random() < 0.8 else rng.choice(("", "gemm 64x64", "cublaslt", "\x1b[31m", "x" * 5000))
            claims = tactic.claims if rng.random() < 0.9 else rng.choice((None, 1, 2**62))
            launched = tuple(rng.randrange(kernels) for _ in range(rng.choice((0, 1, 3))))
            found[site.signature] = TacticRecord(
                site.signature, key, maker, rng.choice(_OPAQUE), rng.choice((0, 2**40)), launched, rng.choice((None, 0.0, 1e300)),
                claims=claims,
            )  # fmt: skip
    return tuple(found.values())


class _Functions(EmulatedFunctions):
    """Reads what a plan holds of a kernel, as a device would, and compiles the kernel all the same."""

    def __init__(self) -> None:
        super().__init__()
        self._stored: Mapping[str, StoredKernel] = {}

    def use_stored(self, kernels: Any) -> None:
        self._stored = kernels

    def prepare(self, kernels: Sequence[Kernel]) -> None:
        for kernel in kernels:
            stored = self._stored.get(source_digest(kernel))
            if stored is not None:
                read_stored(stored)
        super().prepare(kernels)


@contextlib.contextmanager
def emulated_devices() -> Iterator[None]:
    """While it lasts, a device of any name is an emulated one of its own."""

    def load(graph: Graph, *others: Any) -> CudaModel:
        return load_emulated(EmulatedDevice(), functions=_Functions())(graph, *others)

    with mock.patch.object(opening, "load_model", load):
        yield
