"""Support vector machines and linear classifiers of ai.onnx.ml beside ONNX Runtime's."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ops.support_vectors import kernel
from tests.onnxruntime_release import OLDER
from tests.ops.test_mended_references import expect_same

FEATURES = 4
LINEAR = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0]}
KERNELS = ["LINEAR", "RBF", "POLY", "SIGMOID"]


def machine(rng: Any, classes: int, kind: str, *, chances: bool) -> dict[str, Any]:
    """The attributes of a classifier by pairs; with ``chances`` those of its probabilities."""
    counts = [3 + i for i in range(classes)]
    pairs, vectors = classes * (classes - 1) // 2, sum(counts)
    attrs = {
        "kernel_type": kind,
        "kernel_params": [0.3, 0.2, 2.0],
        "coefficients": rng.normal(size=(classes - 1) * vectors).tolist(),
        "support_vectors": rng.normal(size=vectors * FEATURES).tolist(),
        "vectors_per_class": counts,
        "rho": rng.normal(size=pairs).tolist(),
    }
    if chances:
        attrs |= {"prob_a": (-np.abs(rng.normal(size=pairs))).tolist(), "prob_b": rng.normal(size=pairs).tolist()}
    return attrs


def rows(rng: Any, dtype: Any = np.float32) -> Any:
    return rng.normal(size=(30, FEATURES)).astype(dtype)


@pytest.mark.skipif(OLDER, reason="older releases of ONNX Runtime have other scores of two classes")
@pytest.mark.parametrize("kind", KERNELS)
def test_pairs_of_classes(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    for classes in (2, 4):
        for transform in ("NONE", "LOGISTIC"):
            attrs = machine(rng, classes, kind, chances=False)
            labels = list(range(3, 3 + classes))
            expect_same(
                "SVMClassifier", rows(rng), n_outputs=2, rtol=1e-4, classlabels_ints=labels, post_transform=transform, **attrs
            )


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probabilities(classes: int) -> None:
    rng = np.random.default_rng(classes)
    attrs = machine(rng, classes, "RBF", chances=True) | {"classlabels_strings": list("abcde"[:classes])}
    expect_same("SVMClassifier", rows(rng), n_outputs=2, rtol=1e-4, **attrs)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_linear_machines(transform: str) -> None:
    rng = np.random.default_rng(3)
    attrs: dict[str, Any] = {"coefficients": rng.normal(size=3 * FEATURES).tolist(), "rho": [0.3], **LINEAR}
    attrs |= {"classlabels_ints": [4, 5, 9], "post_transform": transform}
    expect_same("SVMClassifier", rows(rng), n_outputs=2, rtol=1e-4, **attrs)


@pytest.mark.parametrize("kind", KERNELS)
def test_regressors(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    attrs: dict[str, Any] = {"kernel_type": kind, "kernel_params": [0.3, 0.2, 2.0], "rho": [0.4], "n_supports": 6}
    attrs |= {"coefficients": rng.normal(size=6).tolist(), "support_vectors": rng.normal(size=6 * FEATURES).tolist()}
    expect_same("SVMRegressor", rows(rng), rtol=1e-4, **attrs)
    expect_same("SVMRegressor", rows(rng), rtol=1e-4, **attrs, one_class=1)


def test_a_regressor_without_vectors() -> None:
    rng = np.random.default_rng(0)
    attrs: dict[str, Any] = {"coefficients": rng.normal(size=FEATURES).tolist(), "rho": [0.4], **LINEAR}
    expect_same("SVMRegressor", rows(rng), rtol=1e-4, **attrs)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_linear_classifiers(transform: str) -> None:
    rng = np.random.default_rng(1)
    attrs: dict[str, Any] = {"coefficients": rng.normal(size=3 * FEATURES).tolist(), "intercepts": rng.normal(size=3).tolist()}
    attrs |= {"classlabels_strings": ["a", "b", "c"], "post_transform": transform}
    expect_same("LinearClassifier", rows(rng), n_outputs=2, version=1, rtol=1e-4, **attrs)


def test_an_unknown_kernel() -> None:
    with pytest.raises(ModelError, match="kernel_type is 'LINE'"):
        kernel(np.zeros((1, 2)), np.zeros((1, 2)), "LINE", None)
