"""Which files and folders no stranger can have written."""

import os
import stat


def is_trusted(status: os.stat_result) -> bool:
    """True when no stranger can write the folder or file of this status: it is this account's or root's, and not for everybody.

    A group that may write as well is no stranger: somebody let it in.
    """
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & stat.S_IWOTH
