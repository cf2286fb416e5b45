"""Copies a range of one file into another, inside the kernel where it can: shared, not copied, on some file systems."""

import errno
import os

from engine_format.errors import PlanError

_BLOCK_NBYTES = 4 << 20
# What copy_file_range says where the file systems or the kernel cannot do it.
_UNABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def copy_range(source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
    """Copies ``nbytes`` from one open file to another. Raises PlanError when the source ends early."""
    end = source_offset + nbytes
    in_kernel = hasattr(os, "copy_file_range")
    while source_offset < end:
        if in_kernel:
            try:
                done = os.copy_file_range(source, target, end - source_offset, source_offset, target_offset)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                in_kernel = False
                continue
        else:
            done = os.pwrite(target, os.pread(source, min(_BLOCK_NBYTES, end - source_offset), source_offset), target_offset)
        if done == 0:
            raise PlanError(f"the file was cut short while it was open: {end} bytes were there", offset=source_offset)
        source_offset += done
        target_offset += done
