"""Who made a tactic: a digest of the sources of our kernels, or a library and its version. A record of another maker is stale."""

import hashlib
from functools import cache

from miniinfer_cli.backends.cuda.codegen.sources import headers, reached_headers, template_text
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, Rewrite, flat, library_problems
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target

_DIGITS = 16
REWRITTEN = "other nodes"
"""The maker of a tactic of ours that leaves the work to other nodes, which have makers of their own."""


def maker_of(tactic: Tactic, work: Lowered | Rewrite, target: Target) -> str:
    """The makers of all that the tactic's work consists of, in one text. Sizes and types, which are macros, do not count."""
    problems = dict.fromkeys([*tactic.problems, *(library_problems(work.actions) if isinstance(work, Lowered) else ())])
    makers = dict.fromkeys(map(target.solved_by, problems))
    if isinstance(work, Lowered):
        templates = sorted({template_digest(a.kernel) for a in flat(work.actions) if isinstance(a, Launch)})
        if templates:
            makers[hashlib.sha256("".join(templates).encode()).hexdigest()[:_DIGITS]] = None
    return "; ".join(makers) or REWRITTEN


def template_digest(kernel: Kernel) -> str:
    """What changes when the kernel's file, its generated code or a header that it reaches does."""
    return _digest(template_text(kernel))


@cache
def _digest(text: str) -> str:
    whole = text + "".join(headers()[name] for name in reached_headers(text))
    return hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]
