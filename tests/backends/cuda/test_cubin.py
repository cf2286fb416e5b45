"""What is read in compiled code is what the compiler said; any bytes can be read."""

import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.backends.cuda.contract.cubin import Resources, read_resources
from miniinfer_cli.backends.cuda.driver.nvrtc import CompiledKernel, compile_kernel

TEXT = """
extern "C" __global__ void plain(float* x, int n) { x[n] = 0; }
extern "C" __global__ void shared(float* x, int n) {
  __shared__ int s[7];
  s[threadIdx.x] = n;
  __syncthreads();
  x[n] = s[3];
}
extern "C" __global__ void __launch_bounds__(1024, 2) local(float* x, int n) {
  __shared__ float s[100];
  float a[80];
  for (int i = 0; i < 80; i++) a[i] = x[i * n] * i;
  for (int i = 0; i < 80; i++) a[(i * n) % 80] += a[i];
  s[threadIdx.x % 100] = a[n % 80];
  __syncthreads();
  x[threadIdx.x] = s[n];
}
"""
SAID = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?", re.DOTALL
)


@cache
def compiled(arch: int) -> CompiledKernel:
    return compile_kernel(TEXT, "kernels", arch, {})


@pytest.mark.parametrize("arch", [80, 89, 90, 100, 120])
def test_the_code_says_what_the_compiler_said(arch: int):
    made = compiled(arch)
    said = {name: Resources(int(r), int(frame), int(smem or 0)) for name, frame, r, smem in SAID.findall(made.log)}
    assert {name: read_resources(made.code, name) for name in said} == said
    assert sorted(said) == ["local", "plain", "shared"]
    assert said["local"].local_nbytes >= 320 and said["local"].shared_nbytes == 400


def test_a_kernel_that_is_not_there():
    assert read_resources(compiled(90).code, "other") is None


@pytest.mark.parametrize("code", [b"", b"\x7fELF", b"code", b"\x7fELF\x02\x01\x01\x33" + bytes(100)])
def test_other_bytes_say_nothing(code: bytes):
    assert read_resources(code, "k") is None


@given(st.data())
def test_damaged_code_raises_nothing(data: st.DataObject):
    code = bytearray(compiled(90).code)
    for place in data.draw(st.lists(st.integers(0, 63) | st.integers(0, len(code) - 1), max_size=8)):
        code[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(code)) | st.just(len(code)))
    found = read_resources(bytes(code[:length]), "local")
    assert found is None or isinstance(found, Resources)
