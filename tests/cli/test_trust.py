"""Signing and trusting GPU code on the command line."""

import json
import re
from pathlib import Path

import pytest

from engine_format import StoredKernel, TargetSection
from miniinfer_cli.builder import targets


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files with keys. Compiling takes no time."""
    section = TargetSection("sm_90", {"nvrtc": "12.9"}, kernels=(StoredKernel("k", "0123", b"\x7fELF"),))
    monkeypatch.setattr(targets, "compile_section", lambda *_: section)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MINIINFER_TRUST_KEY", raising=False)
    paths = [tmp_path / "a.key", tmp_path / "b.key"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 32)
        path.chmod(0o600)
    return paths


def test_inspect_says_who_is_trusted(miniinfer, model, keys, tmp_path, monkeypatch):
    def shown(plan: Path, *flags: object) -> tuple[str, str]:
        outcome = miniinfer("inspect", plan, *flags)
        (line,) = re.findall(r"Target: sm_90, 0 tactics, 1 kernels, (.*)", outcome.out)
        return line, json.loads(miniinfer("inspect", plan, "--json", "-", *flags).out)["targets"][0]["trust"]

    own, given, none = (tmp_path / f"{name}.plan" for name in ("own", "given", "none"))
    assert miniinfer("build", model, "-o", own, "--arch", "sm_90").code == 0
    assert miniinfer("build", model, "-o", given, "--arch", "sm_90", "--sign-key", keys[0]).code == 0
    assert shown(own) == ("trusted", "trusted")
    other = "signed by no key known here"
    assert shown(given) == (other, other)
    assert shown(given, "--trust-key", keys[0]) == ("trusted", "trusted")
    assert shown(given, "--trust-key", keys[1]) == (other, other)
    monkeypatch.setenv("MINIINFER_TRUST_KEY", str(keys[0]))
    assert shown(given) == ("trusted", "trusted")
    assert shown(given, "--trust-key", keys[1]) == (other, other)
    monkeypatch.setattr(targets, "user_key", lambda make: None)
    assert miniinfer("build", model, "-o", none, "--arch", "sm_90").code == 0
    assert shown(none) == ("not signed", "not signed")


def test_a_key_that_signs_nothing_is_noted(miniinfer, model, keys):
    outcome = miniinfer("build", model, "--dry-run", "--sign-key", keys[0])
    assert outcome.code == 0
    assert "Note: --sign-key signed nothing: it signs what --arch compiles" in outcome.out


def test_faulty_keys_end_every_command(miniinfer, model, plan, keys):
    keys[1].chmod(0o644)
    for command in (
        ("build", model, "--dry-run", "--sign-key", keys[1]),
        ("run", plan, "--device", "cpu", "--trust-key", keys[1]),
        ("profile", plan, "--device", "cpu", "--trust-key", keys[1]),
        ("inspect", plan, "--trust-key", keys[1]),
    ):
        outcome = miniinfer(*command)
        assert outcome.code == 2
        said = f"key '{keys[1]}': others may read or write the key: its mode is 0644\n  hint: chmod 600 {keys[1]}\n"
        assert outcome.err == f"miniinfer: error: {said}"


def test_flags_that_contradict_each_other(miniinfer, plan):
    outcome = miniinfer("run", plan, "--ignore-targets", "--trust-targets", "always")
    assert (outcome.code, outcome.err) == (
        2,
        "miniinfer: error: --ignore-targets and --trust-targets always exclude each other\n  hint: leave one of them out\n",
    )


def test_no_output_is_written_over_a_key(miniinfer, model, plan, keys):
    for command in (
        ("build", model, "--sign-key", keys[0], "-o", keys[0]),
        ("run", plan, "--trust-key", keys[0], "--output", keys[0]),
        ("inspect", plan, "--trust-key", keys[0], "--json", keys[0]),
    ):
        outcome = miniinfer(*command)
        assert outcome.code == 2
        assert "would overwrite the file that is read\n  hint: it is the key" in outcome.err
    assert keys[0].read_bytes() == bytes(32)
