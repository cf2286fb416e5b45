"""Signatures of target sections: who holds the key made them, and nothing in them was changed since.

HMAC-SHA-256 over all that a section says. A digest finds damage; a signature finds a forger, who can make digests as well.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgpack

from engine_format.encode import tactic_record
from engine_format.tactic_records import encoded_gpu, encoded_record
from engine_format.targets import TargetSection

# So that a signature can stand for nothing else that is ever signed with the same key.
_LABEL = "miniinfer target section 1"
_TUNED_LABEL = "miniinfer target section 2"


def sign(section: TargetSection, key: bytes) -> TargetSection:
    """The section with its signature by ``key``. Raises PlanError when the code of a kernel is damaged."""
    return replace(section, signature=_hmac(_content(section), key))


def is_signed(section: TargetSection, keys: Iterable[bytes]) -> bool:
    """True when one of ``keys`` made the section's signature. Raises PlanError when the code of a kernel is damaged."""
    content, given = _content(section), section.signature.encode()
    # Not stopped at the first, and compared in constant time: how long it takes tells nothing of a signature that would fit.
    fits = [hmac.compare_digest(_hmac(content, key).encode(), given) for key in keys]
    return any(fits)


def in_memory(section: TargetSection) -> TargetSection:
    """The section with the code of its kernels read, so that what is looked at is what is used, whatever becomes of the file.

    Raises PlanError when it is damaged.
    """
    return replace(section, kernels=tuple(replace(k, code=k.read()) for k in section.kernels))


def _content(section: TargetSection) -> bytes:
    """All that a section says, but for the places of its kernels in a file."""
    kernels = [[k.name, k.source, hashlib.sha256(k.read()).digest()] for k in section.kernels]
    libraries = sorted(section.libraries.items())
    said: list[Any] = [_LABEL, section.arch, libraries, [tactic_record(t) for t in section.tactics], kernels]
    if section.is_tuned:
        said = [_TUNED_LABEL, *said[1:], encoded_gpu(section.gpu), [encoded_record(r) for r in section.records]]
    # msgpack tells where each value ends, so two sections that differ never give the same bytes.
    content: bytes = msgpack.packb(said)
    return content


def _hmac(content: bytes, key: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()
