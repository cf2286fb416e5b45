"""Kernels in a plan's target sections: compiled at the build, with no GPU, and taken where the plan is opened."""

import contextlib
import hashlib
import itertools
from collections.abc import Mapping, Sequence

from engine_format import PlanError, StoredKernel, TargetSection
from miniinfer_cli.backends.cuda.codegen.sources import headers, kernel_text
from miniinfer_cli.backends.cuda.contract.architectures import compiler_options, is_for
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache, KernelSource
from miniinfer_cli.backends.cuda.driver.nvrtc import nvrtc_version
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.making.sizes import other_sizes
from miniinfer_cli.errors import MiniinferError, PlanFileError
from miniinfer_cli.ir import Graph, Type


def source_digest(kernel: Kernel) -> str:
    """What says that stored code was compiled from just this kernel: a digest of its text, its name and the headers."""
    digest = hashlib.sha256()
    architecture = (kernel.arch,) if kernel.arch else ()
    for part in (*architecture, kernel.name, kernel_text(kernel), *(p for item in sorted(headers().items()) for p in item)):
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:40]


def compile_section(graphs: Sequence[Graph], inputs: Sequence[Type | None], arch: int) -> TargetSection:
    """The kernels that branched graphs need at these input types, and at a ladder of other sizes, on ``sm_ARCH``.

    With and without NVIDIA's libraries, since the plan does not know what it will find.

    Takes no GPU. Raises KernelCompileError, ModelError when the shapes do not go through.
    """
    kernels: dict[Kernel, None] = {}
    for graph, libraries in itertools.product(graphs, (True, False)):
        target = Target(arch=arch, supports=lambda problem: True) if libraries else Target(arch=arch)
        kernels.update(dict.fromkeys(make_program(graph, inputs, target).kernels))
        for types in other_sizes(graph, inputs):
            with contextlib.suppress(MiniinferError):  # a size that the model does not take
                kernels.update(dict.fromkeys(make_program(graph, types, target).kernels))
    compiled = KernelCache(None).compile_many(sources_of(list(kernels), arch))
    stored = tuple(StoredKernel(k.name, source_digest(k), code) for k, code in zip(kernels, compiled, strict=True))
    return TargetSection(f"sm_{arch}", {"nvrtc": "{}.{}".format(*nvrtc_version())}, kernels=stored)


def sources_of(kernels: Sequence[Kernel], arch: int) -> list[KernelSource]:
    """What the compiler and its cache take, for ``sm_ARCH``. Raises ValueError for a kernel that is not for it."""
    for kernel in kernels:
        if not is_for(kernel.arch, arch):
            raise ValueError(f"kernel {kernel.name} is for {kernel.arch}, and was chosen for sm_{arch}")
    return [KernelSource(kernel_text(k), k.file or "generated.cu", arch, headers(), compiler_options(k.arch)) for k in kernels]


def stored_kernels(targets: Sequence[TargetSection], arch: int) -> tuple[Mapping[str, StoredKernel], tuple[str, ...]]:
    """The kernels for ``sm_ARCH`` by their sources' digests, and notes on sections that are for something else."""
    found: dict[str, StoredKernel] = {}
    foreign = []
    for section in targets:
        if section.arch == f"sm_{arch}":
            found |= {k.source: k for k in section.kernels}
        else:
            foreign.append(section.arch)
    if not foreign or found:
        return found, ()
    return found, (
        f"the plan holds kernels for {', '.join(foreign)}, and this GPU is sm_{arch}: they are compiled here at first use",
    )


def read_stored(kernel: StoredKernel) -> bytes:
    """The code. Raises PlanFileError when it is damaged."""
    try:
        return kernel.read()
    except PlanError as error:
        raise PlanFileError(str(error), hint=error.hint).at(error.path) from None
