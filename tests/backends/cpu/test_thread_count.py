"""How many threads an engine has: what is asked, the environment, affinity, and the quotas of control groups."""

import os
from pathlib import Path

import pytest

import miniinfer_cli
from miniinfer_cli.backends.cpu.thread_count import cgroup_quota, processors, thread_count, usable_cores
from miniinfer_cli.errors import UsageError
from tests.emulation.engine import open_emulated, plan_of

MODEL = "graph main(x: f32[n]) {\n  y = Neg(x)\n  return y\n}"


@pytest.mark.parametrize(
    ("asked", "environment", "count"),
    [
        (3, {"MINIINFER_NUM_THREADS": "5", "OMP_NUM_THREADS": "7"}, 3),
        (None, {"MINIINFER_NUM_THREADS": "5", "OMP_NUM_THREADS": "7"}, 5),
        (None, {"MINIINFER_NUM_THREADS": " 1024 "}, 1024),
        (None, {"MINIINFER_NUM_THREADS": "", "OMP_NUM_THREADS": "7"}, 7),
        (None, {"OMP_NUM_THREADS": "4,2,1"}, 4),
        (None, {"OMP_NUM_THREADS": "99999"}, 1024),
        (None, {"OMP_NUM_THREADS": "many"}, processors()),
        (None, {"OMP_NUM_THREADS": "0"}, processors()),
        (None, {"OMP_NUM_THREADS": "-1"}, processors()),
        (None, {}, processors()),
    ],
)
def test_what_is_asked_goes_before_the_environment(asked, environment, count):
    assert thread_count(asked, environment) == count


@pytest.mark.parametrize("value", ["0", "-2", "two", "2.5", "1025", "1e3", "9" * 5000, "0x2"])
def test_a_variable_of_ours_that_is_no_number_of_threads_is_refused(value):
    with pytest.raises(UsageError, match=r"^MINIINFER_NUM_THREADS is no number of threads: expected 1 to 1024, got '"):
        thread_count(None, {"MINIINFER_NUM_THREADS": value})


def system(root: Path, groups: str, **files: str) -> Path:
    """A root folder whose process is in ``groups``; ``files`` by path under /sys/fs/cgroup, ``|`` for ``/``."""
    contents = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name.replace('|', '/')}": text for name, text in files.items()}}
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = "12:cpuset:/box\n4:cpu,cpuacct:/box/inner\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a|b|cpu.max": "max 100000", "a|cpu.max": "150000 100000", "cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a|b|cpu.max": "50000 100000", "a|cpu.max": "150000 100000"}, 0.5),
        ("0::/../../host/box\n", {"cpu.max": "300000 100000"}, 3.0),  # the path that a container sees of its host
        ("0::/docker/0123\n", {"cpu.max": "100000 50000"}, 2.0),  # only what is mounted is there
        ("0::/\n", {"cpu.max": ""}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        (V1, {"cpu,cpuacct|box|inner|cpu.cfs_quota_us": "-1", "cpu,cpuacct|box|inner|cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu,cpuacct|box|cpu.cfs_quota_us": "250000", "cpu,cpuacct|box|cpu.cfs_period_us": "100000"}, 2.5),
        (V1, {"cpu|cpu.cfs_quota_us": "400000", "cpu|cpu.cfs_period_us": "100000"}, 4.0),  # a container's own, mounted alone
        (V1, {"cpuset|box|cpu.cfs_quota_us": "1", "cpuset|box|cpu.cfs_period_us": "1"}, None),
        (V1 + "0::/unit\n", {"unified|unit|cpu.max": "120000 100000"}, 1.2),
        ("", {"cpu.max": "100000 100000"}, None),
        ("garbage\n:\n::\n", {}, None),
    ],
)
def test_quotas_of_control_groups(tmp_path, groups, files, quota):
    assert cgroup_quota(system(tmp_path, groups, **files)) == quota


def test_no_control_groups_at_all(tmp_path):
    assert cgroup_quota(tmp_path) is None
    assert processors(tmp_path) == usable_cores()


@pytest.mark.parametrize(("cores", "quota", "count"), [(8, "150000 100000", 2), (8, "10000 100000", 1), (2, "400000 100000", 2)])
def test_the_least_of_affinity_and_quota_counts(tmp_path, monkeypatch, cores, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert processors(system(tmp_path, "0::/\n", **{"cpu.max": quota})) == count


def test_affinity(monkeypatch):
    first = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {first})
        assert usable_cores() == processors() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_environment_is_read_when_an_engine_is_made(monkeypatch):
    monkeypatch.setenv("MINIINFER_NUM_THREADS", "3")
    plan = plan_of(MODEL)
    with miniinfer_cli.load(plan, "cpu") as engine, miniinfer_cli.load(plan, "cpu", threads=2) as other:
        monkeypatch.setenv("MINIINFER_NUM_THREADS", "4")
        assert (engine.stats()["threads"], other.stats()["threads"]) == (3, 2)
    monkeypatch.setenv("MINIINFER_NUM_THREADS", "none")
    with pytest.raises(UsageError, match="MINIINFER_NUM_THREADS"):
        miniinfer_cli.load(plan, "cpu")
    with open_emulated(plan) as engine:  # a GPU's does not ask
        assert "threads" not in engine.stats()


@pytest.mark.parametrize("threads", [0, -1, 1025, 2.0, True, "2"])
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(UsageError, match=r"^threads: expected a whole number from 1 to 1024, got "):
        miniinfer_cli.load(plan_of(MODEL), "cpu", threads=threads)
