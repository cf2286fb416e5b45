// LinearAttention: a matrix per head, updated and read token by token. Its columns do not depend on each other.
//
// A column of the state is held by MI_LANES neighbouring threads, row lane + MI_LANES * i by thread lane in register i. The
// next token is on its way while one is worked on. MI_T: type of all operands but the states, MI_STATE of those. MI_C: type
// computed in. MI_HELD: rows a thread.
#include "types.cuh"

MI_DEVICE float exp_of(float x) { return expf(x); }
MI_DEVICE double exp_of(double x) { return exp(x); }

MI_DEVICE MI_C over_lanes(MI_C x) {
#pragma unroll
  for (int by = MI_LANES / 2; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
  return x;
}

// One token as a thread needs it; of the group's queries the first.
struct Token { MI_T key[MI_HELD], decay[MI_HELD], query[MI_HELD], value, beta; };

// group: query heads of a key head. decays: elements of decay a head, 0 without decay, else 1 or size. betas: heads of beta, 0
// without it. size x columns: of a state.
extern "C" __global__ void linear_attention(
    const MI_T* __restrict__ query, const MI_T* __restrict__ key, const MI_T* __restrict__ value,
    const MI_STATE* __restrict__ past, const MI_T* __restrict__ decay, const MI_T* __restrict__ beta, MI_T* __restrict__ y,
    MI_STATE* __restrict__ present, i64 length, i64 heads, int group, int size, int columns, int tiles, int decays, int betas,
    MI_C scale) {
  int lane = threadIdx.x % MI_LANES, column = blockIdx.x % tiles * (blockDim.x / MI_LANES) + threadIdx.x / MI_LANES;
  i64 state = blockIdx.x / tiles, batch = state / heads, head = state % heads;
  bool there = column < columns;
  if (!there) column = 0;  // along for the shuffles
  MI_C held[MI_HELD];
#pragma unroll
  for (int i = 0; i < MI_HELD; i++) {
    int row = lane + i * MI_LANES;
    held[i] = past && row < size ? (MI_C)widen(past[(state * size + row) * columns + column]) : (MI_C)0;
  }
  auto fetch = [&](Token& token, i64 t) {
    i64 at = (batch * length + t) * heads + head;
#pragma unroll
    for (int i = 0; i < MI_HELD; i++) {
      int row = lane + i * MI_LANES;
      token.key[i] = row < size ? key[at * size + row] : MI_T{};
      token.query[i] = row < size ? query[at * group * size + row] : MI_T{};
      if (decays) token.decay[i] = row < size ? decay[at * decays + (decays > 1 ? row : 0)] : MI_T{};
    }
    token.value = value[at * columns + column];
    if (betas) token.beta = beta[(batch * length + t) * betas + (betas > 1 ? head : 0)];
  };
  Token token, next = {};
  if (length > 0) fetch(next, 0);
  for (i64 t = 0; t < length; t++) {
    token = next;
    if (t + 1 < length) fetch(next, t + 1);
    if (decays)
#pragma unroll
      for (int i = 0; i < MI_HELD; i++) held[i] *= exp_of((MI_C)widen(token.decay[i]));
    MI_C taken = widen(token.value);
    if (betas) {
      MI_C known = 0;
#pragma unroll
      for (int i = 0; i < MI_HELD; i++) known += (MI_C)widen(token.key[i]) * held[i];
      taken = (MI_C)widen(token.beta) * (taken - over_lanes(known));
    }
#pragma unroll
    for (int i = 0; i < MI_HELD; i++) held[i] += (MI_C)widen(token.key[i]) * taken;
    for (int g = 0; g < group; g++) {
      i64 at = (batch * length + t) * heads * group + head * group + g;
      MI_C read = 0;
#pragma unroll
      for (int i = 0; i < MI_HELD; i++) {
        int row = lane + i * MI_LANES;
        MI_T asked = g == 0 ? token.query[i] : row < size ? query[at * size + row] : MI_T{};
        read += (MI_C)widen(asked) * held[i];
      }
      read = over_lanes(read) * scale;
      if (there && lane == 0) y[at * columns + column] = narrow<MI_T>(read);
    }
  }
  if (!there) return;
#pragma unroll
  for (int i = 0; i < MI_HELD; i++) {
    int row = lane + i * MI_LANES;
    if (row < size) present[(state * size + row) * columns + column] = narrow<MI_STATE>(held[i]);
  }
}
