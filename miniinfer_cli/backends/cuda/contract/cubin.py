"""What compiled code says of itself: a cubin is an ELF file, in which NVIDIA's compiler notes what each kernel takes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("<16s2H I 3Q I 6H")  # of the file; flags are the eighth field, the table of sections the seventh
_SECTION = struct.Struct("<2I 4Q 2I 2Q")
_SIZED, _REGISTERS, _FRAME = 4, 0x2F, 0x11  # of an attribute: the form that has a length; and kinds
_ABI = b"\x7fELF\x02\x01\x01\x41"  # of CUDA 13
_LONGEST = 1024  # bytes of a name
_RESERVED_NBYTES = 1 << 10  # of shared memory, which every block has for the system from sm_90 on


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes: registers of a thread, bytes of local memory of a thread, bytes of static shared memory of a block.

    Local memory holds arrays that are indexed by what only a run tells, and what found no room in registers.
    """

    registers: int
    local_nbytes: int
    shared_nbytes: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    start: int
    nbytes: int  # also of one whose contents are no part of the file
    info: int


def read_resources(cubin: bytes, name: str) -> Resources | None:
    """What the kernel of this name takes; None where the bytes are no code that says so."""
    if not cubin.startswith(_ABI):
        return None
    try:
        arch, sections = _arch(cubin), {section.name: section for section in _sections(cubin)}
        symbol = sections[f".text.{name}"].info & 0xFFFFFF
        notes = sections[".nv.info"]
        told = {(kind, of): value for kind, of, value in _attributes(cubin[notes.start : notes.start + notes.nbytes])}
        registers, local = told[_REGISTERS, symbol], told[_FRAME, symbol]
    except (struct.error, KeyError, OverflowError):
        return None
    shared = sections.get(f".nv.shared.{name}")
    reserved = _RESERVED_NBYTES if arch >= 90 else 0
    return Resources(registers, local, 0 if shared is None else max(0, shared.nbytes - reserved))


def _arch(cubin: bytes) -> int:
    """90 for sm_90."""
    return int(_HEADER.unpack_from(cubin)[7]) >> 8 & 0xFF


def _sections(cubin: bytes) -> Iterator[_Section]:
    header = _HEADER.unpack_from(cubin)
    start, (size, count, names) = header[6], header[11:14]
    table = [_SECTION.unpack_from(cubin, start + size * n) for n in range(count)]
    if names >= count:
        return
    texts = table[names][4]
    for entry in table:
        place = texts + entry[0]
        name = cubin[place : place + _LONGEST].partition(b"\0")[0].decode(errors="replace")
        yield _Section(name, entry[4], entry[5], entry[7])


def _attributes(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, symbol and value of those that are of one symbol."""
    place = 0
    while place < len(raw):
        form, kind, nbytes = struct.unpack_from("<2BH", raw, place)
        place += 4
        if form == _SIZED:
            if nbytes == 8:
                yield (kind, *struct.unpack_from("<2I", raw, place))
            place += nbytes
