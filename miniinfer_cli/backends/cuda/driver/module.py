"""Compiled kernels on a device."""

from miniinfer_cli.backends.cuda.contract.cubin import Resources
from miniinfer_cli.backends.cuda.driver.handle import Handle, Owner
from miniinfer_cli.errors import DeviceError

_PLAIN_SHARED = 48 << 10  # dynamic shared memory that every kernel may use unasked


class Module(Handle):
    """The kernels of one cubin, loaded. It must outlive every launch and every graph with one of its kernels."""

    def __init__(self, device: Owner, cubin: bytes) -> None:
        """Use ``device.load``."""
        self.raw = device.call(device.driver.cuModuleLoadData, cubin)
        super().__init__(device, device.driver.cuModuleUnload, self.raw)

    def function(self, name: str) -> "Function":
        """The kernel of this name, which must be ``extern "C"``. Raises DeviceError when there is none."""
        return Function(self, self._device, name)


class Function:
    """A kernel, loaded. ``raw`` is the CUfunction."""

    def __init__(self, module: Module, device: Owner, name: str) -> None:
        """Use ``module.function``."""
        driver = device.driver
        status, self.raw = driver.cuModuleGetFunction(module.raw, name.encode())
        if status:
            raise device.fault(status, "cuModuleGetFunction").at(f"kernel {name}")
        # The driver loads code at its first use otherwise, and that cannot be captured.
        device.call(driver.cuFuncLoad, self.raw)
        self.module = module  # which stays loaded as long as the kernel is held
        self.name = name
        self._device = device
        self._allowed = _PLAIN_SHARED

    @property
    def resources(self) -> Resources:
        """What it takes, as the driver has it."""
        return Resources(self._attribute("NUM_REGS"), self._attribute("LOCAL_SIZE_BYTES"), self.shared_nbytes)

    @property
    def shared_nbytes(self) -> int:
        """Static shared memory of a block."""
        return self._attribute("SHARED_SIZE_BYTES")

    def allow_shared(self, nbytes: int) -> None:
        """Lets launches ask for ``nbytes`` of dynamic shared memory; needed above 48 KiB.

        Raises DeviceError when that, with the static part, is more than a block can have.
        """
        if nbytes <= self._allowed:
            return
        most = self._device.shared_nbytes - self.shared_nbytes
        if nbytes > most:
            raise DeviceError(f"kernel {self.name}: {nbytes} bytes of shared memory needed, {most} can be had")
        kind = self._device.driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._device.call(self._device.driver.cuFuncSetAttribute, self.raw, kind, nbytes)
        self._allowed = nbytes

    def _attribute(self, name: str) -> int:
        kind = getattr(self._device.driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{name}")
        return int(self._device.call(self._device.driver.cuFuncGetAttribute, kind, self.raw))
