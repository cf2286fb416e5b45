"""The whole pipeline on models as exporters write them: what is left of them, and that they compute the same."""

from collections import Counter

import numpy as np
import pytest

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from tests.fixtures.manifest import fixture, fixtures
from tests.passes.names import pass_names

CONVOLUTIONAL = ("activations_conv", "channel_norms", "resnet", "unet", "unet_bilinear", "unet_diffusion")


def run(graph: Graph, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        return interpret(graph, [inputs[v.name] for v in graph.inputs])


def assert_same(expected, actual):
    for a, b in zip(expected, actual, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype.kind in "bi":
            assert (a == b).all()
        else:
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


def ops(graph: Graph) -> Counter[str]:
    return Counter(n.op for n in graph)


# One export with the same layers is enough here, and each one with convolutions; the recognisers' own tests visit the rest, and
# tests/fixtures compares all of them with ONNX Runtime, as plans.
LAYERS = {tuple(sorted(f.contains)): f for f in fixtures()}
EXPORTS = {f.name: f for f in (*LAYERS.values(), *fixtures(*CONVOLUTIONAL))}


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS.keys())
def test_exported_models_compute_the_same_at_two_sizes(export):
    graph = import_model(export.path)
    samples = [export.sample(), export.sample(1, batch=1, seq=4)]
    expected = [run(graph, s) for s in samples]
    optimize(graph, check=True)
    for sample, outputs in zip(samples, expected, strict=True):
        assert_same(outputs, run(graph, sample))


@pytest.mark.parametrize("name", [f.name for f in fixtures("resnet")])
def test_nothing_of_a_resnet_is_left_outside_its_convolutions(name):
    graph = import_model(fixture(name).path)
    optimize(graph)
    left = ops(graph)
    assert set(left) <= {
        "FusedConv", "ConvNHWC", "MaxPoolNHWC", "GlobalAveragePoolNHWC", "ReduceMean", "Reshape", "FusedMatMul", "Transpose",
    }  # fmt: skip
    assert left["Transpose"] == 1  # of the image


@pytest.mark.parametrize("name", [f.name for f in fixtures("unet", "unet_bilinear")])
def test_a_unet_is_channels_last_from_end_to_end(name):
    graph = import_model(fixture(name).path)
    optimize(graph)
    images = [n for n in graph if n.op == "Transpose" and len(n.output.tensor.shape) == 4]
    assert len(images) == 2
    assert not {"Conv", "ConvTranspose", "MaxPool", "Relu", "BatchNormalization"} & set(ops(graph))


def test_each_level_does_what_the_one_below_does_and_more():
    counts = []
    for level in range(4):
        graph = import_model(fixture("resnet_script_unfolded").path)
        sample = fixture("resnet_script_unfolded").sample()
        expected = run(graph, sample)
        report = optimize(graph, level, check=True)
        assert_same(expected, run(graph, sample))
        counts.append(len(graph))
        assert (report.fired("fold_batch_norm") > 0) == (level >= 1)
        assert (report.fired("fuse_conv") > 0) == (level >= 2)
    assert counts == sorted(counts, reverse=True)
    assert counts[1] > counts[2]


@pytest.mark.parametrize("name", pass_names())
def test_any_pass_can_be_left_out(name):
    for case in ("resnet_dynamo_unoptimized", "attention_by_hand_script"):
        graph = import_model(fixture(case).path)
        sample = fixture(case).sample()
        expected = run(graph, sample)
        report = optimize(graph, disabled=[name])
        assert name not in [p.name for p in report.passes]
        assert_same(expected, run(graph, sample))


def test_an_optimized_graph_is_left_as_it_is():
    graph = import_model(fixture("unet_diffusion_script").path)
    optimize(graph)
    before = ops(graph)
    report = optimize(graph)
    assert ops(graph) == before
    assert [p.name for p in report.passes if p.fired] == []


def test_a_pass_that_does_not_exist_cannot_be_left_out():
    with pytest.raises(UsageError, match=r"there is no pass called 'fold_constant'\n  hint: did you mean fold_constants\?$"):
        optimize(Graph(), disabled=["fold_constant"])
