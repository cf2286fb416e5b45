"""A kernel is compiled once per machine, whoever asks; the folder may be shared, damaged or unwritable."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from miniinfer_cli.backends.cuda.driver import kernel_cache
from miniinfer_cli.backends.cuda.driver.kernel_cache import CacheCounts, KernelCache, KernelSource
from miniinfer_cli.backends.cuda.driver.nvrtc import KernelCompileError
from tests.logs import Logged

TEXT = 'extern "C" __global__ void k(int* x) { x[0] = MI_VALUE; }'


def kernel(value: int = 1, arch: int = 90, headers: dict[str, str] | None = None) -> KernelSource:
    return KernelSource(TEXT, "k", arch, headers or {}, (f"-DMI_VALUE={value}",))


def get(cache: KernelCache, source: KernelSource) -> bytes:
    return cache.get(source).code


def test_memory_then_folder_then_compiler(tmp_path: Path):
    first = KernelCache(tmp_path / "new" / "folder")
    cubin = get(first, kernel())
    assert get(first, kernel()) is cubin
    assert first.counts == CacheCounts(memory_hits=1, compiles=1)
    second = KernelCache(first.folder)
    assert get(second, kernel()) == cubin
    assert second.counts == CacheCounts(folder_hits=1)
    assert [p.suffix for p in (tmp_path / "new" / "folder").iterdir()] == [".cubin"]


@pytest.mark.parametrize(
    "other",
    [
        kernel(2),
        kernel(arch=80),
        kernel(headers={"a.h": ""}),
        kernel(headers={"a.h": "//"}),
        kernel(headers={"b.h": ""}),
        KernelSource(TEXT + " ", "k", 90, {}, ("-DMI_VALUE=1",)),
        KernelSource(TEXT, "l", 90, {}, ("-DMI_VALUE=1",)),
        KernelSource(TEXT, "k", 90, {}, ("-DMI_VALUE=1", "-lineinfo")),
        KernelSource(TEXT, "k", 90, {"-DMI_VALUE=1": "-lineinfo"}, ("-DMI_VALUE=1",)),
    ],
)
def test_whatever_the_code_depends_on_is_in_the_key(tmp_path: Path, other: KernelSource):
    cache = KernelCache(tmp_path)
    get(cache, kernel())
    get(cache, other)
    assert cache.counts == CacheCounts(compiles=2)


def test_names_and_contents_of_headers_are_told_apart(tmp_path: Path):
    cache = KernelCache(tmp_path)
    for headers in ({"a.h": ""}, {"a.h": "//"}, {"a.h": "", "b.h": "//"}, {"a.h": "//", "b.h": ""}):
        get(cache, kernel(headers=headers))
    assert cache.counts == CacheCounts(compiles=4)
    get(cache, kernel(headers={"b.h": "", "a.h": "//"}))
    assert cache.counts == CacheCounts(memory_hits=1, compiles=4)


def test_another_compiler_or_other_cuda_headers_compile_again(tmp_path: Path):
    get(KernelCache(tmp_path), kernel())
    cache = KernelCache(tmp_path)
    cache.__dict__["_compiler"] = ("13.99", "13.0")
    get(cache, kernel())
    assert cache.counts == CacheCounts(compiles=1)


def test_a_file_under_the_name_of_another_kernel_is_not_taken(tmp_path: Path):
    first = get(KernelCache(tmp_path), kernel(1))
    (one,) = tmp_path.iterdir()
    second = get(KernelCache(tmp_path), kernel(2))
    (two,) = set(tmp_path.iterdir()) - {one}
    two.write_bytes(one.read_bytes())
    cache = KernelCache(tmp_path)
    assert (get(cache, kernel(2)), get(cache, kernel(1))) == (second, first)
    assert cache.counts == CacheCounts(compiles=1, damaged=1, folder_hits=1)


def test_compile_many_tells_which_were_not_there(tmp_path: Path):
    get(KernelCache(tmp_path), kernel(2))
    cache, compiled = KernelCache(tmp_path), set()
    get(cache, kernel(1))
    cache.compile_many([kernel(1), kernel(2), kernel(3)], compiled=compiled)
    assert compiled == {2}


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: b"",
        lambda raw: b"X" + raw[1:],
        lambda raw: raw[:40],
    ],
    ids=["cut", "flipped", "empty", "other magic", "no cubin"],
)
def test_a_damaged_file_is_compiled_again_and_mended(tmp_path: Path, damage):
    cubin = get(KernelCache(tmp_path), kernel())
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    cache = KernelCache(tmp_path)
    assert get(cache, kernel()) == cubin
    assert cache.counts == CacheCounts(compiles=1, damaged=1)
    assert get(KernelCache(tmp_path), kernel()) == cubin


def test_a_folder_that_cannot_be_written_is_logged_once(tmp_path: Path, logged: Logged):
    (tmp_path / "file").write_text("in the way")
    cache = KernelCache(tmp_path / "file" / "cache")
    with logged.at_level(logging.INFO):
        assert get(cache, kernel(1)) is get(cache, kernel(1))
        get(cache, kernel(2))
    assert cache.counts == CacheCounts(memory_hits=1, compiles=2)
    assert logged.messages == [f"kernels are not kept: {cache.folder}: Not a directory"]


def test_of_a_folder_that_everybody_may_write_nothing_is_taken(tmp_path: Path, logged: Logged):
    get(KernelCache(tmp_path), kernel(1))
    tmp_path.chmod(0o777)
    cache = KernelCache(tmp_path)
    with logged.at_level(logging.INFO):
        get(cache, kernel(1))
        get(cache, kernel(2))
    assert cache.counts == CacheCounts(compiles=2) and len(list(tmp_path.iterdir())) == 1
    (record,) = logged.records
    assert record.getMessage().endswith(f"{tmp_path}: the folder is another account's, or everybody may write in it")


def test_without_a_folder_it_keeps_them_in_memory():
    cache = KernelCache(None)
    assert get(cache, kernel()) is get(cache, kernel())
    assert cache.counts == CacheCounts(memory_hits=1, compiles=1)


def test_threads_that_ask_for_one_kernel_compile_it_once(tmp_path: Path):
    cache = KernelCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        cubins = list(pool.map(lambda _: get(cache, kernel()), range(16)))
    assert len(set(cubins)) == 1
    assert cache.counts == CacheCounts(memory_hits=15, compiles=1)


def test_many_kernels_come_in_their_order(tmp_path: Path):
    cache = KernelCache(tmp_path)
    sources = [kernel(1), kernel(2), kernel(1), kernel(3)]
    cubins = cache.compile_many(sources, workers=3)
    assert cubins == [get(KernelCache(tmp_path), source) for source in sources]
    assert cache.counts.compiles == 3
    assert cache.compile_many([]) == []


def test_one_that_does_not_compile_is_told_after_the_others_are_done(tmp_path: Path):
    cache = KernelCache(tmp_path)
    broken = KernelSource("wrong", "broken", 90)
    with pytest.raises(KernelCompileError, match="kernel broken"):
        cache.compile_many([kernel(1), broken, kernel(2)])
    assert cache.counts.compiles == 2


def test_a_fault_that_passes_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> bytes:
        raise KernelCompileError("k", "error: no", "")

    cache = KernelCache(None)
    with monkeypatch.context() as patch:
        patch.setattr(kernel_cache, "compile_kernel", refuse)
        with pytest.raises(KernelCompileError):
            get(cache, kernel())
    assert get(cache, kernel())


PROCESS = """
import sys
from pathlib import Path
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache, KernelSource
cache = KernelCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for value in range(4):
    cubin = cache.get(KernelSource(sys.argv[2], "k", 90, {}, (f"-DMI_VALUE={value}",))).code
    print(len(cubin), cubin[:4] == b"\\x7fELF", flush=True)
"""


def test_two_processes_at_once_share_a_folder(tmp_path: Path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path), TEXT]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert told[0] == told[1] and told[0].count("True") == 4
    assert len(list(tmp_path.iterdir())) == 4
    cache = KernelCache(tmp_path)
    for value in range(4):
        get(cache, kernel(value))
    assert cache.counts == CacheCounts(folder_hits=4)


def test_a_hit_does_not_load_the_compiler(tmp_path: Path):
    get(KernelCache(tmp_path), kernel())
    script = (
        "import sys; from pathlib import Path\n"
        "from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache, KernelSource\n"
        "cache = KernelCache(Path(sys.argv[1])); cache.get(KernelSource(sys.argv[2], 'k', 90, {}, ('-DMI_VALUE=1',)))\n"
        "print(cache.counts.folder_hits, 'cuda.bindings.nvrtc' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path), TEXT], capture_output=True, text=True, check=True)
    assert told.stdout == "1 False\n"


def test_the_compiler_s_log_is_kept_with_the_kernel(tmp_path: Path):
    made = KernelCache(tmp_path).get(kernel())
    assert "Compiling entry function 'k' for 'sm_90'" in made.log
    assert KernelCache(tmp_path).get(kernel()) == made


def test_kernels_beyond_the_limit_go(tmp_path: Path):
    nbytes = len(KernelCache(tmp_path / "one").get(kernel()).code)
    cache = KernelCache(tmp_path / "two", 2 * nbytes + 4096)
    for value in range(6):
        get(cache, kernel(value))
    left = list((tmp_path / "two").iterdir())
    assert 1 <= len(left) < 6 and sum(p.stat().st_size for p in left) <= 2 * nbytes + 4096
    again = KernelCache(tmp_path / "two")
    get(again, kernel(5))
    assert again.counts == CacheCounts(folder_hits=1)
