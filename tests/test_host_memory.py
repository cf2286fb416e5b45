"""host_memory: a size that a file asks for is told, however long its number is."""

import pytest

from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.host_memory import expect_memory, mib


@pytest.mark.parametrize(("nbytes", "told"), [(3 << 20, "3 MiB"), ((1 << 63) - 1, "8796093022208 MiB")])
def test_a_size_is_told_in_mebibytes(nbytes: int, told: str) -> None:
    assert mib(nbytes) == told


@pytest.mark.parametrize("nbytes", [1 << 63, 10**400, 10**5000], ids=["2^63", "10^400", "10^5000"])
def test_a_size_that_no_float_holds_is_refused_in_words(nbytes: int) -> None:
    with pytest.raises(OutOfMemoryError, match=r"^input 'x': more than 2\^63 bytes needed, \d+ MiB free"):
        expect_memory(nbytes, "input 'x'")
