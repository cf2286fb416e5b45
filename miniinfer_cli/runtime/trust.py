"""Whose GPU code is trusted: the keys that sign a plan's target sections, and what an engine takes of these."""

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine_format import PlanError, TargetSection
from engine_format.signing import in_memory, is_signed
from miniinfer_cli.backends.interface import DeviceOptions, Vet
from miniinfer_cli.errors import PlanFileError, UsageError
from miniinfer_cli.trusted_files import is_trusted

_LOG = logging.getLogger(__name__)
VARIABLE = "MINIINFER_TRUST_KEY"
_LEAST_NBYTES, _MOST_NBYTES = 32, 4096  # HMAC-SHA-256 gains nothing by more than 64
_MAKE = "make one: (umask 077; head -c 32 /dev/urandom > key)"


def key_in_environment() -> Path | None:
    """The file that ``$MINIINFER_TRUST_KEY`` names; None where it is not set, or empty."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def user_key_path(environment: Mapping[str, str] = os.environ) -> Path | None:
    """``miniinfer/signing.key`` in ``$XDG_CONFIG_HOME`` or ``~/.config``: never where caches are, which are copied and shared.

    None for an account without a home.
    """
    base = environment.get("XDG_CONFIG_HOME")
    try:
        folder = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    except RuntimeError:
        return None
    return folder / "miniinfer" / "signing.key"


def read_key(path: Path) -> bytes:
    """The key in a file: all of its bytes. Raises UsageError for a file that is none, or that others may read or write."""
    try:
        # A pipe is opened without waiting for a writer, and refused.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError("is not a regular file", hint=_MAKE).at(_named(path))
            _expect_private(path, status)
            key = file.read(_MOST_NBYTES + 1)
    except IsADirectoryError:
        raise UsageError("is a folder, not a key", hint="give the file in it").at(_named(path)) from None
    except FileNotFoundError:
        raise UsageError("no such file", hint=_MAKE).at(_named(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UsageError(f"cannot be read: {getattr(error, 'strerror', None) or error}").at(_named(path)) from None
    if not _LEAST_NBYTES <= len(key) <= _MOST_NBYTES:
        size = f"more than {_MOST_NBYTES}" if len(key) > _MOST_NBYTES else str(len(key))
        raise UsageError(f"a key has {_LEAST_NBYTES} to {_MOST_NBYTES} bytes, got {size}", hint=_MAKE).at(_named(path))
    return key


def user_key(*, make: bool = False) -> bytes | None:
    """The user's own key; ``make``: made now where there is none yet. None without one.

    One that cannot be made is logged. Raises UsageError for a key that others may read or write.
    """
    path = user_key_path()
    if path is not None and os.path.lexists(path):
        return read_key(path)
    if not make:
        return None
    try:
        if path is None:
            raise OSError(errno.ENOENT, "this account has no home")
        _make_key(path)
    except OSError as error:
        place = "" if path is None else f"{path}: "
        _LOG.warning(
            "the kernels are not signed, since there is no key and none can be made (%s%s):"
            " give one by --sign-key FILE (sign_key=), or run with --trust-targets always (trust_targets=)",
            place,
            error.strerror or error,
        )
        return None
    return read_key(path)


def known_keys(trust_key: Path | None) -> list[bytes]:
    """The user's own key, where there is one, and that of ``trust_key``. Raises UsageError for files that are no keys."""
    own = user_key()
    return [*([] if trust_key is None else [read_key(trust_key)]), *([] if own is None else [own])]


def vet_for(options: DeviceOptions) -> Vet:
    """What an engine with these options takes of a section. Raises UsageError when ``trust_key`` is no key.

    The user's own key is looked at when there is a section to vet.
    """
    if options.trust_key is not None:
        read_key(options.trust_key)
    keys: list[list[bytes]] = []

    def vet(section: TargetSection) -> TargetSection | None:
        if options.trust_targets == "always":
            return section
        if not keys:
            keys.append(known_keys(options.trust_key))
        try:
            read = in_memory(section)  # what is vetted is what runs
        except PlanError as error:
            raise PlanFileError(str(error), hint=error.hint).at(error.path) from None
        return read if is_signed(read, keys[0]) else None

    return vet


def standing(section: TargetSection, keys: Sequence[bytes]) -> str:
    """How a section stands with these keys: ``trusted``, ``not signed``, ``signed by another key`` or ``damaged``."""
    try:
        if is_signed(section, keys):
            return "trusted"
    except PlanError:
        return "damaged"
    return "signed by no key known here" if section.signature else "not signed"


def _expect_private(path: Path, status: os.stat_result) -> None:
    """Raises UsageError when another account than ours or root may read or write the key.

    A key of root's that a group may read is one that was handed to this account so, as containers do.
    """
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        raise UsageError("the key belongs to another account", hint="give a key of your own").at(_named(path))
    handed = status.st_uid == 0 != os.geteuid()
    if mode & (0o037 if handed else 0o077):
        raise UsageError(f"others may read or write the key: its mode is {mode:04o}", hint=f"chmod 600 {path}").at(_named(path))


def _make_key(path: Path) -> None:
    """Puts a new key at ``path``, whole, unless another process did so meanwhile. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_trusted(path.parent.stat()):
        raise OSError(errno.EPERM, "the folder is another account's, or everybody may write in it", str(path.parent))
    name = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(secrets.token_bytes(_LEAST_NBYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(name)  # which never replaces, so that two builds at once sign with one key
    finally:
        name.unlink()


def _named(path: Path) -> str:
    return f"key {str(path)!r}"
