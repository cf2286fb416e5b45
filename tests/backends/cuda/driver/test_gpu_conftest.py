"""The GPU tests' own rule: without a GPU one reason for all, with one no skip passes."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
TESTS = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no library")

@pytest.mark.skip(reason="marked")
def test_is_marked():
    pass

@pytest.mark.xfail
def test_is_expected_to_fail():
    assert False
"""


def outcome(folder: Path, fault: str | None, *files: str) -> str:
    (folder / "conftest.py").write_text(
        "from miniinfer_cli.backends.cuda.driver import device, presence\n"
        f"device.driver_fault = presence.driver_fault = lambda: {fault!r}\n"
    )
    gpu = folder / "gpu"
    gpu.mkdir()
    shutil.copy(ROOT / "tests" / "gpu" / "conftest.py", gpu)
    for number, text in enumerate(files):
        (gpu / f"test_{number}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--import-mode=importlib", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60).stdout


def test_without_a_gpu_no_file_is_run_and_one_reason_is_given(tmp_path: Path):
    told = outcome(tmp_path, "no driver", TESTS, "raise RuntimeError('imported')")
    assert "2 skipped" in told and "failed" not in told and "passed" not in told and "error" not in told
    assert told.count("no GPU: no driver") == 1


def test_with_a_gpu_a_skip_is_a_failure(tmp_path: Path):
    told = outcome(tmp_path, None, TESTS)
    # One that is skipped before it runs counts as an error.
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in told
    assert "test_skips was skipped on a machine with a GPU: Skipped: no library" in told
    assert "test_is_marked was skipped on a machine with a GPU: Skipped: marked" in told


def test_with_a_gpu_a_skipped_file_is_an_error(tmp_path: Path):
    told = outcome(tmp_path, None, "import pytest\npytest.skip('no library', allow_module_level=True)")
    assert "1 error" in told and "test_0.py was skipped on a machine with a GPU: " in told
