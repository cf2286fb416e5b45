"""Which GPUs a kernel is for, and that compiler, caches, plans and tests heed it."""

import struct
from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.contract.architectures import compiler_options, is_for
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver.kernel_cache import CacheCounts, KernelCache
from miniinfer_cli.backends.cuda.loading.target_sections import source_digest, sources_of
from tests.emulation.architectures import compile_for, fitting_architectures
from tests.emulation.device import EmulatedFunctions

TEXT = """extern "C" __global__ void k(f32* y) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  y[0] = 90;
#else
  y[0] = 1;
#endif
}"""
ANY = Kernel("k", code=TEXT)
NEWER, ALONE = replace(ANY, arch="sm_90"), replace(ANY, arch="sm_90a")


def test_for_which_gpus():
    archs = (80, 89, 90, 100, 120)
    assert [a for a in archs if is_for("", a)] == list(archs)
    assert [a for a in archs if is_for("sm_90", a)] == [90, 100, 120]
    assert [a for a in archs if is_for("sm_90a", a)] == [90]
    assert (compiler_options(""), compiler_options("sm_90")) == ((), ())
    assert compiler_options("sm_90a") == ("--gpu-architecture=sm_90a",)


@pytest.mark.parametrize("text", ["90", "sm_90b", "sm_", "sm_90+", "compute_90", "sm_90A"])
def test_what_is_none(text: str):
    with pytest.raises(ValueError, match="is neither a GPU architecture and newer ones"):
        is_for(text, 90)


def test_one_alone_has_its_own_instructions_and_its_own_place_in_the_cache():
    assert compile_for(ALONE, 90) != compile_for(ANY, 90) == compile_for(NEWER, 90)
    cache = KernelCache(None)
    cache.compile_many([*sources_of([ALONE], 90), *sources_of([ANY], 90), *sources_of([NEWER], 90)], workers=1)
    assert cache.counts == CacheCounts(compiles=2, memory_hits=1)
    assert struct.unpack_from("<I", compile_for(NEWER, 100), 48)[0] >> 8 & 0xFF == 100


def test_a_kernel_that_was_chosen_for_another_gpu():
    with pytest.raises(ValueError, match="kernel k is for sm_90a, and was chosen for sm_100"):
        sources_of([ANY, ALONE], 100)
    with pytest.raises(ValueError, match="kernel k is for sm_90, and was chosen for sm_80"):
        sources_of([NEWER], 80)
    with pytest.raises(AssertionError, match="a kernel for another GPU"):
        EmulatedFunctions().prepare([replace(ANY, arch="sm_100")])
    EmulatedFunctions().prepare([ANY, NEWER, ALONE])


def test_stored_code_of_one_is_not_that_of_another():
    assert len({source_digest(k) for k in (ANY, NEWER, ALONE)}) == 3


def test_tests_compile_it_for_the_gpus_that_it_is_for():
    assert fitting_architectures(ANY) == (80, 90, 100)
    assert fitting_architectures(NEWER) == (90, 100) and fitting_architectures(ALONE) == (90,)
    assert fitting_architectures(NEWER, (80,)) == (90, 100)
    assert fitting_architectures(ALONE, (100,)) == (90,)
    assert fitting_architectures(ANY, (100,)) == (100,)
