"""Convolution and pooling one output element at a time, in f64: what the vectorised references are held against.

Activations are [N,C,spatial...]; ``begin`` and ``end`` are the padding before and after each spatial axis.
"""

import itertools

import numpy as np


def output_sizes(sizes, kernel, strides, begin, end, dilations, ceil_mode=False):
    """Counts the windows: each starts inside the input or the padding before it, and ends inside the padded input."""
    counts = []
    for size, k, s, b, e, d in zip(sizes, kernel, strides, begin, end, dilations, strict=True):
        count, start, last = 0, -b, size + e - (k - 1) * d - 1
        while start <= last or (ceil_mode and start < size and start - s < last):
            count, start = count + 1, start + s
        counts.append(count)
    return tuple(counts)


def positions(start, kernel, dilations):
    """Where each tap of one window falls."""
    return itertools.product(*(range(p, p + k * d, d) for p, k, d in zip(start, kernel, dilations, strict=True)))


def starts(sizes, kernel, strides, begin, end, dilations, ceil_mode=False):
    """Every output position with the input position of its first tap."""
    for out in np.ndindex(*output_sizes(sizes, kernel, strides, begin, end, dilations, ceil_mode)):
        yield out, [o * s - b for o, s, b in zip(out, strides, begin, strict=True)]


def conv(x, w, b, *, strides, begin, end, dilations, group):
    """``w`` is [K,C/group,kernel...], ``b`` [K] or None."""
    sizes, kernel = x.shape[2:], w.shape[2:]
    y = np.zeros((len(x), len(w), *output_sizes(sizes, kernel, strides, begin, end, dilations)))
    wide = len(w) // group
    for n, k in np.ndindex(*y.shape[:2]):
        for out, start in starts(sizes, kernel, strides, begin, end, dilations):
            for tap, place in zip(np.ndindex(*kernel), positions(start, kernel, dilations), strict=True):
                if all(0 <= p < size for p, size in zip(place, sizes, strict=True)):
                    for c in range(w.shape[1]):
                        y[(n, k, *out)] += float(x[(n, k // wide * w.shape[1] + c, *place)]) * float(w[(k, c, *tap)])
    return y if b is None else y + b.reshape(-1, *(1,) * len(sizes))


def conv_transpose(x, w, b, *, strides, begin, dilations, group, out_sizes):
    """``w`` is [C,K/group,kernel...]; ``begin`` is cut off before each axis."""
    y = np.zeros((len(x), w.shape[1] * group, *out_sizes))
    per_group = x.shape[1] // group
    for n, c in np.ndindex(*x.shape[:2]):
        for place in np.ndindex(*x.shape[2:]):
            for tap in np.ndindex(*w.shape[2:]):
                to = [p * s + t * d - b for p, s, t, d, b in zip(place, strides, tap, dilations, begin, strict=True)]
                if all(0 <= p < size for p, size in zip(to, out_sizes, strict=True)):
                    for k in range(w.shape[1]):
                        y[(n, c // per_group * w.shape[1] + k, *to)] += float(x[(n, c, *place)]) * float(w[(c, k, *tap)])
    return y if b is None else y + b.reshape(-1, *(1,) * len(out_sizes))


def pool(x, reduce, *, kernel, strides, begin, end, dilations, ceil_mode):
    """``reduce(values, places, padded)``: the window's values and places inside the input, and its taps inside the padding."""
    sizes = x.shape[2:]
    y = np.zeros((*x.shape[:2], *output_sizes(sizes, kernel, strides, begin, end, dilations, ceil_mode)))
    for n, c in np.ndindex(*x.shape[:2]):
        for out, start in starts(sizes, kernel, strides, begin, end, dilations, ceil_mode):
            places = list(positions(start, kernel, dilations))
            inside = [p for p in places if all(0 <= i < size for i, size in zip(p, sizes, strict=True))]
            padded = [p for p in places if all(-b <= i < s + e for i, s, b, e in zip(p, sizes, begin, end, strict=True))]
            y[(n, c, *out)] = reduce([x[(n, c, *p)] for p in inside], inside, len(padded))
    return y
