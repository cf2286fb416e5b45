"""Where commands write: tried beforehand, never over what is read, never two in one, and whole or not at all."""

import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from miniinfer_cli.cli import measuring, outputs
from miniinfer_cli.cli.outputs import Output, Source, check_outputs, opened_for_writing
from miniinfer_cli.errors import OutOfMemoryError, UsageError
from tests.cli.conftest import mlp

QUICK = ("--duration", "0", "--warmup", "0", "--iterations", "1", "--device", "cpu")


@pytest.fixture
def external(tmp_path) -> Path:
    """``mlp()`` with its weights in w.bin."""
    onnx.save_model(mlp(64), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return tmp_path / "m.onnx"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.mark.parametrize("spelling", ["w.bin", "./w.bin", "hard", "soft", "chain", "folder/w.bin"])
@pytest.mark.parametrize("flag", ["-o", "--json"])
def test_no_output_is_the_external_data_of_the_model(miniinfer, external, monkeypatch, flag, spelling):
    monkeypatch.chdir(external.parent)
    Path("hard").hardlink_to("w.bin")
    Path("soft").symlink_to("w.bin")
    Path("chain").symlink_to("soft")
    Path("folder").symlink_to(".")
    before = contents(external.parent)
    outcome = miniinfer("build", external.name, "-q", flag, spelling)
    name = {"-o": "--output"}.get(flag, flag)
    assert (outcome.code, outcome.err) == (
        2,
        f"miniinfer: error: {Path(spelling)}: {name} would overwrite the file that is read\n"
        f"  hint: it is data of the model; give another file by {name}\n",
    )
    assert contents(external.parent) == before


def test_data_inside_branches_is_known(tmp_path, miniinfer):
    helper, kind = onnx.helper, onnx.TensorProto
    tensors = []
    for name in ("then.bin", "else.bin"):
        (tmp_path / name).write_bytes(bytes(4))
        tensor = kind(name="", data_type=kind.FLOAT, dims=[1], data_location=kind.EXTERNAL)
        tensor.external_data.add(key="location", value=name)
        tensors.append(tensor)
    y = helper.make_tensor_value_info("y", kind.FLOAT, [1])
    then, other = (
        helper.make_graph([helper.make_node("Constant", [], ["y"], value=t)], n, [], [y])
        for t, n in zip(tensors, "ab", strict=True)
    )
    then.node[0].output[0] = then.output[0].name = "y1"
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("c", kind.BOOL, [])], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    for name in ("then.bin", "else.bin"):
        for command in ("build", "inspect"):
            outcome = miniinfer(command, tmp_path / "m.onnx", "-q", "--json", tmp_path / name)
            assert (outcome.code, "--json would overwrite the file that is read" in outcome.err) == (2, True)
            assert (tmp_path / name).read_bytes() == bytes(4)


def test_no_output_is_an_input_or_a_plugin(miniinfer, model, plan, tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=np.ones((1, 4), np.float32))
    (tmp_path / "a_plugin_of_two").mkdir()
    (tmp_path / "a_plugin_of_two" / "__init__.py").write_text("from a_plugin_of_two import inner\n")
    (tmp_path / "a_plugin_of_two" / "inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    given = ("--input", f"x={tmp_path / 'x.npz'}")
    before = contents(tmp_path)
    for command in (
        ("run", plan, *QUICK, *given, "--output"), ("run", plan, *QUICK, *given, "--json"),
        ("profile", plan, *QUICK, *given, "--json"), ("run", plan, *QUICK, *given, "--export-times"),
        ("build", model, "--verify", *given, "-o"),
        ("build", model, "--verify", *given, "--json"),
    ):  # fmt: skip
        outcome = miniinfer(*command, tmp_path / "x.npz")
        assert (outcome.code, "it is the input 'x'; " in outcome.err) == (2, True), command
    for command in (("build", model), ("run", plan, *QUICK), ("inspect", plan), ("inspect", model), ("profile", plan, *QUICK)):
        for file in ("__init__.py", "inner.py"):
            path = tmp_path / "a_plugin_of_two" / file
            outcome = miniinfer(*command, "--plugin", "a_plugin_of_two", "--json", path)
            assert (outcome.code, "it is a plugin; " in outcome.err) == (2, True), command
            assert "miniinfer" not in path.read_text()
    assert contents(tmp_path) == before


def test_the_data_of_a_tensor_file_is_no_output(miniinfer, plan, tmp_path):
    kind = onnx.TensorProto
    tensor = kind(name="x", data_type=kind.FLOAT, dims=[1, 4], data_location=kind.EXTERNAL)
    tensor.external_data.add(key="location", value="x.bin")
    (tmp_path / "x.pb").write_bytes(tensor.SerializeToString())
    (tmp_path / "x.bin").write_bytes(bytes(16))
    outcome = miniinfer("run", plan, *QUICK, "--input", f"x={tmp_path / 'x.pb'}", "--output", tmp_path / "x.bin")
    assert (outcome.code, "it is the data of the input 'x'; " in outcome.err) == (2, True)
    assert (tmp_path / "x.bin").read_bytes() == bytes(16)


def test_the_figures_of_the_devices_are_no_output(miniinfer, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIINFER_CACHE", str(tmp_path))
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "gpu.json").write_text("{}")
    outcome = miniinfer("devices", "--json", tmp_path / "devices" / "gpu.json")
    assert (outcome.code, "it is what devices --measure found; " in outcome.err) == (2, True)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("second", ["a", "./a", "folder/a", "soft", "absolute", "hard"])
def test_no_two_outputs_are_one_file(miniinfer, model, plan, tmp_path, monkeypatch, second, there):
    monkeypatch.chdir(tmp_path)
    Path("folder").symlink_to(tmp_path)
    Path("soft").symlink_to("a")
    if there or second == "hard":
        Path("a").write_text("old")
        Path("hard").hardlink_to("a")
    second = str(tmp_path / "a") if second == "absolute" else second
    before = contents(tmp_path)
    for words, flags in (
        (("build", model, "-o", "a", "--json", second), ("--json", "--output")),
        (("run", plan, *QUICK, "--output", "a", "--json", second), ("--json", "--output")),
        (("run", plan, *QUICK, "--export-times", second, "--json", "a"), ("--export-times", "--json")),
        (("run", plan, *QUICK, "--output", second, "--export-times", "a"), ("--export-times", "--output")),
    ):
        outcome = miniinfer(*words)
        assert (outcome.code, f": {flags[0]} is the same file as {flags[1]}\n" in outcome.err) == (2, True), words
    assert contents(tmp_path) == before


def test_devices_and_descriptors_take_several_outputs(miniinfer, plan):
    outcome = miniinfer("run", plan, *QUICK, "-q", "--output", "/dev/null", "--json", "/dev/null", "--export-times", "/dev/null")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    outcome = miniinfer("run", plan, *QUICK, "--json", "-", "--export-times", "-")
    assert (outcome.code, outcome.err.startswith("miniinfer: error: -: --export-times is the same file as --json")) == (2, True)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "a folder, not a file"),
        ("absent/a", "cannot be written: there is no folder"),
        ("file/a", "cannot be written: Not a directory"),
        ("x" * 300, "cannot be written: File name too long"),
        ("loop", "cannot be written: Too many levels of symbolic links"),
        ("dangling", "cannot be written: there is no folder"),
    ],
)
def test_places_are_tried_before_anything_is_done(miniinfer, model, plan, tmp_path, monkeypatch, place, message):
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("it began to work")

    monkeypatch.setattr("miniinfer_cli.cli.build.build_plan", never)
    monkeypatch.setattr(measuring, "load", never)
    monkeypatch.setattr("miniinfer_cli.cli.inspect.thaw", never)
    monkeypatch.setattr("miniinfer_cli.cli.devices.take_inventory", never)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("absent/a")
    for words in (
        ("build", model, "-o"), ("build", model, "--json"), ("run", plan, "--output"), ("run", plan, "--json"),
        ("run", plan, "--export-times"), ("profile", plan, "--json"), ("inspect", plan, "--json"), ("inspect", model, "--json"),
        ("devices", "--json"),
    ):  # fmt: skip
        outcome = miniinfer(*words, tmp_path / place)
        assert (outcome.code, message in outcome.err) == (2, True), (words, outcome.err)


def test_protected_files_and_folders_are_refused(tmp_path, monkeypatch):
    old = tmp_path / "old"
    old.write_text("old")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **k: mode != os.W_OK or path != old, raising=True)
    with pytest.raises(UsageError, match="old: cannot be written: Permission denied"):
        check_outputs([Output("--json", old)], [])
    monkeypatch.setattr(os, "access", access)
    check_outputs([Output("--json", old)], [])

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs, "expect_writable", refuse)
    with pytest.raises(UsageError, match="Permission denied\n  hint: its folder must take a new file"):
        check_outputs([Output("--json", old)], [])


def test_standard_output_is_for_json(miniinfer, model, plan):
    for words, flag in ((("build", model, "-o", "-"), "--output"), (("run", plan, *QUICK, "--output", "-"), "--output")):
        outcome = miniinfer(*words)
        hint = f"  hint: give {flag} a file\n"
        assert (outcome.code, outcome.err) == (2, f"miniinfer: error: {flag} -: only JSON goes to standard output\n{hint}")
    times = miniinfer("run", plan, *QUICK, "--export-times", "-")
    assert json.loads(times.out)
    assert '"end_to_end_ms"' in times.out


def test_what_is_printed_to_a_file_is_an_output_too(tmp_path, monkeypatch):
    (tmp_path / "log").write_text("")
    status = (tmp_path / "log").stat()
    monkeypatch.setattr(outputs, "_printed_to", lambda fd: (status.st_dev, status.st_ino) if fd == 1 else None)
    with pytest.raises(UsageError, match="--json is the same file as standard output"):
        check_outputs([Output("--json", tmp_path / "log")], [])


def test_sources_are_looked_at_only_where_a_file_could_be_lost(tmp_path):
    def never():
        raise AssertionError("looked at")
        yield Source(tmp_path)

    check_outputs([Output("--json", tmp_path / "new"), Output("--output", None)], never())
    (tmp_path / "new").write_text("")
    with pytest.raises(AssertionError, match="looked at"):
        check_outputs([Output("--json", tmp_path / "new")], never())


def test_a_report_is_whole_or_as_it_was_and_keeps_mode_and_link(miniinfer, plan, tmp_path, monkeypatch):
    for name, flag in (("o.npz", "--output"), ("s.json", "--json"), ("t.json", "--export-times")):
        (tmp_path / f"real-{name}").write_bytes(b"old")
        (tmp_path / f"real-{name}").chmod(0o640)
        (tmp_path / name).symlink_to(f"real-{name}")
        replace = Path.replace

        def fail(self: Path, target: Path) -> Path:
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "replace", fail)
        assert miniinfer("run", plan, *QUICK, flag, tmp_path / name).code == 130
        assert (tmp_path / name).read_bytes() == b"old"
        monkeypatch.setattr(Path, "replace", replace)
        assert miniinfer("run", plan, *QUICK, flag, tmp_path / name).code == 0
        assert (tmp_path / name).is_symlink()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
        assert (tmp_path / name).read_bytes() != b"old"
    assert not list(tmp_path.glob(".miniinfer-*"))


def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    (tmp_path / "s.json").write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfMemoryError, match=r"s\.json: the disk is full"), opened_for_writing(tmp_path / "s.json") as file:
        file.write(b"new")
    assert contents(tmp_path) == {"s.json": b"old"}


def test_a_pipe_is_written_straight_on_and_may_close_early(miniinfer, plan, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for flag in ("--json", "--output"):
        got: list[bytes] = []
        reader = threading.Thread(target=lambda got=got: got.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        assert miniinfer("run", plan, *QUICK, "-q", flag, tmp_path / "pipe").code == 0
        reader.join()
        assert got[0][:1] == b"{" if flag == "--json" else got[0][:2] == b"PK"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with opened_for_writing(tmp_path / "pipe") as file:
        os.close(reading)
        file.write(bytes(1 << 20))


def test_a_descriptor_is_written_where_it_stands(tmp_path):
    (tmp_path / "log").write_bytes(b"before ")
    with (tmp_path / "log").open("ab") as log:
        check_outputs([Output("--json", Path(f"/dev/fd/{log.fileno()}"))], [])
        with opened_for_writing(Path(f"/dev/fd/{log.fileno()}")) as file:
            file.write(b"after")
        log.write(b" end")
    assert (tmp_path / "log").read_bytes() == b"before after end"
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_descriptors_that_cannot_be_written_are_told_beforehand(tmp_path):
    (tmp_path / "log").write_bytes(b"")
    with (tmp_path / "log").open("rb") as log:
        with pytest.raises(UsageError, match="cannot be written: it is open for reading"):
            check_outputs([Output("--json", Path(f"/dev/fd/{log.fileno()}"))], [])
        number = log.fileno()
    with pytest.raises(UsageError, match="cannot be written: Bad file descriptor"):
        check_outputs([Output("--json", Path(f"/dev/fd/{number}"))], [])


def test_a_plan_must_be_a_file(miniinfer, model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/null"):
        outcome = miniinfer("build", model, "-o", place)
        assert (outcome.code, outcome.err) == (
            2,
            f"miniinfer: error: {place}: --output must be a file, no pipe, device or socket\n"
            "  hint: --dry-run builds without writing\n",
        )


def test_a_dry_run_writes_no_plan(miniinfer, model, tmp_path):
    outcome = miniinfer("build", model, "--dry-run", "--verify", "--json", tmp_path / "s.json")
    assert outcome.code == 0
    assert any(line.startswith("Plan: nothing was written (--dry-run; ") for line in outcome.out.splitlines())
    document = json.loads((tmp_path / "s.json").read_text())
    assert (document["plan"], document["plan_bytes"], document["verification"]["ok"]) == (None, None, True)
    assert sorted(contents(tmp_path)) == ["mlp.onnx", "s.json"]
    assert miniinfer("build", model, "--dry-run", "-q", "-o", tmp_path / "absent" / "a.plan").code == 0


@pytest.mark.parametrize("flag", ["-o", "--json"])
def test_a_way_through_a_folder_that_is_not_there_leads_nowhere(miniinfer, model, flag):
    before = model.read_bytes()
    outcome = miniinfer("build", model, "--dry-run" if flag == "--json" else "-q", flag, f"{model.parent}/gone/../{model.name}")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"cannot be written: there is no folder '{model.parent}/gone/..'" in outcome.err
    assert model.read_bytes() == before
