"""What a Repeat means: its actions one by one, as often as the device does them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.steps import AnyAction, At, Launch, Once, Repeat, Round


def unrolled(actions: Iterable[AnyAction[At]]) -> Iterator[Once[At]]:
    """Every action in order, with the numbers of rounds as values."""
    for action in actions:
        if isinstance(action, Repeat):
            for number in range(action.rounds):
                yield from (_in_round(a, number) for a in action.actions)
        else:
            yield action


def _in_round(action: Once[At], number: int) -> Once[At]:
    if not isinstance(action, Launch):
        return action
    return replace(action, arguments=tuple(a.value(number) if isinstance(a, Round) else a for a in action.arguments))
