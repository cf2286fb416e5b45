"""From the number of a GPU to a model loaded on it. Nothing of CUDA is loaded before."""

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.driver.presence import FORKED, device_count, driver_fault, expect_gpu
from miniinfer_cli.backends.interface import DeviceOptions, LoadedModel
from miniinfer_cli.ir import Graph

__all__ = ["FORKED", "device_count", "driver_fault", "expect_gpu", "open_model"]


def open_model(graph: Graph, ordinal: int, options: DeviceOptions, *, tf32: bool) -> LoadedModel:
    """Loads ``graph`` on ``cuda:ordinal``. Raises DeviceError when there is no such device, OutOfMemoryError ..."""
    # Late: a run on the CPU pays for none of this.
    from miniinfer_cli.backends.cuda.driver.device import open_device
    from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
    from miniinfer_cli.backends.cuda.driver.nvtx import open_ranges
    from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
    from miniinfer_cli.backends.cuda.executing.context import ContextOptions
    from miniinfer_cli.backends.cuda.executing.functions import Functions
    from miniinfer_cli.backends.cuda.executing.libraries import Libraries
    from miniinfer_cli.backends.cuda.executing.model import CudaModel
    from miniinfer_cli.backends.cuda.tuning.stored import read_timing_cache

    device = open_device(ordinal)
    try:
        if options.scheduling != "auto":
            device.set_scheduling(options.scheduling)
        folder = options.cache
        kernels = KernelCache(None if folder is None else folder / "kernels", options.kernel_cache_mib << 20)
        tactics = TacticCache(None if folder is None else folder / "tactics", options.tactic_cache_mib << 20)
        functions, libraries = Functions(device, kernels), Libraries(device, tactics)
        ranges = open_ranges() if options.nvtx else None
        policy = Policy(options.tactics, frozenset(options.disable_tactics))
        context_options = ContextOptions(options.cuda_graph, options.overlap, ranges, options.pdl)
        model = CudaModel(graph, device, functions, libraries, tf32=tf32, options=context_options, policy=policy)
        if options.timing_cache is not None:
            model.use_timing_cache(read_timing_cache(options.timing_cache))
        model.compile_ahead(functions.cache, functions.is_there)
        return model
    except BaseException:
        device.close()
        raise
