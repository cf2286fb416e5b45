"""What engines and contexts say of calls that are none: another number of arguments, and copies of what is one thing."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar, cast

from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.bindings import Binding

_SHOWN = 4  # inputs in a hint

F = TypeVar("F", bound=Callable[..., Any])


class Called(Protocol):
    """An engine or a context."""

    @property
    def bindings(self) -> Sequence[Binding]:
        """The inputs of the plan."""


def takes_inputs(method: F) -> F:
    """``method(inputs, ...)``, whose calls with other arguments raise UsageError. A plan without inputs needs none."""
    signature = inspect.signature(method)
    optional = frozenset([*signature.parameters][2:])

    @functools.wraps(method)
    def called(self: Called, *args: Any, **named: Any) -> Any:
        if len(args) != 1 or not named.keys() <= optional:  # else it is the common call, which should not wait for this
            if not args and not named and not self.bindings:
                args = ({},)
            try:
                signature.bind(self, *args, **named)
            except TypeError:
                raise _miscalled(method.__name__, self.bindings, len(args), list(named)) from None
        return method(self, *args, **named)

    return cast(F, called)


def _miscalled(call: str, bindings: Sequence[Binding], count: int, names: Sequence[str]) -> UsageError:
    given = [f"{count} argument{'s' * (count != 1)}"] if count or not names else []
    given += [f"{', '.join(names)} by keyword"] if names else []
    shown = [f"{b.name!r}: ..." for b in bindings[:_SHOWN]] + ["..."] * (len(bindings) > _SHOWN)
    return UsageError(
        f"{call}: expected one dict of names and arrays, got {' and '.join(given)}",
        hint=f"give all inputs in one dict: {call}({{{', '.join(shown)}}})",
    )


class OneOfAKind:
    """What belongs to this process and its device: a copy would be the same memory and threads, so there is none.

    ``_instead`` is the way to what is wanted.
    """

    _instead = ""

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._refuse_to_copy()

    def _refuse_to_copy(self) -> NoReturn:
        raise UsageError(f"{self!r} can be neither copied nor pickled", hint=self._instead)
