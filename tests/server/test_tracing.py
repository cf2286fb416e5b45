"""Spans of requests by OpenTelemetry's API: one each, below what the client names; none where nobody collects them."""

import asyncio
import sys

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from miniinfer_cli.server.tracing import Tracer, tracer
from tests.server.asking import application, ask, body_of, repository_of, write_model


def test_each_request_is_a_span_below_that_of_its_client(tmp_path):
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    repository = repository_of(write_model(tmp_path / "m.plan"))
    app = application(repository, limits={}, tracer=Tracer(provider.get_tracer("tests"), trace, propagate))
    parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

    async def go():
        await ask(app, "/v2/models/m/infer", body_of(1), headers=[parent])
        await ask(app, "/v2/models/m/infer", b"{")
        await ask(app, "/v2")

    asyncio.run(go())
    repository.close()
    below, wrong = kept.get_finished_spans()
    assert (below.name, below.kind, below.parent.span_id) == ("infer", trace.SpanKind.SERVER, 0xB7AD6B7169203331)
    assert below.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    named = {"miniinfer.model": "m", "miniinfer.version": "1"}
    assert dict(below.attributes) == {**named, "miniinfer.outcome": "result", "http.response.status_code": 200}
    assert dict(wrong.attributes) == {**named, "miniinfer.outcome": "invalid", "http.response.status_code": 400}
    assert wrong.parent is None


def test_without_a_provider_or_without_opentelemetry_there_are_none(monkeypatch):
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
    assert tracer() is None
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    assert isinstance(tracer(), Tracer)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracer() is None
