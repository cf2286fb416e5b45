"""How many threads an engine on the CPU uses: what is asked for, what the environment says, or the processors of this process."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from miniinfer_cli.backends.interface import MOST_THREADS
from miniinfer_cli.errors import UsageError
from miniinfer_cli.wording import Wording

VARIABLE = "MINIINFER_NUM_THREADS"
FEWER_THREADS = Wording(
    f"ask for fewer threads by load(plan, threads=...) or {VARIABLE}", flags=f"ask for fewer threads by --threads or {VARIABLE}"
)


def thread_count(asked: int | None, environment: Mapping[str, str]) -> int:
    """``asked``, else MINIINFER_NUM_THREADS, else OMP_NUM_THREADS, else the processors of this process.

    Raises UsageError when MINIINFER_NUM_THREADS is no number of threads. OMP_NUM_THREADS is not ours: the first number of its
    list counts, and what is none is passed over, as OpenMP's own libraries do.
    """
    if asked is not None:
        return asked
    ours = environment.get(VARIABLE, "").strip()
    if ours:
        count = _number(ours)
        if not 1 <= count <= MOST_THREADS:
            message = f"{VARIABLE} is no number of threads: expected 1 to {MOST_THREADS}, got {ours!r}"
            raise UsageError(message, hint="unset it for as many threads as there are processors")
        return count
    return min(_number(environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()) or processors(), MOST_THREADS)


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may use: the least of its affinity and the quota of its control groups, rounded up.

    ``root``: where /proc and /sys are.
    """
    quota = cgroup_quota(root)
    return usable_cores() if quota is None else max(min(usable_cores(), math.ceil(quota)), 1)


def usable_cores() -> int:
    """Processor cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Processors' time that this process may take, in processors, by control groups v1 and v2; None where nothing limits it.

    A group is bound by those around it as well, so the least of all counts. Within a container, the path of the group may be the
    host's; then what is mounted there is the group itself.
    """
    quotas = [quota for group in _groups(root) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups that bound its processors' time, and of the groups around them."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            tops = [mounts, mounts / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [mounts / controllers, mounts / "cpu"]
        else:
            continue
        inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
        for top in tops:
            yield from (top / group for group in (inner, *inner.parents))


def _quota(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").partition(" ")  # v2: "200000 100000", or "max 100000"
    if not quota:
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")  # v1: -1 for no bound
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def _number(text: str) -> int:
    """The number that ``text`` is; 0 when it is none, or has too many digits for one of threads."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
