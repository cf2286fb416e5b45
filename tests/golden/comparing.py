"""Two records of one model, compared: which step of which program differs in what."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"[a-z_]+=")


@dataclass(frozen=True)
class Step:
    """A line that begins an entry of a program (a step, an input ...), and the lines of what it does."""

    head: str
    actions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What two records have in common where it is the same step."""
        return " ".join(self.head.split(" ")[:2])


def programs(text: str) -> dict[str, tuple[Step, ...]]:
    """The programs of a record by title."""
    found: dict[str, tuple[Step, ...]] = {}
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        title, *lines = part.splitlines()
        steps: list[list[str]] = []
        for line in lines:
            if line.startswith("  "):
                steps[-1].append(line.strip())
            else:
                steps.append([line])
        assert title not in found, f"two programs are called {title!r}"
        found[title] = tuple(Step(head, tuple(actions)) for head, *actions in steps)
    return found


def differences(old: str, new: str) -> list[str]:
    """What differs between two records, a line each; nothing when they are equal."""
    before, after = programs(old), programs(new)
    lines = [f"{title}: no such program any more" for title in before if title not in after]
    lines += [f"{title}: a new program" for title in after if title not in before]
    for title in before:
        if title in after and before[title] != after[title]:
            lines += [f"{title}: {line}" for line in _of_programs(before[title], after[title])]
    if not lines and old != new:
        lines.append("the programs are equal, their order is not")
    return lines


def summary(lines: Sequence[str], most: int) -> str:
    """The first differences, and how many there are of each kind."""
    kinds = Counter(m[1] for line in lines if (m := re.search(r": (\w+) \S+ -> ", line)))
    told = [*lines[:most], *([f"... and {len(lines) - most} more"] if len(lines) > most else [])]
    if kinds:
        told.append("fields that differ: " + ", ".join(f"{name} {count}x" for name, count in kinds.most_common()))
    return "\n".join(told)


def _of_programs(before: Sequence[Step], after: Sequence[Step]) -> Iterator[str]:
    matcher = difflib.SequenceMatcher(None, [s.name for s in before], [s.name for s in after], autojunk=False)
    for kind, first, last, start, stop in matcher.get_opcodes():
        if kind == "equal":
            for old, new in zip(before[first:last], after[start:stop], strict=True):
                yield from _of_steps(old, new)
        else:
            yield from (f"{s.name}: gone, it was {_shown(s)}" for s in before[first:last])
            yield from (f"{s.name}: new, it is {_shown(s)}" for s in after[start:stop])


def _of_steps(old: Step, new: Step) -> Iterator[str]:
    yield from (f"{old.name}: {line}" for line in _of_lines(old.head, new.head))
    if [_kind(a) for a in old.actions] != [_kind(a) for a in new.actions]:
        was, now = (", ".join(map(_kind, s.actions)) or "nothing" for s in (old, new))
        yield f"{old.name}: does {now}; did {was}"
        return
    for number, (one, other) in enumerate(zip(old.actions, new.actions, strict=True)):
        which = _kind(one) if len(old.actions) == 1 else f"{number + 1}. {_kind(one)}"
        yield from (f"{old.name}: {which}: {line}" for line in _of_lines(one, other))


def _of_lines(old: str, new: str) -> Iterator[str]:
    if old == new:
        return
    before, after = _fields(old), _fields(new)
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name), after.get(name)
        if was != now:
            yield f"{name} {was} -> {now}"


def _fields(line: str) -> dict[str, str]:
    words = line.split(" ")
    given = {w.split("=", 1)[0]: w.split("=", 1)[1] for w in words if _FIELD.match(w)}
    rest = " ".join(w for w in words[2:] if not _FIELD.match(w))
    return {**given, **({"value": rest.removeprefix("= ")} if rest else {})}


def _kind(action: str) -> str:
    """``launch softmax``, ``copy``, ``matmul``: what an action is."""
    kernel = re.search(r" kernel=(\S+)", action)
    return " ".join([action.split(" ", 1)[0], *([kernel[1]] if kernel else [])])


def _shown(step: Step) -> str:
    return "; ".join((step.head, *map(_kind, step.actions)))
