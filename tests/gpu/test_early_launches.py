"""Kernels that begin before those in front of them have ended change no bit, however long each of them waits before and after.

The header with their turn is exchanged for one that lets every warp spin for a random time before it waits, and after.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contexts.context import ContextOptions
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache, KernelSource
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import Graph
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from tests.emulation.libraries import NoLibraries
from tests.gpu.plans import sizes_of, small

HEADER = "turn.cuh"
TURN = """
#pragma once
#include "types.cuh"
MI_DEVICE u64 mi_now() { u64 t; asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t)); return t; }
MI_DEVICE void mi_spin(u32 salt) {
  u64 start = mi_now();
  u32 place = blockIdx.x * 40503u + blockIdx.y * 977u + threadIdx.x / 32 * 7919u + salt;
  u32 mixed = (u32)start * 2654435761u ^ place * 2246822519u;
  u64 ns = (mixed >> 16) % 6000;
  while (mi_now() - start < ns) {}
}
MI_DEVICE void mi_take_turn() {
  asm volatile("griddepcontrol.launch_dependents;");
  mi_spin(1);
  WAIT
  mi_spin(2);
}
"""
WAIT = 'asm volatile("griddepcontrol.wait;" ::: "memory");'
MODELS = ("mobilenet_v2", "efficientnet_b0", "bert_base", "vit_b16")


class Spinning(KernelCache):
    """Compiles every kernel with another header for its turn."""

    def __init__(self, header: str) -> None:
        super().__init__(None)
        self._header = header

    def compile_many(
        self, kernels: Sequence[KernelSource], workers: int | None = None, compiled: set[int] | None = None
    ) -> list[bytes]:
        changed = [replace(k, headers={**k.headers, HEADER: self._header}) for k in kernels]
        return super().compile_many(changed, workers, compiled)


PLAIN, DELAYED, HASTY = KernelCache(None), Spinning(TURN.replace("WAIT", WAIT)), Spinning(TURN.replace("WAIT", ""))


def bits(name: str, kernels: KernelCache, *, pdl: bool) -> set[bytes]:
    """The outputs of a network by our kernels, of several runs: launched one by one, captured, replayed, on two slots."""

    def load(graph: Graph, device_name: str, options: DeviceOptions, recorded: Any, beside: Any = None) -> CudaModel:
        device = open_device(0)
        functions = Functions(device, kernels)
        return CudaModel(graph, device, functions, NoLibraries(), tf32=False, options=ContextOptions(pdl=pdl))

    with Engine(small(name, "f16"), "cuda:0", load=load) as engine:
        shapes = {b.name: sizes_of(b, 2) for b in engine.inputs}
        feeds = random_inputs(engine.inputs, engine.ranges, shapes, {}, 1)
        outputs = [engine.run(feeds) for _ in range(12)]
    return {b"".join(v.tobytes() for v in out.values()) for out in outputs}


@pytest.mark.parametrize("name", MODELS)
def test_delays_change_no_bit(name: str) -> None:
    (want,) = bits(name, PLAIN, pdl=False)
    assert bits(name, PLAIN, pdl=True) == {want}
    assert bits(name, DELAYED, pdl=True) == {want}


def test_without_the_wait_they_do() -> None:
    (want,) = bits("efficientnet_b0", PLAIN, pdl=False)
    assert bits("efficientnet_b0", HASTY, pdl=True) != {want}
