"""The protocol as an application: its paths, how each request ends and is counted, and what clients are told."""

import asyncio
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine_format import read_plan
from miniinfer_cli.errors import (
    BatcherClosed,
    BatchFailed,
    DeadlinePassed,
    DeviceError,
    LimitExceeded,
    OutOfMemoryError,
    QueueFull,
    UsageError,
)
from miniinfer_cli.server.faults import Refused, fault_of
from miniinfer_cli.server.repository import Repository
from miniinfer_cli.server.settings import PlanOptions
from miniinfer_cli.server.sources import Source, parse_source, source_of
from miniinfer_cli.wording import Wording
from tests.emulation.engine import plan_of
from tests.server.asking import MODEL, application, ask, body_of, repository_of, write_model

INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = repository_of(write_model(tmp_path_factory.mktemp("served") / "m.plan"))
    yield repository
    repository.close()


@pytest.fixture
def app(repository):
    return application(repository, limits={"body_nbytes": 4096, "read_s": 0.05})


def outcomes(repository, name="m"):
    return {k: n for k, n in repository.find(name).figures.outcomes.items() if n}


def asked(app, *requests):
    """Several requests at once; each is the arguments of ``ask``."""

    async def all_of_them():
        return await asyncio.gather(*(ask(app, *args, **options) for args, options in requests))

    return asyncio.run(all_of_them())


def one(app, *args, **options):
    return asked(app, (args, options))[0]


def test_the_server_and_its_models_tell_of_themselves(app):
    assert one(app, "/v2").json["name"] == "miniinfer"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/1/ready"):
        assert (one(app, path).status, one(app, path).body) == (200, b"")
    expected = {
        "name": "m",
        "versions": ["1"],
        "platform": "miniinfer_plan",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "k", "datatype": "INT64", "shape": [-1, 1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "k", "datatype": "INT64", "shape": [-1, 1]},
        ],
    }
    assert one(app, "/v2/models/m").json == one(app, "/v2/models/m/versions/1").json == expected
    config = one(app, "/v2/models/m/config").json
    assert (config["max_batch_size"], config["input"][1]) == (4, {"name": "k", "data_type": "TYPE_INT64", "dims": [1]})


def test_who_drains_is_alive_and_not_ready_and_ends_connections(app):
    app.draining = True
    found = [one(app, path).status for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready")]
    assert found == [200, 503, 503]
    answer = one(app, INFER, body_of(1))
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_requests_share_batches_and_each_has_its_own_answer(app, repository):
    before = repository.find("m").totals().batches
    answers = asked(app, *(((INFER, body_of(n, id=f"r{n}")), {}) for n in range(12)))
    for n, answer in enumerate(answers):
        assert (answer.status, answer.headers["content-type"], answer.json["id"]) == (200, "application/json", f"r{n}")
        y, k = answer.json["outputs"]
        assert y == {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [v + 0.25 * (n % 4) for v in (n, 1, 2)]}
        assert k == {"name": "k", "datatype": "INT64", "shape": [1, 1], "data": [n % 4]}
    assert 3 <= repository.find("m").totals().batches - before < 12


@pytest.mark.parametrize(
    ("path", "method", "status", "told"),
    [
        ("/", "GET", 404, "there is nothing at '/'"),
        ("/v2/models", "GET", 404, "there is no model '' (there are m)"),
        ("/v2/models/q", "GET", 404, "there is no model 'q' (there are m)"),
        ("/v2/models/m/versions/2", "GET", 404, "there is no model 'm/versions/2' (there are versions 1)"),
        ("/v2/models/m/versions", "GET", 404, "there is no model 'm/versions' (there are versions 1)"),
        ("/v2/models/q/infer", "POST", 404, "there is no model 'q' (there are m)"),
        ("/v2/models/m", "DELETE", 405, "DELETE means nothing here: GET /v2/models/m"),
        (INFER, "GET", 405, "GET means nothing here: POST /v2/models/m/infer"),
        ("/metrics", "POST", 405, "POST means nothing here: GET /metrics"),
        ("/v2/systemsharedmemory/status", "GET", 404, "there is nothing at '/v2/systemsharedmemory/status'"),
    ],
)
def test_what_there_is_not_is_told(app, path, method, status, told):
    answer = one(app, path, b"", method=method)
    assert (answer.status, answer.json) == (status, {"error": told})


@pytest.mark.parametrize(
    ("body", "headers", "status", "told", "closes"),
    [
        (b"{", (), 400, "the body is no JSON", False),
        (b"x" * 5000, (), 413, "larger than 4096 bytes", True),
        (b"", [("content-length", "5000")], 413, "larger than 4096 bytes", True),
        (b"", [("content-length", "-1")], 413, "larger than 4096 bytes", True),
        (b"", [("content-encoding", "gzip")], 415, "not compressed", True),
        (b"{}", [("inference-header-content-length", "two")], 400, "expected a number of bytes, got 'two'", False),
        (body_of(1, parameters={"priority": 4}), (), 400, "priority: expected 0 to 3, got 4", False),
        (body_of(1, 2, 3, 4, 5), (), 400, "a request of 5 rows, and a batch has 4 at most", False),
        (body_of(1).replace(b'"shape": [1, 1]', b'"shape": [1]'), (), 400, "rank", False),
        (body_of(1).replace(b'"data": [1]', b'"data": [9]'), (), 400, "Gather index 9 is outside", False),
    ],
)
def test_a_request_that_is_wrong_is_told_and_counted(app, repository, body, headers, status, told, closes):
    before = outcomes(repository).get("invalid", 0)
    answer = one(app, INFER, body, headers=headers)
    assert answer.status == status
    assert told in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert (answer.headers.get("connection") == "close") is closes
    assert outcomes(repository)["invalid"] == before + 1


def test_a_poisoned_request_fails_alone(app):
    poisoned = body_of(1).replace(b'"data": [1]', b'"data": [9]')
    answers = asked(app, *(((INFER, poisoned if n == 2 else body_of(n)), {}) for n in range(4)))
    assert [a.status for a in answers] == [200, 200, 400, 200]


def test_a_body_that_does_not_come_is_given_up(app):
    answer = one(app, INFER, parts=[body_of(1)[:10]])
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert "the body did not come within 0.05 s" in answer.json["error"]


def test_who_goes_is_counted_as_cancelled_and_nothing_is_sent(tmp_path):
    repository = repository_of(write_model(tmp_path / "m.plan"), max_delay_ms=5000)
    app = application(repository, limits={})

    async def leave():
        gone = asyncio.Event()
        waiting = asyncio.create_task(ask(app, INFER, body_of(1), gone=gone))
        while not repository.find("m").totals().queued:
            await asyncio.sleep(0.001)
        gone.set()
        first = await waiting
        gone_already = asyncio.Event()
        gone_already.set()
        return first, await ask(app, INFER, parts=[b"{"], gone=gone_already)

    answers = asyncio.run(leave())
    repository.close()
    assert [a.status for a in answers] == [0, 0]
    assert outcomes(repository) == {"cancelled": 2}
    assert repository.find("m").totals().batches == 0


def test_a_request_out_of_time_and_one_too_many_are_refused(tmp_path):
    repository = repository_of(write_model(tmp_path / "m.plan"), max_queue=2)
    plan = repository.find("m").current
    entered, gate = threading.Event(), threading.Event()
    real = plan.engine.model.make_program

    def held(*args):  # the first request's program is made, in the one thread that computes
        entered.set()
        assert gate.wait(20)
        return real(*args)

    plan.engine.model.make_program = held
    app = application(repository, limits={})

    async def crowd():
        first = asyncio.create_task(ask(app, INFER, body_of(1)))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        late = await ask(app, INFER, body_of(2, parameters={"timeout": 1000}))
        others = [asyncio.create_task(ask(app, INFER, body_of(n))) for n in (3, 4)]
        await asyncio.sleep(0)
        while repository.find("m").totals().queued < 2:
            await asyncio.sleep(0.001)
        refused = await ask(app, INFER, body_of(5))
        gate.set()
        return late, refused, await asyncio.gather(first, *others)

    late, refused, answered = asyncio.run(crowd())
    repository.close()
    assert (late.status, refused.status, [a.status for a in answered]) == (504, 503, [200] * 3)
    assert "its time was over after" in late.json["error"]
    assert refused.json == {"error": "2 requests wait already"}
    assert outcomes(repository) == {"result": 3, "deadline": 1, "rejected": 1}


def test_what_nobody_foresaw_is_logged_and_told_by_its_class_alone(app, repository, monkeypatch, logged):
    def fail(*args):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(repository.find("m").current, "submit", fail)
    answer = one(app, INFER, body_of(1))
    assert (answer.status, answer.json) == (500, {"error": "ZeroDivisionError in the server; its log has more"})
    assert "a secret" in logged.text
    assert outcomes(repository)["error"] >= 1


def test_a_server_whose_device_has_failed_is_neither_ready_nor_alive(app, repository, monkeypatch):
    def fail(*args):
        raise DeviceError("cuda:0: an illegal memory access was encountered")

    monkeypatch.setattr(repository.find("m").current, "submit", fail)
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready")
    assert [one(app, path).status for path in paths] == [200, 200, 200]
    answer = one(app, INFER, body_of(1))
    assert (answer.status, answer.json) == (500, {"error": "cuda:0: an illegal memory access was encountered"})
    assert [one(app, path).status for path in paths] == [503, 503, 503]


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (QueueFull("q"), 503, "rejected"),
        (DeadlinePassed("q"), 504, "deadline"),
        (BatcherClosed("q"), 503, "closed"),
        (BatchFailed("q"), 503, "error"),
        (UsageError("q"), 400, "invalid"),
        (LimitExceeded("q"), 422, "error"),
        (OutOfMemoryError("q"), 503, "error"),
        (MemoryError("a secret"), 503, "error"),
        (DeviceError("q"), 500, "error"),
        (Refused(418, "q"), 418, "invalid"),
    ],
)
def test_each_error_has_its_status(error, status, outcome):
    found = fault_of(error)
    assert (found.status, found.outcome) == (status, outcome)
    assert found.message == ("the server's memory ran out" if isinstance(error, MemoryError) else "q")


def test_a_fault_of_the_clients_has_its_way_out_in_flags():
    error = UsageError(Wording("python", flags="flags"), hint=Wording("give x=", flags="give --x")).at("node 'a'")
    assert fault_of(error).message == "node 'a': flags (give --x)"


@pytest.mark.parametrize(
    ("in_flags", "way_out"), [(True, "a larger --max-batch"), (False, "the Batcher with a larger max_batch")]
)
def test_a_way_out_is_in_the_words_of_who_set_the_server_up(repository, in_flags, way_out):
    app = application(repository, limits={}, in_flags=in_flags)
    answer = asyncio.run(ask(app, INFER, body_of(1, 2, 3, 4, 5)))
    assert answer.status == 400 and way_out in answer.json["error"]


def test_metrics_count_what_clients_saw(app, repository):
    figures = repository.find("m").figures

    def counted(text):
        return {
            (s.name, s.labels.get("outcome") or s.labels.get("reason")): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
            if s.labels.get("model") == "m" and "le" not in s.labels
        }

    app = application(repository, limits={}, triton_metric_names=True)
    before = counted(one(app, "/metrics").body.decode())
    asked(app, *(((INFER, body_of(n)), {}) for n in range(5)), ((INFER, b"{"), {}))
    text = one(app, "/metrics").body.decode()
    after = counted(text)
    seen = {key: after[key] - before[key] for key in after}
    assert seen["miniinfer_requests_total", "result"] == seen["nv_inference_request_success", None] == 5
    assert seen["miniinfer_requests_total", "invalid"] == seen["nv_inference_request_failure", "OTHER"] == 1
    assert seen["miniinfer_request_seconds_count", None] == seen["miniinfer_queue_seconds_count", None] == 5
    assert seen["miniinfer_answer_seconds_count", None] == 5
    assert 0 < seen["miniinfer_answer_seconds_sum", None] < seen["miniinfer_execution_seconds_sum", None]
    assert seen["miniinfer_batch_rows_sum", None] == seen["nv_inference_count", None] == 5
    assert seen["miniinfer_batch_rows_count", None] == seen["nv_inference_exec_count", None]
    assert after["miniinfer_request_seconds_sum", None] == pytest.approx(figures.request_s.sum_s)
    assert (after["miniinfer_queue_depth", None], after["miniinfer_running_requests", None]) == (0, 0)
    # The one that asks for metrics is not answered yet.
    responses = {s.labels["code"]: s.value for f in text_string_to_metric_families(text) for s in f.samples if "code" in s.labels}
    assert responses == {"200": 6, "400": 1}
    assert "nv_" not in one(application(repository, limits={}), "/metrics").body.decode()


def test_statistics_are_those_of_the_metrics(app, repository):
    one(app, INFER, body_of(1))
    (told,) = one(app, "/v2/models/m/stats").json["model_stats"]
    figures, totals = repository.find("m").figures, repository.find("m").totals()
    assert (told["inference_count"], told["execution_count"]) == (totals.rows, totals.batches)
    stats = told["inference_stats"]
    assert stats["success"] == {"count": figures.outcomes["result"], "ns": int(figures.request_s.sum_s * 1e9)}
    assert stats["fail"]["count"] == sum(figures.outcomes[k] for k in ("invalid", "error", "rejected", "deadline", "closed"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/res net.plan", ("res_net", "1", "a/res net.plan")),
        ("net=a.plan", ("net", "1", "a.plan")),
        ("net:02=a.plan", ("net", "2", "a.plan")),
    ],
)
def test_a_plan_has_the_name_of_its_file_or_one_that_is_given(text, expected):
    found = parse_source(text)
    assert (found.name, found.version, str(found.path)) == expected


@pytest.mark.parametrize("text", ["", "=a.plan", "net:x=a.plan", "a b=c.plan", "net=", "net:02=a=b.plan"])
def test_a_name_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="does not tell a name and a file"):
        parse_source(text)


def test_versions_are_served_side_by_side_and_the_highest_by_default(tmp_path):
    path = write_model(tmp_path / "m.plan")
    options = PlanOptions("cpu", warm_up=False)
    twice = [Source("m", "1", path), Source("m", "1", path)]
    with pytest.raises(UsageError, match="two plans are called m, version 1"):
        Repository(twice, options)
    told = []
    repository = Repository([Source("m", v, path) for v in ("2", "10", "1")], options, lambda served: told.append(served.version))
    app = application(repository, limits={})
    assert told == ["2", "10", "1"]
    assert one(app, "/v2/models/m").json["versions"] == ["1", "2", "10"]
    assert one(app, INFER, body_of(1)).json["model_version"] == "10"
    assert one(app, "/v2/models/m/versions/2/infer", body_of(1)).json["model_version"] == "2"
    repository.close()
    assert [s.version for s in repository if s.figures.outcomes["result"]] == ["2", "10"]


def test_a_plan_without_a_batch_is_served_request_by_request(tmp_path):
    path = write_model(
        tmp_path / "m.plan", "graph main(x: f32[n,2]) {\n  t = Transpose(x) {perm=[1, 0]}\n  y = MatMul(x, t)\n  return y\n}"
    )
    with pytest.raises(UsageError, match="output y"):
        Repository([Source("m", "1", path)], PlanOptions("cpu", max_batch=4))
    repository = Repository([Source("m", "1", path)], PlanOptions("cpu"))
    app = application(repository, limits={})
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}'
    answers = asked(app, *(((INFER, body), {}) for _ in range(3)))
    assert [a.json["outputs"][0]["data"] for a in answers] == [[5, 11, 11, 25]] * 3
    assert repository.find("m").current.alone_since.startswith("output y: f32[n,n] has more than one dimension")
    config = one(app, "/v2/models/m/config").json
    assert (config["max_batch_size"], config["output"][0]["dims"]) == (0, [-1, -1])
    repository.close()


def test_a_plan_in_memory_is_served_and_never_stale():
    repository = Repository([source_of(plan_of(MODEL), None)], PlanOptions("cpu", max_batch=4, warm_up=False))
    try:
        (served,) = repository
        assert (served.name, served.is_stale()) == ("main", False)
        answer = asyncio.run(ask(application(repository, limits={}), "/v2/models/main/infer", body_of(1)))
        assert answer.status == 200
    finally:
        repository.close()


def test_an_adapter_is_given_a_path_or_a_plan_that_is_open(tmp_path):
    path = write_model(tmp_path / "my net.plan")
    assert source_of(str(path), None) == Source("my_net", "1", path)
    with read_plan(path) as opened:
        assert source_of(opened, "other") == Source("other", "1", path)
