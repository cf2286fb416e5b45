"""Modules and launches: parameters, sizes, shared memory, code for another architecture."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.cubin import read_resources
from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.errors import DeviceError
from tests.gpu.driver.kernels import KERNELS, read


def test_a_launch_with_mixed_parameters_is_reusable(device: Device, module: Module, stream: Stream):
    n = 1000
    sizes = np.array([n, 3, -7], np.int32)
    with device.allocate(4 * n) as memory:
        address = np.uint64(memory.address)
        wider: list[np.generic] = [np.int16(300), np.int64(1 << 20), np.float32(0.5)]
        parameters = pack_parameters([address, np.int8(-5), np.float64(0.25), sizes, *wider])
        expected = (-5 + 0.25 + 3 * np.arange(n) - 7 + 300 + (1 << 20) + 0.5).astype(np.float32)
        for _ in range(2):
            stream.fill(memory.address, 0xFF, 4 * n)
            stream.launch(module.function("mix"), (8,), (128,), 0, parameters)
            np.testing.assert_array_equal(read(stream, memory.address, n, np.float32), expected)


def test_grid_and_block_have_three_sizes(device: Device, module: Module, stream: Stream):
    with device.allocate(4 * 24 * 60) as memory:
        stream.launch(module.function("place"), (2, 3, 4), (3, 4, 5), 0, pack_parameters([np.uint64(memory.address)]))
        expected = 1000 * np.arange(24)[:, None] + np.arange(60)
        np.testing.assert_array_equal(read(stream, memory.address, 24 * 60, np.int32), expected.ravel())


def test_large_shared_memory_must_be_asked_for(device: Device, stream: Stream):
    module = device.load(compile_kernel(KERNELS, "kernels", device.arch, {}).code)
    function, n = module.function("reverse"), device.shared_nbytes // 4
    values = np.arange(n, dtype=np.int32)
    with module, device.allocate(values.nbytes) as memory:
        stream.copy_to_device(memory.address, values.ctypes.data, values.nbytes)
        parameters = pack_parameters([np.uint64(memory.address), np.int32(n)])
        with pytest.raises(
            DeviceError, match=r"^kernel reverse \(grid 1x1x1, block 256x1x1, \d+ bytes shared\): cuLaunchKernel failed"
        ):
            stream.launch(function, (1,), (256,), 4 * n, parameters)
        function.allow_shared(4 * n)
        stream.launch(function, (1,), (256,), 4 * n, parameters)
        np.testing.assert_array_equal(read(stream, memory.address, n, np.int32), values[::-1])
        with pytest.raises(DeviceError, match=f"{4 * n + 4} bytes of shared memory needed, {4 * n} can be had"):
            function.allow_shared(4 * n + 4)


def test_the_driver_says_of_a_function_what_its_code_says(device: Device):
    text = """
    extern "C" __global__ void plain(float* x, int n) { x[n] = 0; }
    extern "C" __global__ void local(float* x, int n) {
      __shared__ float s[100];
      float a[80];
      for (int i = 0; i < 80; i++) a[i] = x[i * n] * i;
      for (int i = 0; i < 80; i++) a[(i * n) % 80] += a[i];
      s[threadIdx.x % 100] = a[n % 80];
      __syncthreads();
      x[threadIdx.x] = s[n];
    }
    """
    code = compile_kernel(text, "kernels", device.arch, {}).code
    with device.load(code) as module:
        told = {name: module.function(name).resources for name in ("plain", "local")}
    assert told == {name: read_resources(code, name) for name in told}
    assert told["plain"].shared_nbytes == told["plain"].local_nbytes == 0
    assert told["local"].shared_nbytes == 400 and told["local"].local_nbytes >= 320


def test_a_function_that_is_not_there(module: Module):
    with pytest.raises(DeviceError, match=r"^kernel absent: cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND \(500\)"):
        module.function("absent")


def test_code_for_another_architecture_is_refused_with_a_way_out(device: Device):
    other = 80 if device.arch >= 90 else 90
    with pytest.raises(
        DeviceError, match=r"^cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU \(209\)(.|\n)*another architecture"
    ):
        device.load(compile_kernel(KERNELS, "kernels", other, {}).code)
