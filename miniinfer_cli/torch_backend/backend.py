"""What torch.compile calls: a captured graph in, something that computes it out, by a plan or, where that cannot be, eagerly."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from miniinfer_cli.errors import InputDataError, MiniinferError, UsageError
from miniinfer_cli.torch_backend.closing import Arguments, close_over, open_dims, sort_arguments
from miniinfer_cli.torch_backend.contexts import Runner
from miniinfer_cli.torch_backend.exporting import export_and_open
from miniinfer_cli.torch_backend.reasons import NotTaken, taken, tell

_OWN_VERSION = operator.attrgetter("_version")
_ENGINES = 8  # sets of sizes, and versions of weights, that one captured graph is built for


def compile_graph(
    graph: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, mode: Any = None
) -> Callable[..., Any]:
    """What computes ``graph``, as torch.compile wants it; the plan is built at the first call.

    ``options``: those of ``miniinfer_cli.build``, and those of ``load`` under ``load``. ``mode`` changes nothing. A graph that
    cannot be taken runs eagerly, with a warning that says why. Raises UsageError for options that are not there.
    """
    given = dict(options or {})
    loading = given.pop("load", {})
    try:
        return CompiledGraph(graph, sort_arguments(graph, example_inputs), given, loading)
    except NotTaken as reason:
        tell(reason)
        eagerly: Callable[..., Any] = graph.forward
        return eagerly


class CompiledGraph:
    """A captured graph. The plan is built at the first call, and again where weights have changed or sizes do not fit."""

    def __init__(
        self, graph: fx.GraphModule, arguments: Arguments, options: Mapping[str, Any], loading: Mapping[str, Any]
    ) -> None:
        self._graph = graph
        self._arguments = arguments
        self._options = options
        self._loading = loading
        self._open_dims = open_dims(graph, arguments)
        self._feeds = [(f"x{n}", i) for n, i in enumerate(arguments.tensors)]
        self._weights = _Weights(())
        self._runners: list[Runner] = []
        self._made = 0
        self._reason: NotTaken | None = None

    def __call__(self, *values: Any) -> Any:
        """The results for these arguments."""
        if self._reason is not None:
            return self._graph.forward(*values)
        try:
            return self._computed(values)
        except NotTaken as reason:
            self._reason = reason
            self._runners.clear()
            self._weights = _Weights(())
            tell(reason)
            return self._graph.forward(*values)

    def _computed(self, values: Sequence[Any]) -> Any:
        if torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in values):
            raise NotTaken("gradients")
        weights = [values[i] for i in self._arguments.constants]
        if not self._runners or not self._weights.are(weights):
            first = not self._made
            self._runners.clear()
            self._weights = _Weights(weights)
            if first:
                return self._first(values)
        feeds = {name: values[i].detach() for name, i in self._feeds}
        for runner in self._runners:
            try:
                return tuple(runner.run(feeds))
            except InputDataError as error:  # PyTorch has an error of its own for that
                raise NotTaken("run", str(error).splitlines()[0]) from error
            except UsageError:  # of other sizes than these, where one was left closed
                continue
            except MiniinferError as error:
                raise NotTaken("run", str(error).splitlines()[0]) from error
        return tuple(self._runner(values).run(feeds))

    def _first(self, values: Sequence[Any]) -> Any:
        """Runs eagerly, to see that nothing is written, and builds."""
        tensors = [v for v in values if isinstance(v, torch.Tensor)]
        before = [_version(t) for t in tensors]
        results = self._graph.forward(*values)
        if before != [_version(t) for t in tensors]:
            self._reason = NotTaken("writes")
            tell(self._reason)
            return results
        try:
            self._expect_alike(self._runner(values), values, results)
        except NotTaken as reason:
            self._reason = reason
            self._runners.clear()
            tell(reason)
        return results

    def _expect_alike(self, runner: Runner, values: Sequence[Any], wanted: Sequence[torch.Tensor]) -> None:
        """Raises NotTaken where the plan fails, or gives results of other types or sizes than PyTorch's."""
        try:
            made = runner.run({name: values[i].detach() for name, i in self._feeds})
        except MiniinferError as error:
            raise NotTaken("run", str(error).splitlines()[0]) from error
        for number, (one, other) in enumerate(zip(made, wanted, strict=True)):
            if (one.dtype, one.shape) != (other.dtype, other.shape):
                told = f"result {number} is {one.dtype}{list(one.shape)}, PyTorch's {other.dtype}{list(other.shape)}"
                raise NotTaken("export", told)

    def _runner(self, values: Sequence[Any]) -> Runner:
        """One more engine, for sizes and weights like these."""
        if self._made == _ENGINES:
            raise NotTaken("weights" if not self._runners else "sizes", f"{_ENGINES} times so far")
        self._made += 1
        tensors = [values[i].detach() for i in self._arguments.tensors]
        if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
            raise NotTaken("autocast")
        device = _device_of([v for v in values if isinstance(v, torch.Tensor)])
        closed = close_over(self._graph, self._arguments, values)
        open_now = self._open_dims if not self._runners else [[] for _ in tensors]
        engine = export_and_open(closed, tensors, open_now, device, self._options, self._loading)
        runner = Runner(engine)
        self._runners.append(runner)
        taken["built"] += 1
        return runner


def _device_of(tensors: Sequence[torch.Tensor]) -> str:
    kinds = {(t.device.type, t.device.index) for t in tensors}
    if len(kinds) != 1:
        raise NotTaken("devices", ", ".join(sorted({str(t.device) for t in tensors})) or "no tensors")
    kind, index = kinds.pop()
    if kind not in ("cpu", "cuda"):
        raise NotTaken("devices", kind)
    return "cpu" if kind == "cpu" else f"cuda:{index}"


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written; 0 for one made in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


class _Weights:
    """Tensors as they were. A call looks at hundreds of them, so all of it is done by functions of C."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tuple(tensors)
        self._counting = [t for t in tensors if not t.is_inference()]
        self._versions = list(map(_OWN_VERSION, self._counting))

    def are(self, tensors: Sequence[torch.Tensor]) -> bool:
        """True where these are the same tensors, and nobody has written to them."""
        same = len(tensors) == len(self._tensors) and all(map(operator.is_, tensors, self._tensors))
        return same and list(map(_OWN_VERSION, self._counting)) == self._versions
