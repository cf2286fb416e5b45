"""Kernels for other sizes are compiled ahead, so that a new size does not wait for the compiler."""

import threading
import time
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.making.sizes import other_sizes
from miniinfer_cli.backends.cuda.models.foresight import Foresight
from miniinfer_cli.ir import StatePair, States, TensorType
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph

TEXT = """graph main(x: f32[batch,seq,64], y: f32[batch,7]) {
  z = Softmax(x)
  return z, y
}
"""


def types_of(graph, batch: int, seq: int):
    sizes = {"batch": batch, "seq": seq}
    return [TensorType(v.type.dtype, tuple(sizes.get(str(d), d) for d in v.type.shape)) for v in graph.inputs]


def test_one_named_dimension_after_the_other():
    graph = typed_graph(TEXT)
    shapes = [tuple(t.shape for t in types) for types in other_sizes(graph, types_of(graph, 4, 10))]
    assert ((8, 10, 64), (8, 7)) in shapes
    assert ((4, 128, 64), (4, 7)) in shapes
    assert ((4, 10, 64), (4, 7)) not in shapes
    assert len(shapes) == len(set(shapes)) == 23  # 11 other batches, 12 other lengths


def test_new_tokens_of_a_cache_come_in_its_buckets():
    graph = typed_graph("graph main(x: f32[batch,seq]) {\n  y = Relu(x)\n  return y\n}")
    graph.states = States((StatePair("past", "present", 2),), capacity=99, length="length", tokens="seq", buckets=(1, 16))
    shapes = [types[0].shape for types in other_sizes(graph, types_of(graph, 1, 16))]
    assert [s for s in shapes if s[0] == 1] == [(1, 1)]
    assert {s[1] for s in shapes if s[0] != 1} == {16}


def test_a_graph_of_fixed_shapes_has_no_other_sizes():
    graph = typed_graph("graph main(x: f32[2,3]) {\n  y = Relu(x)\n  return y\n}\n")
    assert list(other_sizes(graph, [v.type for v in graph.inputs])) == []


def test_the_kernels_of_other_sizes_are_compiled_ahead():
    graph, cache = typed_graph(TEXT), KernelCache(None)
    foresight = Foresight(Target(), cache, lambda: 0.0, quiet_s=0)
    foresight.begin(types_of(graph, 1, 4), graph)
    foresight.begin(types_of(graph, 2, 4), graph)  # does nothing more
    assert foresight.done.wait(60)
    before = cache.counts.compiles
    assert before > 0
    cache.compile_many(sources_of(make_program(graph, types_of(graph, 64, 4), Target()).kernels, 90))
    assert cache.counts.compiles == before
    foresight.close()
    foresight.close()


def test_what_is_there_is_not_compiled():
    graph, cache = typed_graph(TEXT), KernelCache(None)
    foresight = Foresight(Target(), cache, lambda: 0.0, lambda kernel: True, quiet_s=0)
    foresight.begin(types_of(graph, 1, 4), graph)
    assert foresight.done.wait(60)
    assert cache.counts.compiles == 0
    foresight.close()


def test_closing_ends_it():
    graph, cache = typed_graph(TEXT), KernelCache(None)
    foresight = Foresight(Target(), cache, lambda: 0.0)
    foresight.begin(types_of(graph, 1, 4), graph)
    foresight.close()
    assert foresight.done.is_set()


def test_it_stays_out_of_the_way_of_inferences():
    graph, cache = typed_graph(TEXT), KernelCache(None)
    foresight = Foresight(Target(), cache, time.monotonic, quiet_s=0)  # one is being enqueued all the time
    foresight.begin(types_of(graph, 1, 4), graph)
    assert not foresight.done.wait(0.3)
    assert cache.counts.compiles == 0
    foresight.close()
    assert foresight.done.is_set()


def test_inferences_of_every_engine_keep_it_away():
    """Two engines share the interpreter: what one would do in idle moments waits for the inferences of the other."""
    graph = typed_graph(TEXT)
    with open_emulated(plan_of(TEXT)) as idle, open_emulated(plan_of(TEXT)) as used:
        idle.model.compile_ahead(KernelCache(None), lambda kernel: True)
        foresight, decided = idle.model._foresight, []
        foresight._quiet_s = 0
        foresight._target = replace(foresight._target, watch=lambda *decision: decided.append(decision))
        foresight.begin(types_of(graph, 1, 4), graph)
        feeds = {"x": np.zeros((1, 4, 64), np.float32), "y": np.zeros((1, 7), np.float32)}
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            used.run(feeds)
        assert decided == [] and not foresight.done.is_set()


def test_it_gives_way_in_the_middle_of_a_program():
    """Making the program of a network holds the interpreter for long: inferences that begin meanwhile do not wait for its end."""
    graph = typed_graph("graph main(x: f32[batch,64]) {\n  a = Softmax(x)\n  b = Softmax(a)\n  c = Softmax(b)\n  return c\n}\n")
    decided, busy, met = [], threading.Event(), threading.Event()
    foresight = Foresight(Target(), KernelCache(None), lambda: time.monotonic() if busy.is_set() else 0.0, quiet_s=0)
    give_way = foresight._give_way

    def watch(*decision):
        decided.append(decision)
        if len(decided) == 2:  # an inference begins, and others follow
            busy.set()
            met.set()
        give_way(*decision)

    foresight._target = replace(foresight._target, watch=watch)
    foresight.begin([TensorType(graph.inputs[0].type.dtype, (1, 64))], graph)
    assert met.wait(60)
    assert not foresight.done.wait(0.2)
    assert len(decided) == 2  # of three nodes
    busy.clear()
    assert foresight.done.wait(60)
    assert len(decided) > 3
    foresight.close()


def test_it_leaves_the_first_inference_alone():
    graph, cache = typed_graph(TEXT), KernelCache(None)
    foresight = Foresight(Target(), cache, lambda: 0.0, quiet_s=60)
    foresight.begin(types_of(graph, 1, 4), graph)
    assert not foresight.done.wait(0.3)
    assert cache.counts.compiles == 0
    started = time.monotonic()
    foresight.close()
    assert foresight.done.is_set() and time.monotonic() - started < 30
