"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops.element_types import BOOL, INDICES, REAL
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import same_dim
from miniinfer_cli.ops.softmax import log_softmax


def infer_negative_log_likelihood_loss(
    input: TensorType,
    target: TensorType,
    weight: TensorType | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> TensorType:
    """A scalar, or one loss per target when ``reduction`` is "none"; ``input`` is [N, C, ...], ``target`` [N, ...]."""
    return _infer_loss("NegativeLogLikelihoodLoss", input, target, weight, reduction)


@widen_half
def negative_log_likelihood_loss(
    input: Array, target: Array, weight: Array | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Array:
    """Minus the log-probability of each target class times its weight, averaged by weight, summed or as it is.

    A target equal to ``ignore_index`` counts for nothing. Source: ONNX NegativeLogLikelihoodLoss-22.
    """
    ignored = None if ignore_index is None else target == ignore_index
    chosen = target if ignored is None else np.where(ignored, 0, target)
    loss = -np.take_along_axis(input, np.expand_dims(chosen, 1), axis=1).squeeze(1)
    shares = None
    if weight is not None:
        shares = weight[chosen]
    if ignored is not None:
        shares = np.where(ignored, 0, input.dtype.type(1) if shares is None else shares).astype(input.dtype)
    if shares is not None:
        loss *= shares
    if reduction == "none":
        return loss
    total = np.asarray(np.sum(loss, dtype=loss.dtype))
    if reduction == "sum":
        return total
    return np.asarray(total / (loss.size if shares is None else np.sum(shares, dtype=loss.dtype)), loss.dtype)


def infer_softmax_cross_entropy_loss(
    scores: TensorType,
    labels: TensorType,
    weights: TensorType | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """The loss as of NegativeLogLikelihoodLoss, then log_prob like ``scores``."""
    loss = _infer_loss("SoftmaxCrossEntropyLoss", scores, labels, weights, reduction)
    return (loss, TensorType(scores.dtype, scores.shape))[:n_outputs]


@widen_half
def softmax_cross_entropy_loss(
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """The loss of log_softmax(scores) over the classes, axis 1, and that. Source: ONNX SoftmaxCrossEntropyLoss-13."""
    log_prob = log_softmax(scores, axis=1)
    loss = negative_log_likelihood_loss(log_prob, labels, weights, ignore_index=ignore_index, reduction=reduction)
    return (loss, log_prob)[:n_outputs]


def expand_negative_log_likelihood_loss(graph: Graph, node: Node) -> tuple[Value]:
    """GatherElements, Neg, Mul, and the reduction."""
    at = Expansion(graph, node)
    return (_expanded_loss(at, at.widen(at.required(0))),)


def expand_softmax_cross_entropy_loss(graph: Graph, node: Node) -> tuple[Value, ...]:
    """LogSoftmax, then as NegativeLogLikelihoodLoss."""
    at = Expansion(graph, node)
    log_prob = at.op("LogSoftmax", at.widen(at.required(0)), axis=1)
    return (_expanded_loss(at, log_prob), at.cast(log_prob, at.required(0).tensor.dtype))[: len(node.outputs)]


def _expanded_loss(at: Expansion, log_prob: Value) -> Value:
    attrs, target, weight = at.node.attrs, at.required(1), at.input(2)
    ignore, reduction, dtype = attrs.get("ignore_index"), attrs.get("reduction", "mean"), log_prob.tensor.dtype
    ignored = None
    if ignore is not None:
        ignored = at.op("Equal", target, at.scalar(ignore, target.tensor.dtype))
        target = at.op("Where", ignored, at.scalar(0, target.tensor.dtype), target)
    picked = at.op("GatherElements", log_prob, at.op("Unsqueeze", target, at.integers([1])), axis=1)
    loss = at.op("Neg", at.op("Squeeze", picked, at.integers([1])))
    shares = None
    if weight is not None:
        shares = at.op("Gather", at.cast(weight, dtype), target, axis=0)
    if ignored is not None:
        shares = at.op("Where", ignored, at.scalar(0, dtype), at.scalar(1, dtype) if shares is None else shares)
    if shares is not None:
        loss = at.op("Mul", loss, shares)
    if reduction == "sum" or (reduction == "mean" and shares is not None):
        loss = at.op("ReduceSum", loss, keepdims=0)
        if reduction == "mean":
            loss = at.op("Div", loss, at.op("ReduceSum", shares, keepdims=0))
    elif reduction == "mean":
        loss = at.op("ReduceMean", loss, keepdims=0)
    return at.cast(loss, at.required(0).tensor.dtype)


def _infer_loss(op: str, x: TensorType, target: TensorType, weight: TensorType | None, reduction: str) -> TensorType:
    if reduction not in ("none", "sum", "mean"):
        raise ModelError(f"{op} reduction is {reduction!r}, expected 'none', 'sum' or 'mean'")
    if target.dtype not in (DType.I32, DType.I64):
        raise ModelError(f"{op} expects targets of i32 or i64, got {target}")
    shape = target.shape
    if x.shape is not None:
        if len(x.shape) < 2 or target.rank not in (None, len(x.shape) - 1):
            raise ModelError(f"{op} expects an input [N, C, ...] and a target [N, ...], got {x} and {target}")
        shape = (x.shape[0], *x.shape[2:])
        if target.shape is not None:
            pairs = zip(shape, target.shape, strict=True)
            shape = tuple(same_dim(op, f"sizes of {x} and {target} differ", a, b) for a, b in pairs)
        if weight is not None and weight.shape is not None:
            if len(weight.shape) != 1:
                raise ModelError(f"{op} expects weights of rank 1, got {weight}")
            same_dim(op, f"weights {weight} for the classes of {x}", x.shape[1], weight.shape[0])
    return TensorType(x.dtype, shape if reduction == "none" else ())


NEGATIVE_LOG_LIKELIHOOD_LOSS = define(
    "NegativeLogLikelihoodLoss",
    infer=infer_negative_log_likelihood_loss,
    reference=negative_log_likelihood_loss,
    takes=(REAL - BOOL, None, REAL),
    expand=expand_negative_log_likelihood_loss,
)
SOFTMAX_CROSS_ENTROPY_LOSS = define(
    "SoftmaxCrossEntropyLoss",
    infer=infer_softmax_cross_entropy_loss,
    reference=softmax_cross_entropy_loss,
    takes=(REAL - INDICES, None, REAL),
    expand=expand_softmax_cross_entropy_loss,
)
