"""InferenceSession: a model to be run, as onnxruntime's programs hold one."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ort.binding import IOBinding, Place
from miniinfer_cli.ort.engines import OpenedModel
from miniinfer_cli.ort.faults import Fail, InvalidArgument, OrtFault, RuntimeException, Unsupported, told_as
from miniinfer_cli.ort.lacking import refuse_member
from miniinfer_cli.ort.nodes import ModelMetadata, NodeArg
from miniinfer_cli.ort.options import RunOptions, SessionOptions, expect_session_options, opt_level
from miniinfer_cli.ort.plans import Wanted
from miniinfer_cli.ort.profiling import Profile
from miniinfer_cli.ort.providers import LOG, choose
from miniinfer_cli.ort.values import OrtValue, contents_of


class Session:
    """What onnxruntime calls the class above InferenceSession."""


class InferenceSession(Session):
    """A model, a path or the bytes of a file, on the device of the first of ``providers`` that is there.

    The plan is built when the model is first seen, and kept in the cache by its digest. Runs of several threads go on at once.
    Raises NoSuchFile, InvalidProtobuf, InvalidGraph, InvalidArgument, NotImplemented, EPFail, Fail.
    """

    def __init__(
        self,
        path_or_bytes: Any,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """``kwargs``: what onnxruntime takes here, such as ``disabled_optimizers``, changes nothing."""
        options = expect_session_options(sess_options)
        self._options = options
        started = time.perf_counter_ns()
        self._profile = Profile(options.profile_file_prefix) if options.enable_profiling else None
        self._chosen = choose(providers, provider_options, own=options.providers)
        level = opt_level(options.graph_optimization_level)
        self._wanted = Wanted(_source(path_or_bytes), level, tuple(options.free_dimensions.items()))
        self._threads = options.intra_op_num_threads or None
        self._opened = OpenedModel(self._wanted, self._chosen.device, self._threads)
        self._others: dict[Wanted, OpenedModel] = {}
        """What runs initializers that are given, and sizes that differ where the model has one."""
        self._lock = threading.Lock()
        self._runner: ThreadPoolExecutor | None = None
        described = self._opened.description
        self._required = [a.name for a in described.inputs]
        self._optional = {a.name for a in described.overridable}
        self._output_names = [a.name for a in described.outputs]
        if self._profile is not None:
            self._profile.add_session("session_initialization", started)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: RunOptions | None = None
    ) -> list[Any]:
        """The outputs of these names (None: all), for arrays by the names of the inputs.

        Raises ValueError where an input is missing, InvalidArgument for what does not fit, RuntimeException where a node fails.
        """
        self._expect_all(input_feed)
        names = self._names(output_names)
        results: list[Any] = []

        def place(outputs: Mapping[str, Any]) -> None:
            results.extend(outputs[name] for name in names)

        self._run({n: contents_of(v) for n, v in input_feed.items()}, run_options, place)
        return results

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[Sequence[Any], Any, str], None],
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Starts a run and returns; ``callback`` gets its outputs, ``user_data`` and "", or no outputs and the error."""
        self._expect_all(input_feed)
        names = self._names(output_names)

        def work() -> None:
            try:
                outputs = self.run(names, input_feed, run_options)
            except Exception as error:  # as onnxruntime does, whatever it is goes to the callback
                callback([], user_data, str(error))
            else:
                callback(outputs, user_data, "")

        with self._lock:
            if self._runner is None:
                self._runner = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="run_async")
        self._runner.submit(work)

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """Like ``run``, with OrtValues for inputs and outputs."""
        return [OrtValue(output) for output in self.run(output_names, input_dict_ort_values, run_options)]

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Runs what is bound, and puts the outputs where they are bound to. Raises ValueError for another session's binding."""
        if iobinding.session() is not self:
            raise ValueError("the IOBinding is another session's; take session.io_binding()")
        try:
            iobinding.run(lambda feeds, on_device, place: self._run(feeds, run_options, place, on_device=on_device))
        except OrtFault as error:
            raise RuntimeError(f"Error in execution: {error}") from error

    def io_binding(self) -> IOBinding:
        """A new binding of inputs and outputs."""
        return IOBinding(self)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a run has to be given."""
        return list(self._opened.description.inputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The inputs that a run may be given, since the model has a value for each."""
        return list(self._opened.description.overridable)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs."""
        return list(self._opened.description.outputs)

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself."""
        return self._opened.description.metadata

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._options

    def get_providers(self) -> list[str]:
        """The names of the providers that run the session."""
        return list(self._chosen.options)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The options of each provider, as text."""
        return {name: dict(options) for name, options in self._chosen.options.items()}

    def set_providers(
        self, providers: Sequence[Any] | None = None, provider_options: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Opens the model again, on the device of other ``providers``."""
        chosen = choose(providers, provider_options, own={})
        opened = OpenedModel(self._wanted, chosen.device, self._threads)
        with self._lock:
            self._chosen, self._opened, self._others = chosen, opened, {}

    def enable_fallback(self) -> None:
        """Nothing: no session is ever run by another provider than it says."""

    def disable_fallback(self) -> None:
        """Nothing, as ``enable_fallback``."""

    def end_profiling(self) -> str:
        """Writes the profile, and gives its path; "" where ``enable_profiling`` was not set."""
        return "" if self._profile is None else self._profile.end()

    def get_profiling_start_time_ns(self) -> int:
        """When the profile began, by time.perf_counter_ns; 0 where there is none."""
        return 0 if self._profile is None else self._profile.started_ns

    def get_tuning_results(self) -> list[Any]:
        """Nothing: what tuning finds is kept in plans."""
        return []

    def set_tuning_results(self, results: Any, *, error_on_invalid: bool = False) -> None:
        """Raises onnxruntime's NotImplemented."""
        raise Unsupported("tuning results are kept in plans\n  hint: the commands build and tune of miniinfer write one")

    def __getattr__(self, name: str) -> Any:
        refuse_member(self, name)

    def _expect_all(self, feed: Mapping[str, Any]) -> None:
        if not isinstance(feed, Mapping):
            raise TypeError(f"input_feed: expected a dict of names and arrays, got {type(feed).__name__}")
        missing = [name for name in self._required if name not in feed]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(feed.keys())}).")

    def _names(self, names: Sequence[str] | None) -> Sequence[str]:
        if isinstance(names, str):
            raise TypeError(f"output_names: expected a list of names or None, got {names!r}; give [{names!r}]")
        if not names:
            return self._output_names
        for name in names:
            if name not in self._output_names:
                raise InvalidArgument(f"Invalid output name: {name}\n  hint: the outputs are {', '.join(self._output_names)}")
        return names

    def _run(self, feeds: dict[str, Any], options: RunOptions | None, place: Place, *, on_device: bool = False) -> None:
        """Hands all outputs by name to ``place``."""
        if options is not None and options.terminate:
            raise Fail("Exiting due to terminate flag being set to true.")
        wanted = self._wanted_for(feeds)
        with told_as(RuntimeException):
            opened = self._opened_for(wanted)
            try:
                self._run_with(opened, feeds, place, on_device)
            except UsageError:
                if not opened.has_sizes_that_differ(feeds):
                    raise
                LOG.info("inputs differ in a size that the model has one name for; it is built anew with sizes of their own")
                self._run_with(self._opened_for(replace(wanted, own_sizes=True)), feeds, place, on_device)

    def _run_with(self, opened: OpenedModel, feeds: dict[str, Any], place: Place, on_device: bool) -> None:
        started = time.perf_counter_ns()
        with opened.context() as context:
            if on_device:
                place(context.enqueue(feeds, on_device=True).result())
            elif self._profile is None:
                place(context.run(feeds))
            else:
                times: list[int] = []
                outputs = context.run(feeds, times)
                steps = opened.engine.program(opened.engine.check(feeds)).steps
                self._profile.add_run(self.get_providers()[0], started, steps, times)
                place(outputs)

    def _wanted_for(self, feeds: Mapping[str, Any]) -> Wanted:
        """The model that runs these: with initializers as inputs where one is given."""
        if len(feeds) == len(self._required):
            return self._wanted
        for name in feeds:
            if name not in self._optional and name not in self._required:
                known = [*self._required, *self._optional]
                raise InvalidArgument(f"Invalid input name: {name}\n  hint: the inputs are {', '.join(known)}")
        return replace(self._wanted, overridable=tuple(sorted(self._optional)))

    def _opened_for(self, wanted: Wanted) -> OpenedModel:
        if wanted is self._wanted:
            return self._opened
        with self._lock:
            if wanted not in self._others:
                self._others[wanted] = OpenedModel(wanted, self._chosen.device, self._threads)
            return self._others[wanted]


def _source(path_or_bytes: Any) -> str | bytes:
    if isinstance(path_or_bytes, (str, os.PathLike)):
        return os.fspath(path_or_bytes)
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        return bytes(path_or_bytes)
    if hasattr(path_or_bytes, "SerializeToString"):
        return bytes(path_or_bytes.SerializeToString())
    raise TypeError(f"expected a path or the bytes of a model, got {type(path_or_bytes).__name__}")
