"""``--sweep-state``: the file that keeps what a sweep has measured, so that one that was killed goes on.

It is replaced whole before and after each measurement, and locked (flock) as long as the sweep lasts.
"""

import fcntl
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine_format.replacing import replacing, resolved
from miniinfer_cli.errors import UsageError, refused, unwritable
from miniinfer_cli.measuring.sweep_points import Failed, Reading, Setting

_KIND, _VERSION = "state of a sweep of miniinfer", 1
_MOST_NBYTES = 64 << 20
_TRIES = 3  # a measurement that ended so many processes is not begun again
_ANOTHER = "give another file by --sweep-state, or remove this one"


class SweepState:
    """What was measured so far, by setting. ``key``: of what and how, as JSON has it; a file with another is refused.

    Use as a context manager. Without a path it keeps nothing. Raises UsageError for a file that is something else, of another
    key, or in use by another sweep, and where it cannot be read or written; OutOfMemoryError when the disk is full.
    """

    def __init__(self, path: Path | None, key: Mapping[str, Any]) -> None:
        self.path = path
        self._key = json.loads(json.dumps(key))
        self._lock: int | None = None
        self._begun: tuple[Setting, int] | None = None
        self.outcomes: list[tuple[Setting, Reading | Failed]] = []
        if path is not None:
            self._read(path)

    def __enter__(self) -> "SweepState":
        return self

    def __exit__(self, *exc: object) -> None:
        self._let_go()

    def begin(self, setting: Setting) -> Failed | None:
        """Notes that the setting is going to be measured; what came of it where that ended too many processes already."""
        times = self._begun[1] + 1 if self._begun is not None and self._begun[0] == setting else 1
        if times > _TRIES:
            return Failed(f"measuring it has ended {_TRIES} processes")
        self._begun = (setting, times)
        self._write(durable=False)
        return None

    def add(self, setting: Setting, outcome: Reading | Failed) -> None:
        """Keeps what came of a measurement."""
        self.outcomes.append((setting, outcome))
        self._begun = None
        self._write(durable=True)

    def give_up(self) -> None:
        """Notes that the measurement under way was ended from outside, by no fault of its own."""
        self._begun = None
        self._write(durable=False)

    def _read(self, path: Path) -> None:
        try:
            lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise refused(error, f"cannot be read: {error.strerror}", path) from None
        self._lock = lock
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise UsageError("the state of a sweep must be a file", hint=_ANOTHER).at(str(path))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError("another sweep uses this file", hint="wait until it ends, or give another file").at(
                    str(path)
                ) from None
            except OSError:
                pass  # a file system without locks
            with os.fdopen(os.dup(lock), "rb") as file:
                data = file.read(_MOST_NBYTES + 1)
            self._take(data, path)
        except OSError as error:
            self._let_go()
            raise refused(error, f"cannot be read: {error.strerror}", path) from None
        except BaseException:
            self._let_go()
            raise

    def _take(self, data: bytes, path: Path) -> None:
        try:
            if len(data) > _MOST_NBYTES:
                raise ValueError("too large")
            document = json.loads(data)
            if (document["kind"], document["version"]) != (_KIND, _VERSION):
                raise ValueError("another kind")
            key, begun = dict(document["key"]), document["begun"]
            outcomes = [(_setting(entry), _outcome(entry)) for entry in document["outcomes"]]
            self._begun = None if begun is None else (_setting(begun), int(begun["times"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise UsageError("this is not the state of a sweep, or it is damaged", hint=_ANOTHER).at(str(path)) from None
        difference = _difference(key, self._key)
        if difference:
            raise UsageError(f"is the state of a sweep {difference}", hint=_ANOTHER).at(str(path))
        self.outcomes = outcomes

    def _write(self, *, durable: bool) -> None:
        if self.path is None:
            return
        begun = None if self._begun is None else {**_entry(self._begun[0]), "times": self._begun[1]}
        outcomes = [
            {**_entry(s), "failed": o.why}
            if isinstance(o, Failed)
            else {**_entry(s), "throughput": o.throughput, "p50_ms": o.p50_ms, "p99_ms": o.p99_ms, "more": o.more}
            for s, o in self.outcomes
        ]
        document = {"kind": _KIND, "version": _VERSION, "key": self._key, "begun": begun, "outcomes": outcomes}
        try:
            target = resolved(self.path)
            self._expect_own(target)
            with replacing(target, durable=durable) as file:
                file.write(json.dumps(document, indent=1).encode() + b"\n")
                lock = os.dup(file.fileno())  # what it was locked by while it was written stays open
        except OSError as error:
            raise unwritable(error, self.path) from None
        self._let_go()
        self._lock = lock

    def _expect_own(self, target: str) -> None:
        """Raises UsageError where another sweep has put its own file there meanwhile."""
        try:
            there = Path(target).stat()
        except FileNotFoundError:
            return
        if self._lock is None or not os.path.samestat(there, os.fstat(self._lock)):
            raise UsageError("another sweep uses this file", hint="wait until it ends, or give another file").at(str(self.path))

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _entry(setting: Setting) -> dict[str, int]:
    return {"streams": setting.streams, "batch": setting.batch}


def _setting(entry: Mapping[str, Any]) -> Setting:
    streams, batch = entry["streams"], entry["batch"]
    if not all(type(n) is int and n >= 1 for n in (streams, batch)):
        raise ValueError("no setting")
    return Setting(streams, batch)


def _outcome(entry: Mapping[str, Any]) -> Reading | Failed:
    if "failed" in entry:
        return Failed(str(entry["failed"]))
    throughput, p50_ms, p99_ms = (float(entry[name]) for name in ("throughput", "p50_ms", "p99_ms"))
    if not (0 < throughput < math.inf and 0 <= p50_ms < math.inf and 0 <= p99_ms < math.inf):
        raise ValueError("no figures")
    return Reading(throughput, p50_ms, p99_ms, dict(entry["more"]))


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the key of a state has otherwise, as it follows "the state of a sweep"; empty where nothing is."""
    if before == now:
        return ""
    if before.get("plan_digest") != now["plan_digest"]:
        return f"of another plan (digest {before.get('plan_digest')}, not {now['plan_digest']})"
    for name, what in (("device", "on another device"), ("host", "on another machine"), ("versions", "by other versions")):
        if before.get(name) != now[name]:
            return f"{what} ({_other(before.get(name), now[name])})"
    return f"with other settings ({_other(before.get('settings'), now['settings'])})"


def _other(before: Any, now: Mapping[str, Any]) -> str:
    old = before if isinstance(before, dict) else {}
    names = [name for name in sorted({*old, *now}) if old.get(name) != now.get(name)]
    return ", ".join(f"{name} is {json.dumps(old.get(name))}, not {json.dumps(now.get(name))}" for name in names[:3])
