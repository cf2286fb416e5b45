"""From the number of a GPU to a model loaded on it. Nothing of CUDA is loaded before."""

import contextlib

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.driver.presence import FORKED, device_count, driver_fault, expect_gpu
from miniinfer_cli.backends.interface import DeviceOptions, LoadedModel
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.late_parts import has_work

__all__ = ["FORKED", "device_count", "driver_fault", "expect_gpu", "open_model"]


def open_model(
    graph: Graph, ordinal: int, options: DeviceOptions, *, tf32: bool, beside: LoadedModel | None = None
) -> LoadedModel:
    """Loads ``graph`` on ``cuda:ordinal``, with the weights of ``beside`` where there is one on another GPU.

    Raises DeviceError when there is no such device, OutOfMemoryError ...
    """
    expect_gpu(ordinal)
    with contextlib.ExitStack() as stack:  # of what is undone where it fails
        # Late: a run on the CPU pays for none of this.
        from miniinfer_cli.backends.cuda.driver.library_loading import LoadingAhead

        ahead = LoadingAhead(("cublasLt", "cudnn") if any(map(has_work, graph)) else ())  # while all that follows is imported
        stack.callback(ahead.wait)

        from miniinfer_cli.backends.cuda.choice.stored import read_timing_cache
        from miniinfer_cli.backends.cuda.contexts.context import ContextOptions
        from miniinfer_cli.backends.cuda.driver.device import open_device
        from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
        from miniinfer_cli.backends.cuda.driver.nvtx import open_ranges
        from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
        from miniinfer_cli.backends.cuda.loading.functions import Functions
        from miniinfer_cli.backends.cuda.loading.libraries import Libraries
        from miniinfer_cli.backends.cuda.models.model import CudaModel

        device = stack.enter_context(open_device(ordinal))
        if options.scheduling != "auto":
            device.set_scheduling(options.scheduling)
        folder = options.cache
        kernels = KernelCache(None if folder is None else folder / "kernels", options.kernel_cache_mib << 20)
        tactics = TacticCache(None if folder is None else folder / "tactics", options.tactic_cache_mib << 20)
        functions, libraries = Functions(device, kernels), Libraries(device, tactics, ahead)
        ranges = open_ranges() if options.nvtx else None
        policy = Policy(options.tactics, frozenset(options.disable_tactics))
        context_options = ContextOptions(options.cuda_graph, options.overlap, ranges, options.pdl)
        others = beside if isinstance(beside, CudaModel) else None
        model = CudaModel(graph, device, functions, libraries, tf32=tf32, options=context_options, policy=policy, beside=others)
        if options.timing_cache is not None:
            model.use_timing_cache(read_timing_cache(options.timing_cache))
        model.compile_ahead(functions.cache, functions.is_there)
        stack.pop_all()
        return model
