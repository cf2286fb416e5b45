"""What an actor makes of the resources that Ray gave it, beside a stand-in of Ray."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from miniinfer_cli.errors import UsageError


@pytest.fixture
def given(monkeypatch):
    """Gives ``assigned`` of an actor that has so many GPUs and CPUs."""

    def of(gpus, cpus):
        context = SimpleNamespace(
            get_accelerator_ids=lambda: {"GPU": [str(n) for n in gpus]},
            get_assigned_resources=lambda: {"CPU": cpus} if cpus else {},
        )
        ray = ModuleType("ray")
        ray.get_runtime_context = lambda: context
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.delitem(sys.modules, "miniinfer_cli.integrations.ray_resources", raising=False)
        from miniinfer_cli.integrations.ray_resources import assigned

        monkeypatch.delitem(sys.modules, "miniinfer_cli.integrations.ray_resources")
        return assigned

    return of


@pytest.mark.parametrize(
    ("gpus", "cpus", "asked", "options", "expected"),
    [
        ([], 2, "auto", {}, ("cpu", {"threads": 2})),
        ([], 0.5, "auto", {}, ("cpu", {"threads": 1})),
        ([], 0, "auto", {"threads": 3}, ("cpu", {"threads": 3})),
        ([5], 4, "auto", {"pdl": False}, ("cuda:0", {"pdl": False})),
        ([5], 4, "cpu", {}, ("cpu", {"threads": 4})),
        ([2, 3], 1, "cuda:1", {}, ("cuda:1", {})),
    ],
)
def test_the_device_and_the_threads_are_those_that_ray_gave(given, gpus, cpus, asked, options, expected):
    before = dict(options)
    assert given(gpus, cpus)(asked, options) == expected
    assert options == before


def test_an_actor_with_several_gpus_is_told_to_take_one(given):
    with pytest.raises(UsageError, match=r"Ray gave this actor 2 GPUs, and an engine is on one\n  hint: num_gpus=1"):
        given([0, 1], 1)("auto", {})
