"""Which cuts of attention on sm_90 there are, and what they take, about."""

from collections.abc import Iterator

from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import MOST_KEYS, ROWS, Cut, keys_unit, tiling_of
from miniinfer_cli.ir import DType

_LEAST_KEYS = 64
_MOST_STEPS_AHEAD = 4
# Microseconds, as fitted to what an H200 took; a head of 64 elements.
_LAUNCH_US = 1.4
_BLOCK_US = 1.7  # of a block: until its first keys are there, and behind its last sums
_STEP_US = 0.28
_KEY_US = 0.0086  # of a tile and a key
_HIDING_US = 0.3
_GROUP_US, _GROUP_KEY_US = 0.7, 0.0032  # of each tile of a block but the first
_PART_US, _PART_KEY_US = 0.35, 0.0024  # of each warpgroup of a tile but the first
_TURNED_US = 0.02  # of each pair of elements that a thread turns
_FLOAT_US = 4 / 46e3  # of an f32 that a block waits for before its first product, where one block comes after the other
_BESIDE = 0.34  # how much longer a block takes for each warpgroup of others on its multiprocessor


def cuts_of(form: Form, multiprocessors: int, turned: int = 0) -> list[Cut]:
    """Cuts that the kernel has, the fastest first by ``_cost_us``. ``turned``: elements of each head that it turns."""
    fitting = (cut for cut in dict.fromkeys(_all(form)) if not cut.fault(form))
    return sorted(fitting, key=lambda cut: _cost_us(form, cut, multiprocessors, turned))


def _all(form: Form) -> Iterator[Cut]:
    unit = keys_unit(form.dtype)
    counts = dict.fromkeys(-(-form.keys // most) for most in range(MOST_KEYS, _LEAST_KEYS - 1, -unit))  # of steps
    for groups, parts in ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3)):
        if groups > tiling_of(form).tiles:
            continue
        for steps in counts:
            if steps >= parts:
                keys = -(-form.keys // (steps * unit)) * unit
                ahead = min(steps, _MOST_STEPS_AHEAD) // parts * parts
                yield Cut(groups, keys, ahead, parts)
                if ahead > 2 * parts:
                    yield Cut(groups, keys, 2 * parts, parts)


def _cost_us(form: Form, cut: Cut, multiprocessors: int, turned: int = 0) -> float:
    """Microseconds, about, with plain edges: rounds of blocks beside each other, and no less than the longest block."""
    tiling, teams = tiling_of(form), cut.groups * cut.parts
    blocks = form.batch * form.kv_heads * -(-tiling.tiles // cut.groups)
    width = (form.size + form.v_size) / 128

    def block_us(seen: float) -> float:
        """Of one that sees this part of the keys, alone on its multiprocessor."""
        steps = seen * -(-form.keys // cut.keys)
        keys = steps * cut.keys * (0.4 + 0.6 * width)
        computing = (steps * _STEP_US + keys * _KEY_US) / cut.parts
        pairs = turned / 2 * (ROWS / cut.parts + steps * cut.keys / (cut.groups * cut.parts)) / 128
        apart = (_GROUP_US + keys * _GROUP_KEY_US) * (cut.groups - 1) + (_PART_US * width + keys * _PART_KEY_US) * (cut.parts - 1)
        return _BLOCK_US + 0.4 * (width - 1) + computing + apart + _HIDING_US * form.hides_keys + _TURNED_US * pairs

    def beside(number: int) -> float:
        return 1 + _BESIDE * teams * (number - 1)

    residents = cut.residents(form)
    rounds, rest = divmod(blocks, multiprocessors * residents)
    mean = block_us(0.5 + 0.5 / tiling.tiles if form.causal else 1.0)
    if rounds and form.dtype is DType.F32:
        mean += _FLOAT_US * (ROWS * cut.groups * form.size + cut.keys * (form.size + form.v_size))
    last = beside(-(-rest // multiprocessors)) if rest else 0.0
    longest = block_us(1.0) * beside(min(residents, -(-blocks // multiprocessors)))
    late = block_us(1.0) / 2 if rounds and form.causal else 0.0  # one that sees all keys may begin when others end
    return _LAUNCH_US + max(mean * (rounds * beside(residents) + last) + late, longest)
