"""Spans of requests by OpenTelemetry's API, where it is installed and somebody collects them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def tracer() -> "Tracer | None":
    """Who makes spans; None where OpenTelemetry is not installed, or has no provider (``opentelemetry-instrument`` sets one)."""
    try:
        from opentelemetry import propagate, trace  # late: an option
    except ImportError:
        return None
    if type(trace.get_tracer_provider()).__name__ in ("ProxyTracerProvider", "NoOpTracerProvider"):
        return None
    return Tracer(trace.get_tracer("miniinfer"), trace, propagate)


class Tracer:
    """Makes a span of each request, a child of what its ``traceparent`` names."""

    def __init__(self, tracer: Any, trace: Any, propagate: Any) -> None:
        self._tracer = tracer
        self._trace = trace
        self._propagate = propagate

    @contextlib.contextmanager
    def request(self, headers: Mapping[bytes, bytes], model: str, version: str) -> Iterator[Callable[[str, int], None]]:
        """The span of a request to infer; ``headers`` by name in small letters. Gives what is to be told of its end."""
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        attributes = {"miniinfer.model": model, "miniinfer.version": version}
        kind = self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(
            "infer", context=self._propagate.extract(carrier), kind=kind, attributes=attributes
        ) as span:

            def ended(outcome: str, status: int) -> None:
                span.set_attribute("miniinfer.outcome", outcome)
                span.set_attribute("http.response.status_code", status)

            yield ended
