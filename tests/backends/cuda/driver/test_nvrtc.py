"""Kernels compile with no GPU, for any architecture; what does not compile is shown with the compiler's words."""

import ctypes
import re
import struct

import pytest

from miniinfer_cli.backends.cuda.driver import nvrtc
from miniinfer_cli.backends.cuda.driver.libraries import nvrtc_wheel
from miniinfer_cli.backends.cuda.driver.nvrtc import (
    CompiledKernel,
    KernelCompileError,
    compile_kernel,
    compile_options,
    nvrtc_version,
)
from miniinfer_cli.errors import DeviceError

KERNEL = (
    'extern "C" __global__ void twice(float* x, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] *= 2; }'
)


def architecture_of(cubin: bytes) -> int:
    """The architecture, in bits 8 to 15 of the flags in the ELF header of CUDA 13."""
    assert cubin[:4] == b"\x7fELF"
    return struct.unpack_from("<I", cubin, 48)[0] >> 8 & 0xFF


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_a_kernel_compiles_for_an_architecture(arch: int):
    cubin = compile_kernel(KERNEL, "twice", arch, {}).code
    assert architecture_of(cubin) == arch
    assert b"twice" in cubin


def test_the_version_is_that_of_the_wheel():
    assert nvrtc_version()[0] == 13
    assert nvrtc_version() == tuple(map(int, (nvrtc_wheel() or "0.0").split(".")[:2]))


def test_headers_and_options_reach_the_compiler():
    check = "static_assert(SIZE == 7 && MI_MORE == 2);"
    text = f'#include "sizes.h"\nextern "C" __global__ void fill(int* x) {{ x[0] = SIZE + MI_MORE; {check} }}'
    assert compile_kernel(text, "fill", 90, {"sizes.h": "#define SIZE 7\n"}, ["-DMI_MORE=2"]).code
    with pytest.raises(KernelCompileError, match="static assertion failed"):
        compile_kernel(text, "fill", 90, {"sizes.h": "#define SIZE 8\n"}, ["-DMI_MORE=2"])
    with pytest.raises(KernelCompileError, match=r'cannot open source file "sizes.h"'):
        compile_kernel(text, "fill", 90, {})


def test_it_is_cpp_17():
    text = "template <typename T> __device__ int f(T) { if constexpr (sizeof(T) == 4) return 1; else return 2; }\n"
    assert compile_kernel(text + 'extern "C" __global__ void k(int* x) { x[0] = f(1.0f); }', "k", 80, {}).code


def test_an_architecture_among_the_options_wins():
    assert [o for o in compile_options(90, ["--gpu-architecture=sm_90a"]) if "arch" in o] == ["--gpu-architecture=sm_90a"]
    assert architecture_of(compile_kernel(KERNEL, "twice", 80, {}, ["-arch=sm_90a"]).code) == 90


def test_a_fault_is_shown_with_the_line_and_the_log():
    text = 'extern "C" __global__ void k(float* x) {\n  x[0] = missing;\n  y = 1;\n}\n'
    with pytest.raises(KernelCompileError) as raised:
        compile_kernel(text, "k", 90, {})
    error = raised.value
    assert isinstance(error, DeviceError)
    first, *hint = str(error).split("\n")
    assert first == 'kernel k: k.cu(2): error: identifier "missing" is undefined'
    assert hint[0] == "  hint: the compiler's log:"
    assert 'k.cu(3): error: identifier "y" is undefined' in str(error)
    assert error.log.count("error: identifier") == 2 and "\0" not in error.log
    assert error.text == text


def test_a_file_s_name_stays_as_it_is():
    with pytest.raises(KernelCompileError, match=r"^kernel sort\.cu: sort\.cu\(1\): error:"):
        compile_kernel("wrong;", "sort.cu", 90, {})


def test_a_long_log_is_cut_in_the_hint_and_whole_beside_it():
    text = "".join(f"__device__ int f{number}() {{ return missing{number}; }}\n" for number in range(30))
    with pytest.raises(KernelCompileError) as raised:
        compile_kernel(text, "k", 90, {})
    assert "more lines" in raised.value.hint and len(raised.value.hint.splitlines()) == 22
    assert raised.value.log.count("error:") == 30


def test_an_architecture_that_the_compiler_does_not_know():
    with pytest.raises(
        DeviceError, match=r"^kernel k: nvrtcCompileProgram failed: NVRTC_ERROR_INVALID_OPTION(.|\n)*gpu-architecture"
    ):
        compile_kernel(KERNEL, "k", 9, {})


def test_a_program_is_destroyed_also_when_it_does_not_compile(monkeypatch: pytest.MonkeyPatch):
    library = nvrtc.load_nvrtc()
    alive = []

    def create(*arguments: object) -> tuple[object, ...]:
        alive.append(1)
        return original_create(*arguments)

    def destroy(*arguments: object) -> tuple[object, ...]:
        alive.pop()
        return original_destroy(*arguments)

    original_create, original_destroy = library.nvrtcCreateProgram, library.nvrtcDestroyProgram
    monkeypatch.setattr(library, "nvrtcCreateProgram", create)
    monkeypatch.setattr(library, "nvrtcDestroyProgram", destroy)
    compile_kernel(KERNEL, "k", 90, {})
    with pytest.raises(KernelCompileError):
        compile_kernel("syntax error", "k", 90, {})
    assert alive == []


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    def missing() -> None:
        raise RuntimeError('Failure finding "libnvrtc.so"\nand more')

    missing.__name__ = "nvrtcVersion"
    monkeypatch.setattr(nvrtc.load_nvrtc(), "nvrtcVersion", missing)
    nvrtc_version.cache_clear()
    try:
        with pytest.raises(DeviceError) as raised:
            compile_kernel(KERNEL, "k", 90, {})
    finally:
        nvrtc_version.cache_clear()
    assert str(raised.value) == (
        "NVRTC is not found: Failure finding \"libnvrtc.so\"\n  hint: pip install 'nvidia-cuda-nvrtc>=13,<14'"
    )


def test_no_driver_is_loaded_for_it():
    # The test machine may have one; then there is nothing to see.
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert compile_kernel(KERNEL, "twice", 90, {}).code


SHARING = """extern "C" __global__ void reverse(float* x) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[63 - threadIdx.x];
}"""


def test_what_the_compiler_says_is_kept():
    made = compile_kernel(SHARING, "reverse", 90, {})
    assert "Compiling entry function 'reverse' for 'sm_90'" in made.log and "time" not in made.log
    found = re.fullmatch(r"(\d+) registers, 0 bytes spilled, 256 bytes of shared memory", made.resources)
    assert found is not None and 4 <= int(found[1]) <= 40
    assert compile_kernel(SHARING, "reverse", 90, {}) == made
    assert CompiledKernel(b"", "").resources == ""


def test_spills_are_told():
    loads = "".join(f"float a{i} = x[{i} * n];" for i in range(64))
    wide = loads + "__syncthreads();" + "".join(f"x[{i}] = a{63 - i};" for i in range(64))
    text = f'extern "C" __global__ void __launch_bounds__(1024, 2) wide(float* x, int n) {{ {wide} }}'
    assert " 0 bytes spilled" not in compile_kernel(text, "wide", 90, {}).resources


# Accumulators that are read before the product is waited for.
SERIALIZED = """extern "C" __global__ void __launch_bounds__(128) product(float* x, unsigned long long d, int n) {
  float a[4] = {0, 0, 0, 0};
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int i = 0; i < n; i++) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
                 : "+f"(a[0]), "+f"(a[1]), "+f"(a[2]), "+f"(a[3]) : "l"(d), "l"(d));
    a[0] += x[i];
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; i++) x[threadIdx.x * 4 + i] = a[i];
}"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SERIALIZED, "wgmma.mma_async instructions are serialized"),
        (
            'extern "C" __global__ void k(int* x) { asm volatile("setmaxnreg.inc.sync.aligned.u32 232;"); x[threadIdx.x] = 1; }',
            "'setmaxnreg' ignored",
        ),
    ],
)
def test_tensor_cores_that_wait_for_each_other_fail_the_build(text: str, why: str):
    with pytest.raises(KernelCompileError, match=rf"^kernel slow: ptxas info .*Potential Performance Loss: {why}") as raised:
        compile_kernel(text, "slow", 90, {}, ["--gpu-architecture=sm_90a"])
    assert why in raised.value.log


@pytest.mark.parametrize("number", ["C7508", "C7510", "C7518"])
def test_the_numbers_alone_are_enough(number: str):
    assert nvrtc._SLOW.search(f"ptxas info    : ({number}) something is lost in function 'k'")
    assert not nvrtc._SLOW.search("ptxas info    : (C7517) wgmma.wait_group is injected in around line 61 by compiler")
