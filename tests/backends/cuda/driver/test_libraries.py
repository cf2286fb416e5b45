"""What is found of NVIDIA's libraries, and that looking for them loads none."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cuda import pathfinder

from miniinfer_cli.backends.cuda.driver import libraries
from miniinfer_cli.backends.cuda.driver.libraries import find_headers, find_libraries, library_versions, nvrtc_wheel


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A machine where nothing is installed; what pathfinder finds there is what the test puts into this."""
    found: dict[str, str] = {}
    monkeypatch.setattr(libraries, "_located", lambda: found)
    monkeypatch.setattr(libraries, "_wheel_version", lambda package: None)
    monkeypatch.setattr(pathfinder, "find_nvidia_header_directory", lambda name: found.get(f"{name} headers"))
    find_headers.cache_clear()
    yield found
    find_headers.cache_clear()


def named(name: str) -> Any:
    (library,) = (one for one in find_libraries() if one.name == name)
    return library


def test_nvrtc_is_found_in_its_wheel():
    library = named("NVRTC")
    assert library.found and library.path and library.path.name == "libnvrtc.so.13"
    assert library.version == nvrtc_wheel() == library_versions()["NVRTC"] and library.version.startswith("13.")


def test_what_is_missing_says_what_for(empty: dict[str, str]):
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
    assert library_versions() == {}


def test_a_library_of_the_system_has_its_version_from_its_file(empty: dict[str, str], tmp_path: Path):
    (tmp_path / "libnvrtc.so.13.1.80").write_bytes(b"")
    (tmp_path / "libnvrtc.so.13").symlink_to("libnvrtc.so.13.1.80")
    empty["nvrtc"] = str(tmp_path / "libnvrtc.so.13")
    assert (named("NVRTC").version, named("NVRTC").path) == ("13.1.80", tmp_path / "libnvrtc.so.13")
    assert library_versions() == {"NVRTC": "13.1.80"}


def test_versions_of_wheels_are_told_without_looking_further(empty: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(libraries, "_wheel_version", lambda package: f"1.0 of {package}")
    monkeypatch.setattr(libraries, "_located", None)
    assert library_versions()["cuDNN"] == "1.0 of nvidia-cudnn-cu13"


def test_headers_count_only_with_those_that_they_need(empty: dict[str, str], tmp_path: Path):
    (tmp_path / "crt").mkdir()
    (tmp_path / "cuda_fp16.h").write_text("")
    empty["cudart headers"] = str(tmp_path)
    assert find_headers() is None
    find_headers.cache_clear()
    (tmp_path / "crt" / "host_defines.h").write_text("")
    assert find_headers() == (tmp_path, None, "unknown")
    find_headers.cache_clear()
    (tmp_path / "cuda_runtime_api.h").write_text("#define CUDART_VERSION  13010\n")
    empty["cccl headers"] = str(tmp_path / "cccl")
    assert find_headers() == (tmp_path, tmp_path / "cccl", "13.1")


def test_where_pathfinder_cannot_be_asked_nothing_is_found(monkeypatch: pytest.MonkeyPatch):
    libraries._located.cache_clear()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not named("NVRTC").found
    libraries._located.cache_clear()


def test_looking_loads_nothing():
    script = (
        "import sys; from miniinfer_cli.backends.cuda.driver.libraries import find_libraries; find_libraries()\n"
        "maps = open('/proc/self/maps').read()\n"
        "print([m for m in sys.modules if m.startswith(('cuda.bindings.', 'cudnn'))], 'nvrtc' in maps or 'cublas' in maps)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "[] False\n"
