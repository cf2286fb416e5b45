"""The activation functions that RNN, GRU and LSTM name in their attributes."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array

Activation = Callable[[Array], Array]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)); where exp overflows to infinity the result is the 0 that it should be."""
    y = np.exp(-x)
    y += 1
    return np.reciprocal(y, out=y)


def _softplus(x: Array) -> Array:
    result: Array = np.logaddexp(x, x.dtype.type(0))
    return result


_PLAIN: dict[str, Activation] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "softplus": _softplus,
}
# With their defaults for alpha and beta; a function takes beta only where a default for it stands here.
_SCALED: dict[str, tuple[Callable[[Array, float, float], Array], float, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "leakyrelu": (lambda x, a, _: np.where(x >= 0, x, a * x), 0.01, None),
    "thresholdedrelu": (lambda x, a, _: np.where(x >= a, x, 0), 1.0, None),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    "elu": (lambda x, a, _: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))), 1.0, None),
}


def activations(
    op: str, names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None, clip: float | None
) -> list[Activation]:
    """The named functions, their inputs clipped to [-clip, clip]. Raises ModelError for an unknown name or a negative clip.

    ``alphas`` and ``betas`` are handed out in order to those functions that have such a parameter.
    """
    left_alphas, left_betas, bound = iter(alphas or ()), iter(betas or ()), clip_bound(op, clip)
    return [_clipped(_function(op, name, left_alphas, left_betas), bound) for name in names]


def _function(op: str, name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    plain = _PLAIN.get(name.lower())
    if plain is not None:
        return plain
    if name.lower() not in _SCALED:
        raise ModelError(f"{op} activation {name!r} is not one that ONNX has")
    scaled, default_alpha, default_beta = _SCALED[name.lower()]
    alpha = next(alphas, default_alpha)
    beta = next(betas, default_beta) if default_beta is not None else 0.0
    return lambda x: scaled(x, alpha, beta).astype(x.dtype, copy=False)


def clip_bound(op: str, clip: float | None) -> float | None:
    """What the inputs of activations are clipped to; None for no clip, which a ``clip`` of 0 says, too.

    Raises ModelError for what bounds nothing.
    """
    if clip is not None and not clip >= 0:
        raise ModelError(f"{op} clip is {clip}, expected a number above 0, or 0 for none")
    return clip or None


def _clipped(function: Activation, clip: float | None) -> Activation:
    return function if clip is None else lambda x: function(np.clip(x, -clip, clip))
