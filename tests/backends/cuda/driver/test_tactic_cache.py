"""The cache of tactics: what is put comes back, in another process too; damage, strangers and full disks cost entries only."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache

VALUE = bytes(range(256)) * 3


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_in_memory():
    cache = TacticCache()
    assert cache.get("cudnn", "key") is None
    cache.put("cudnn", "key", VALUE)
    assert cache.get("cudnn", "key") == VALUE
    assert cache.get("cudnn", "other") is None and cache.get("cublaslt", "key") is None


def test_another_cache_over_the_same_folder_reads_it(tmp_path: Path):
    folder = tmp_path / "made" / "when needed"
    for value in (VALUE, b"", b"second"):
        TacticCache(folder).put("cudnn", "key", value)
        assert TacticCache(folder).get("cudnn", "key") == value
    assert TacticCache(folder).get("cudnn", "kez") is None


def test_reading_makes_nothing(tmp_path: Path):
    assert TacticCache(tmp_path / "absent").get("cudnn", "key") is None
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("change", ["cut", "emptied", "bit", "longer", "magic"])
def test_damaged_entries_are_absent_and_can_be_replaced(change: str, tmp_path: Path):
    TacticCache(tmp_path).put("cudnn", "key", VALUE)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        changed = {
            "cut": whole[:position],
            "emptied": b"",
            "bit": whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :],
            "longer": whole + whole[:position] + b"x",
            "magic": b"MITACTC2" + whole[8:],
        }[change]
        path.write_bytes(changed)
        cache = TacticCache(tmp_path)
        assert cache.get("cudnn", "key") is None
        cache.put("cudnn", "key", VALUE)
        assert TacticCache(tmp_path).get("cudnn", "key") == VALUE


def test_a_whole_entry_of_another_key_is_absent(tmp_path: Path):
    TacticCache(tmp_path).put("cudnn", "key", VALUE)
    path = only_file(tmp_path)
    TacticCache(tmp_path).put("cudnn", "other", b"more")
    (other,) = set(tmp_path.iterdir()) - {path}
    other.write_bytes(path.read_bytes())
    assert TacticCache(tmp_path).get("cudnn", "other") is None


def test_of_a_folder_that_everybody_may_write_nothing_is_taken(tmp_path: Path):
    TacticCache(tmp_path).put("cudnn", "key", VALUE)
    tmp_path.chmod(0o777)
    cache = TacticCache(tmp_path)
    assert cache.get("cudnn", "key") is None
    cache.put("cudnn", "other", VALUE)
    assert cache.get("cudnn", "other") == VALUE and TacticCache(tmp_path).get("cudnn", "other") is None
    only_file(tmp_path)


def test_where_nothing_can_be_written_it_stays_in_memory(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    cache = TacticCache(tmp_path / "file" / "inside")
    cache.put("cudnn", "key", VALUE)
    assert cache.get("cudnn", "key") == VALUE


WRITER = """
import sys
from pathlib import Path
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
for _ in range(200):
    TacticCache(Path(sys.argv[1])).put("cudnn", "key", sys.argv[2].encode() * 5000)
"""


def test_processes_and_threads_never_see_half_an_entry(tmp_path: Path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), letter]) for letter in "ab"]
    wrong: list[bytes] = []

    def read() -> None:
        while any(w.poll() is None for w in writers):
            value = TacticCache(tmp_path).get("cudnn", "key")
            if value is not None and value not in (b"a" * 5000, b"b" * 5000):
                wrong.append(value)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [w.returncode for w in writers] == [0, 0] and wrong == []
    only_file(tmp_path)


def test_tactics_beyond_the_limit_go(tmp_path: Path):
    cache = TacticCache(tmp_path, 4000)
    for number in range(10):
        cache.put("plan", str(number), b"x" * 900)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 4000
    assert TacticCache(tmp_path).get("plan", "9") == b"x" * 900
    assert cache.get("plan", "0") == b"x" * 900  # this process has it in memory
    assert [n for n in range(10) if TacticCache(tmp_path).get("plan", str(n)) is None] != []
