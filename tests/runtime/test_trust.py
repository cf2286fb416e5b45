"""Whose kernels an engine takes from a plan, and the files that hold the keys."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine_format import Plan, PlanError, read_plan, write_plan
from engine_format.signing import is_signed, sign
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.targets import targets_of, with_targets
from miniinfer_cli.devices.opening import load_with
from miniinfer_cli.errors import PlanFileError, UsageError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime import trust
from tests.emulation.engine import open_emulated, plan_of
from tests.logs import Logged

TEXT = "graph main(x: f32[batch,64]) {\n  y = Softmax(x)\n  return y\n}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account of its own, without a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MINIINFER_TRUST_KEY", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def unsigned() -> Plan:
    """A plan with kernels for sm_90, compiled once."""
    plan = plan_of(TEXT)
    return with_targets(plan, thaw(plan), [90])


def key_file(path: Path, contents: bytes = bytes(range(64)), mode: int = 0o600) -> Path:
    path.write_bytes(contents)
    path.chmod(mode)
    return path


def signed(plan: Plan, key: Path) -> Plan:
    return replace(plan, targets=tuple(sign(t, key.read_bytes()) for t in plan.targets))


class FakeDevice:
    """Loads any code, and notes it."""

    ordinal, arch, multiprocessors, shared_nbytes, allocations = 0, 90, 1, 1 << 16, 0

    def __init__(self) -> None:
        self.loaded: list[bytes] = []

    def load(self, cubin: bytes) -> Any:
        self.loaded.append(cubin)
        return SimpleNamespace(function=lambda name: name, close=lambda: None)


def taken(plan: Plan, options: DeviceOptions, cache: KernelCache) -> tuple[int, int, list[tuple[int, float]]]:
    """Kernels of the plan that an engine with these options takes, those that it compiles, and what it tells of these."""
    functions = Functions(FakeDevice(), cache)
    told: list[tuple[int, float]] = []
    vet = trust.vet_for(options)
    kept = [v for t in plan.targets if (v := vet(t)) is not None]
    functions.use_stored({k.source: k for t in kept for k in t.kernels})
    refused = frozenset(k.source for t in plan.targets for k in t.kernels)
    functions.refuse(refused if not kept else frozenset(), lambda *what: told.append(what))
    functions.prepare(make_program(thaw(plan), [TensorType(DType.F32, (1, 64))], Target()).kernels)
    return functions.taken, cache.counts.compiles, told


def test_a_plan_of_this_account_is_trusted_and_one_from_elsewhere_is_compiled_once(
    unsigned: Plan, home: Path, monkeypatch: pytest.MonkeyPatch
):
    own = targets_of(["sm_90"], None)
    assert own is not None
    path = trust.user_key_path()
    assert path == home / "config/miniinfer/signing.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    plan, cache = signed(unsigned, path), KernelCache(home / "cache")
    assert taken(plan, DeviceOptions(), cache) == (1, 0, [])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "another account"))
    count, compiles, told = taken(plan, DeviceOptions(), cache)
    assert (count, compiles, [n for n, _ in told]) == (0, 1, [1])
    assert told[0][1] > 0
    again = KernelCache(home / "cache")
    assert taken(plan, DeviceOptions(), again) == (0, 0, [])  # it is in the cache, so nothing is told
    key = key_file(home / "key", path.read_bytes())
    assert taken(plan, DeviceOptions(trust_key=key), KernelCache(None)) == (1, 0, [])
    assert taken(plan, DeviceOptions(trust_targets="always"), KernelCache(None)) == (1, 0, [])
    assert not (home / "another account").exists()  # looking makes no key


def test_the_key_that_signs_is_the_one_that_is_given(unsigned: Plan, home: Path, monkeypatch: pytest.MonkeyPatch):
    key = key_file(home / "key")
    monkeypatch.setattr("miniinfer_cli.builder.targets.compile_section", lambda graphs, types, arch: unsigned.targets[0])
    made = targets_of(["sm_90"], str(key))
    assert made is not None
    plan = plan_of(TEXT)
    (section,) = made(plan, thaw(plan)).targets
    assert is_signed(section, [key.read_bytes()])
    assert trust.user_key() is None  # none was needed


def test_an_engine_vets_the_sections_of_its_own_architecture(unsigned: Plan, home: Path):
    seen: list[Any] = []
    key = key_file(home / "key")
    plan = signed(unsigned, key)
    for options, count in [
        (DeviceOptions(), 0),
        (DeviceOptions(trust_key=key), 1),
        (DeviceOptions(trust_targets="always"), 1),
        (DeviceOptions(trust_targets="never"), None),
        (DeviceOptions(ignore_targets=True), None),
    ]:
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.emulation.device.EmulatedFunctions.use_stored", lambda self, kernels: seen.append(len(kernels)))
            refused = "tests.emulation.device.EmulatedFunctions.refuse"
            patch.setattr(refused, lambda self, sources, tell: (tell(len(sources), 1.25), tell(1, 0.25)))
            with open_emulated(plan, options=options) as engine:
                n = len(plan.targets[0].kernels)
                assert seen == ([] if count is None else [count * n])
                told = count == 0
                assert engine.notes == (
                    (
                        f"{n + 1} kernels of the plan compiled again into the cache in 1.5 s, since no key known here signed the"
                        " plan's own: --trust-key FILE (trust_key=) or --trust-targets always (trust_targets=) avoids it",
                    )
                    if told
                    else ()
                )
                engine.run({"x": np.zeros((2, 64), np.float32)})


def test_a_damaged_kernel_is_told_when_the_plan_is_opened(unsigned: Plan, home: Path):
    write_plan(unsigned, home / "a.plan")
    data = bytearray((home / "a.plan").read_bytes())
    data[data.index(b"\x7fELF") + 100] ^= 1
    (home / "a.plan").write_bytes(data)
    with read_plan(home / "a.plan") as plan:
        with pytest.raises(PlanFileError, match="a kernel does not match its digest"):
            open_emulated(plan)
        assert trust.standing(plan.targets[0], []) == "damaged"
        with pytest.raises(PlanError):
            plan.targets[0].kernels[0].read()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, r"no such file\n  hint: make one: "),
        (lambda p: p.mkdir(), r"is a folder, not a key"),
        (lambda p: key_file(p, b""), "a key has 32 to 4096 bytes, got 0"),
        (lambda p: key_file(p, bytes(31)), "a key has 32 to 4096 bytes, got 31"),
        (lambda p: key_file(p, bytes(5000)), "a key has 32 to 4096 bytes, got more than 4096"),
        (lambda p: key_file(p, mode=0o640), r"others may read or write the key: its mode is 0640\n  hint: chmod 600 "),
        (lambda p: key_file(p, mode=0o604), "its mode is 0604"),
        (lambda p: key_file(p, mode=0o620), "its mode is 0620"),
        (lambda p: os.mkfifo(p, 0o600), "is not a regular file"),
    ],
)
def test_files_that_are_no_keys(make: Any, message: str, home: Path):
    make(home / "key")
    with pytest.raises(UsageError, match=message) as caught:
        trust.read_key(home / "key")
    assert caught.value.where == (f"key '{home / 'key'}'",)
    with pytest.raises(UsageError, match=message):  # also on a CPU, which has no use for it
        load_with(plan_of(TEXT), "cpu", {"trust_key": home / "key"})
    with pytest.raises(UsageError, match=message):
        targets_of([], home / "key")


def status(mode: int, owner: int) -> Any:
    return SimpleNamespace(st_mode=stat.S_IFREG | mode, st_uid=owner)


@pytest.mark.parametrize(
    ("mode", "owner", "message"),
    [
        (0o600, 1000, ""),
        (0o400, 0, ""),
        (0o440, 0, ""),  # handed over by root to a group of this account's, as containers do
        (0o444, 0, "its mode is 0444"),
        (0o460, 0, "its mode is 0460"),
        (0o440, 1000, "its mode is 0440"),
        (0o600, 1001, "the key belongs to another account"),
    ],
)
def test_who_may_own_and_read_a_key(mode: int, owner: int, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if message:
        with pytest.raises(UsageError, match=message):
            trust._expect_private(Path("key"), status(mode, owner))
    else:
        trust._expect_private(Path("key"), status(mode, owner))


def test_the_own_key_is_never_one_that_others_may_read(home: Path, unsigned: Plan):
    trust.user_key(make=True)
    path = trust.user_key_path()
    assert path is not None
    path.chmod(0o644)
    with pytest.raises(UsageError, match="its mode is 0644"):
        open_emulated(unsigned)
    with pytest.raises(UsageError, match="its mode is 0644"):
        targets_of(["sm_90"], None)
    with open_emulated(plan_of(TEXT)):  # which has no section to vet
        pass


def test_where_no_key_can_be_made_nothing_is_signed(home: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch):
    (home / "config").write_text("a file in the place of the folder")
    assert trust.user_key(make=True) is None
    assert "the kernels are not signed, since there is no key and none can be made" in logged.text
    (home / "config").unlink()
    (home / "config/miniinfer").mkdir(parents=True)
    (home / "config/miniinfer").chmod(0o777)
    assert trust.user_key(make=True) is None
    assert "everybody may write in it" in logged.text


def test_two_that_make_a_key_at_once_have_one(home: Path):
    first = trust.user_key(make=True)
    path = trust.user_key_path()
    assert path is not None
    trust._make_key(path)  # as a process that looked before there was one
    assert trust.user_key() == first
    assert [p.name for p in path.parent.iterdir()] == ["signing.key"]


def test_options_that_are_none(home: Path, monkeypatch: pytest.MonkeyPatch):
    for options, message in [
        ({"trust_targets": "yes"}, "trust_targets: expected one of auto, always, never, got 'yes'"),
        ({"trust_key": 3}, "trust_key: expected a file or None, got 3"),
        ({"ignore_targets": True, "trust_targets": "always"}, "exclude each other"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_with(plan_of(TEXT), "cpu", options)
    for archs, key, message in [("sm_90", None, "archs: expected a list"), (["sm_90"], 3, "sign_key: expected a file")]:
        with pytest.raises(UsageError, match=message):
            targets_of(archs, key)
    monkeypatch.setenv("MINIINFER_TRUST_KEY", str(home / "absent"))
    with pytest.raises(UsageError, match="no such file"):
        load_with(plan_of(TEXT), "cpu", {})
