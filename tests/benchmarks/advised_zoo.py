"""Networks of the zoo as ONNX files, exported by several processes: PyTorch takes seconds for each."""

import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.zoo.compare import _export, entries

Exported = tuple[str, Path | None, str]


def some_of_the_zoo(count: int) -> list[str]:
    """Names of so many networks, spread over all of the zoo."""
    names = list(entries())
    return names[:: max(len(names) // count, 1)][:count]


def exported(names: Sequence[str], folder: Path) -> Iterator[Exported]:
    """For each network its name, its file (None where it cannot be exported), and why not."""
    jobs = [(name, str(folder)) for name in names]
    workers = min(len(jobs), len(os.sched_getaffinity(0))) or 1
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from list(pool.map(_exported, jobs))  # measured only when nothing is exported any more


def _exported(job: tuple[str, str]) -> Exported:
    import torch

    name, folder = job
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that ONNX has no word for
    path = Path(folder) / f"{name.replace('/', '_')}.onnx"
    try:
        model, feeds = entries()[name].make()
        _export(torch, model, feeds, path, False)
    except Exception as error:  # whatever it is, the other networks are still to come
        return name, None, f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    return name, path, ""
