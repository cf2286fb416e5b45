// ReverseSequence.
#include "copying.cuh"

// The first lengths[sample] steps of each sample reversed. sizes: of the second axis and of what is behind it; the first is
// time, or the sample if time_second. steps: the number of them.
extern "C" __global__ void reverse_sequence(const MI_T* __restrict__ x, const i64* __restrict__ lengths, MI_T* __restrict__ y,
                                            index_t count, index_t steps, int time_second, Indices<2> sizes, Dividers<2> by) {
  move_all<MI_T>(
      count,
      [&](index_t i) {
        index_t line = divide(i, sizes.d[1], by, 1), first = divide(line, sizes.d[0], by, 0), second = line - first * sizes.d[0];
        index_t step = time_second ? second : first;
        i64 length = lengths[time_second ? first : second];
        length = length < steps ? length : steps;
        index_t moved = step < length ? (index_t)length - 1 - 2 * step : 0;
        return x[i + moved * (time_second ? sizes.d[1] : sizes.d[0] * sizes.d[1])];
      },
      [&](index_t i, MI_T value) { y[i] = value; });
}
