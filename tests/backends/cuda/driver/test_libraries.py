"""What is found of NVIDIA's libraries, and that looking for them loads none."""

import subprocess
import sys
from pathlib import Path

import pytest

from miniinfer_cli.backends.cuda.driver import libraries
from miniinfer_cli.backends.cuda.driver.libraries import find_headers, find_libraries, find_nvrtc


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A machine with nothing but an empty folder where wheels would be, which the test fills."""
    monkeypatch.setattr(libraries, "_wheel_folders", lambda: [tmp_path])
    monkeypatch.setattr(libraries, "_wheel_version", lambda package: None)
    monkeypatch.setattr(libraries, "_LIBRARY_FOLDERS", (str(tmp_path / "system"),))
    monkeypatch.setattr(libraries, "_INCLUDE_FOLDERS", ())
    find_headers.cache_clear()
    yield tmp_path
    find_headers.cache_clear()


def test_nvrtc_is_found_in_its_wheel():
    library = find_nvrtc()
    assert library.found and library.path and library.path.name == "libnvrtc.so.13"
    assert (library.version or "").startswith("13.")


def test_what_is_missing_says_what_for(empty: Path):
    found = find_libraries()
    assert [library.name for library in found] == [
        "cuda.bindings",
        "NVRTC",
        "cuBLASLt",
        "cuDNN",
        "cudnn-frontend",
        "CUDA headers",
    ]
    for library in found:
        assert (library.found, library.version, library.path) == (False, None, None)
        assert library.package and library.purpose


def test_a_library_of_the_system_has_its_version_from_its_file(empty: Path):
    (empty / "system").mkdir()
    (empty / "system" / "libnvrtc.so.13.1.80").write_bytes(b"")
    (empty / "system" / "libnvrtc.so.13").symlink_to("libnvrtc.so.13.1.80")
    assert (find_nvrtc().version, find_nvrtc().path) == ("13.1.80", empty / "system" / "libnvrtc.so.13")


def test_headers_count_only_with_those_that_they_need(empty: Path):
    include = empty / "cu13" / "include"
    (include / "crt").mkdir(parents=True)
    (include / "cuda_fp16.h").write_text("")
    assert find_headers() is None
    find_headers.cache_clear()
    (include / "crt" / "host_defines.h").write_text("")
    assert find_headers() == (include, None, "unknown")
    find_headers.cache_clear()
    (include / "cuda_runtime_api.h").write_text("#define CUDART_VERSION  13010\n")
    (include / "cccl").mkdir()
    assert find_headers() == (include, include / "cccl", "13.1")


def test_looking_loads_nothing():
    script = (
        "import sys; from miniinfer_cli.backends.cuda.driver.libraries import find_libraries; find_libraries()\n"
        "maps = open('/proc/self/maps').read()\n"
        "print([m for m in sys.modules if m.startswith(('cuda.bindings.', 'cudnn'))], 'nvrtc' in maps or 'cublas' in maps)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "[] False\n"
