"""A site's work apart from its network: graphs of one node, and copies of what they read and write."""

import ctypes

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tuning.checking import Comparisons, relative_error, tolerance
from miniinfer_cli.backends.cuda.tuning.rig import Rig, likely_contents
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import Array, DType, Graph, TensorType
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.engine import load_emulated
from tests.graph_text import typed_graph


def model_of(graph: Graph, device: EmulatedDevice | None = None) -> CudaModel:
    model = load_emulated(device, functions=EmulatedFunctions())(graph, "cuda:0", DeviceOptions(), {})
    assert isinstance(model, CudaModel)
    return model


def read(address: int, shape: tuple[int, ...], dtype: str = "f4") -> Array:
    count = int(np.prod(shape))
    return np.frombuffer(ctypes.string_at(address, count * np.dtype(dtype).itemsize), dtype).reshape(shape)


def test_every_copy_computes_the_same_through_views_and_weights_of_its_own() -> None:
    graph = typed_graph("""
      graph main(x: f32[4,16]) {
        w: f32[8,8] = const [1,2,3,4,5,6,7,8, 8,7,6,5,4,3,2,1, 1,0,1,0,1,0,1,0, 0,1,0,1,0,1,0,1,
                             2,2,2,2,3,3,3,3, 1,1,2,2,3,3,4,4, 9,9,9,9,8,8,8,8, 5,4,3,2,1,0,1,2]
        a: f32[4,8], b: f32[4,8] = Split(x) {axis=1, num_outputs=2}
        t: f32[4,8] = MatMul(a, w)
        y: f32[4,8] = Add(t, b)
        return y
      }
    """)
    device = EmulatedDevice()
    model = model_of(graph, device)
    program = LoadedProgram(make_program(graph, [v.type for v in graph.inputs], model.target, model.weights.holds), model)
    with Rig(model, [program], most_copies=3) as rig, Comparisons(model, model.target) as comparing:
        x = read(rig._inputs.address, (4, 16))
        assert (rig.sets, [len(c) for c in rig._rotated.values()]) == (2, [3])
        weights = graph.nodes[1].inputs[1]
        assert weights is not None and weights.constant is not None
        expected = x[:, :8] @ weights.constant.array() + x[:, 8:]
        for number in range(2):
            rig.run(program, number)
            np.testing.assert_allclose(read(rig.results(number), (4, 8)), expected, rtol=1e-4)
        rig.keep()
        assert comparing.equal(program.made, rig.results(1), rig.kept)
        assert comparing.difference(program.made, rig.results(1), rig.kept) == ""
        for copy in (1, 2):  # the copies of weights are no poison, and are read
            captures = rig.capture(program, copy + 1)
            assert captures is not None
            assert rig.replay(captures) > 0
            captures.close()
        np.testing.assert_allclose(read(rig.results(0), (4, 8)), expected, rtol=1e-4)
        ctypes.memset(rig.results(1), 0x42, 4)
        assert not comparing.equal(program.made, rig.results(1), rig.kept)
        assert "is allowed for f32" in comparing.difference(program.made, rig.results(1), rig.kept)
        ctypes.memset(rig.results(1), 0xFF, 4)  # NaN
        assert not comparing.equal(program.made, rig.results(1), rig.results(1))
        assert comparing.difference(program.made, rig.results(1), rig.kept).startswith("its results differ by inf")
    program.close()
    model.close()
    assert device.leftovers == {}


@pytest.mark.parametrize(
    ("difference", "reference", "error"),
    [(0.0, 0.0, 0.0), (0.0, 5.0, 0.0), (4.0, 16.0, 0.5), (1.0, 0.0, np.inf), (np.nan, 1.0, np.inf), (np.inf, 1.0, np.inf)],
)
def test_relative_error(difference: float, reference: float, error: float) -> None:
    assert relative_error(difference, reference) == error


def test_tolerances() -> None:
    kinds = (DType.F32, DType.F16, DType.BF16, DType.I8, DType.I32, DType.BOOL)
    assert [tolerance(k, tf32=False) for k in kinds] == [1e-5, 1e-2, 5e-2, 2e-2, 0, 0]
    assert tolerance(DType.F32, tf32=True) == 5e-3


def test_inputs_are_valid_and_never_zeros() -> None:
    random = np.random.default_rng(0)
    assert likely_contents(TensorType(DType.F16, (50,)), random).std() > 0.5
    assert set(likely_contents(TensorType(DType.I64, (50,)), random)) == {0, 1}
    mask = likely_contents(TensorType(DType.BOOL, (50,)), random)
    assert mask.any() and not mask.all()
    assert likely_contents(TensorType(DType.I8, (500,)), random).std() > 50
    known = TensorType(DType.I64, (2,), np.array([3, 4], object))
    assert likely_contents(known, random).tolist() == [3, 4]
