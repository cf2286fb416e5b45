"""Kernels with delays compile, and hold up what they are to hold up."""

from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from tests.sm90_cases.delays import with_delays
from tests.sm90_cases.heads import CASES, heads_case
from tests.sm90_cases.large import LARGE, large_case
from tests.sm90_cases.tokens import FORMS, tokens_case


@pytest.mark.parametrize(
    "case",
    [tokens_case(*FORMS[0]), large_case(*LARGE[0]), heads_case(*CASES[0])],
    ids=["few tokens", "many tokens", "attention"],
)
def test_they_are_other_code(case):
    (source,) = sources_of([case.launch.kernel], 90)
    codes = [compile_kernel(s.text, s.name, s.arch, s.headers, s.options).code for s in (source, with_delays(source))]
    assert codes[0] != codes[1]


def test_what_is_not_found():
    (source,) = sources_of([tokens_case(*FORMS[0]).launch.kernel], 90)
    name = "sm90/barriers.cuh"
    other = source.headers[name].replace("void meet(", "void gather(")
    with pytest.raises(ValueError, match="0 functions named meet"):
        with_delays(replace(source, headers={**source.headers, name: other}))
