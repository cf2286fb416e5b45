// One new token of each slot: its heads are turned, its keys and values written into the cache, and its queries attend to that.
//
// A block has a head of keys of one slot and MI_KEYS rows of its cache; blocks behind the last row that is held end at once. Only
// the block whose rows the new one is among reads it, from shared memory: so nobody waits for its being written. Two threads
// have a key, each half of its elements; then a warp has a few heads of queries, and a lane their columns of the values.
// `combine_cached` sums up the parts, always in their order.
#include "arithmetic.cuh"
#include "packs.cuh"
#include "turn.cuh"

#define MI_WARPS 4
const int THREADS = 32 * MI_WARPS, LANES = THREADS / MI_KEYS, OWN = MI_SIZE / LANES, PACK = 16 / (int)sizeof(MI_T);
const int HEADS = (MI_GROUP + MI_WARPS - 1) / MI_WARPS;  // of queries, of a warp

// Where heads of one slot and place lie: of q, k and v, between slots and between heads.
struct Lie {
  i64 slot[3], head[3];
};

template <class C> MI_DEVICE void turn(C& a, C& b, C cosine, C sine) {
  C x = a, y = b;
  a = cosine * x - sine * y;
  b = sine * x + cosine * y;
}
// Element `at` of a head and the one that it is turned with, turned and rounded as they are where they lie in memory.
MI_DEVICE void turned_pair(const MI_T* head, int pair, const MI_CACHE* cosines, const MI_CACHE* sines, MI_T& low, MI_T& high) {
  int first = MI_INTERLEAVED ? 2 * pair : pair, second = MI_INTERLEAVED ? 2 * pair + 1 : pair + MI_SIZE / 2;
  float a = widen(head[first]), b = widen(head[second]);
  turn<float>(a, b, widen(cosines[pair]), widen(sines[pair]));
  low = narrow<MI_T>(a);
  high = narrow<MI_T>(b);
}

// partial: sums of values of each part, matrix and head, and behind all of them their highest score and sum of exponentials.
extern "C" __global__ void __launch_bounds__(32 * MI_WARPS) cached_attention(
    const MI_T* q, const MI_T* k, const MI_T* v, MI_T* keys, MI_T* values, float* partial, const i64* write_at, const i64* held,
    const MI_CACHE* cosines, const MI_CACHE* sines, const i64* ids, i64 rows, i64 angles_of_slot, Lie lie, float scale, float cap,
    int left, int kv_heads, int capacity) {
  mi_take_turn();
  __shared__ float queries[MI_GROUP][MI_SIZE];
  __shared__ float weights[MI_GROUP][MI_KEYS];
  alignas(16) __shared__ MI_T new_key[MI_SIZE];
  alignas(16) __shared__ MI_T new_value[MI_VALUE];
  int matrix = blockIdx.x, slot = matrix / kv_heads, kv_head = matrix - slot * kv_heads, part = blockIdx.y;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  i64 row = write_at[slot], seen = held[slot];
  int last = (int)(seen < capacity ? seen : capacity), first = left < 0 || seen - 1 - left < 0 ? 0 : (int)(seen - 1 - left);
  int part0 = part * MI_KEYS, begin = max(first, part0), end = min(last, part0 + MI_KEYS);
  bool owns = row >= part0 && row < part0 + MI_KEYS && row < capacity;
  i64 about = ((i64)part * gridDim.x + matrix) * MI_GROUP;
  float* tops = partial + (i64)gridDim.y * gridDim.x * MI_GROUP * MI_VALUE;
  if (begin >= end && !owns) {
    for (int g = threadIdx.x; g < MI_GROUP; g += THREADS) {
      tops[(about + g) * 2] = -mi_infinity();
      tops[(about + g) * 2 + 1] = 0.0f;
    }
    return;
  }
  i64 angle = slot * angles_of_slot;
  if (ids) {
    angle = ids[angle];
    if (angle < 0) angle += rows;
    angle = angle < 0 ? 0 : angle >= rows ? rows - 1 : angle;
  }
  const MI_CACHE *cosine = cosines + angle * (MI_SIZE / 2), *sine = sines + angle * (MI_SIZE / 2);
  const MI_T* own_q = q + slot * lie.slot[0] + (i64)kv_head * MI_GROUP * lie.head[0];
  for (int i = threadIdx.x; i < MI_GROUP * (MI_SIZE / 2); i += THREADS) {
    int g = i / (MI_SIZE / 2), pair = i - g * (MI_SIZE / 2);
    MI_T low, high;
    turned_pair(own_q + g * lie.head[0], pair, cosine, sine, low, high);
    queries[g][MI_INTERLEAVED ? 2 * pair : pair] = widen(low) * scale;
    queries[g][MI_INTERLEAVED ? 2 * pair + 1 : pair + MI_SIZE / 2] = widen(high) * scale;
  }
  MI_T* own_keys = keys + (i64)matrix * capacity * MI_SIZE;
  MI_T* own_values = values + (i64)matrix * capacity * MI_VALUE;
  if (owns) {
    const MI_T* fresh = k + slot * lie.slot[1] + kv_head * lie.head[1];
    for (int pair = threadIdx.x; pair < MI_SIZE / 2; pair += THREADS) {
      int low = MI_INTERLEAVED ? 2 * pair : pair, high = MI_INTERLEAVED ? 2 * pair + 1 : pair + MI_SIZE / 2;
      turned_pair(fresh, pair, cosine, sine, new_key[low], new_key[high]);
      own_keys[row * MI_SIZE + low] = new_key[low];
      own_keys[row * MI_SIZE + high] = new_key[high];
    }
    const MI_T* fresh_value = v + slot * lie.slot[2] + kv_head * lie.head[2];
    for (int i = threadIdx.x; i < MI_VALUE; i += THREADS) own_values[row * MI_VALUE + i] = new_value[i] = fresh_value[i];
  }
  __syncthreads();

  {
    int place = threadIdx.x / LANES, share = threadIdx.x % LANES, key = part0 + place;
    bool is_seen = key >= begin && key < end;
    float sums[MI_GROUP];
#pragma unroll
    for (int g = 0; g < MI_GROUP; g++) sums[g] = 0.0f;
    if (is_seen) {
      const MI_T* from = (key == row ? new_key : own_keys + (i64)key * MI_SIZE) + share * OWN;
#pragma unroll
      for (int at = 0; at < OWN; at += PACK) {
        several<MI_T, PACK> read = load_pack<MI_T, PACK>(from + at);
#pragma unroll
        for (int e = 0; e < PACK; e++) {
          float x = widen(read.d[e]);
#pragma unroll
          for (int g = 0; g < MI_GROUP; g++) sums[g] = fmaf(x, queries[g][share * OWN + at + e], sums[g]);
        }
      }
    }
#pragma unroll
    for (int g = 0; g < MI_GROUP; g++) {
      float sum = sums[g];
#pragma unroll
      for (int by = 1; by < LANES; by *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
      if (cap != 0.0f) sum = tanhf(sum / cap) * cap;
      if (share == 0) weights[g][place] = is_seen ? sum : -mi_infinity();
    }
  }
  __syncthreads();

  for (int g = warp; g < MI_GROUP; g += MI_WARPS) {
    float top = -mi_infinity(), total = 0.0f;
#pragma unroll
    for (int i = lane; i < MI_KEYS; i += 32) top = fmaxf(top, weights[g][i]);
#pragma unroll
    for (int by = 1; by < 32; by *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, by));
#pragma unroll
    for (int i = lane; i < MI_KEYS; i += 32) {
      float x = top == -mi_infinity() ? 0.0f : expf(weights[g][i] - top);
      weights[g][i] = x;
      total += x;
    }
#pragma unroll
    for (int by = 1; by < 32; by *= 2) total += __shfl_xor_sync(0xffffffffu, total, by);
    if (lane == 0) {
      tops[(about + g) * 2] = top;
      tops[(about + g) * 2 + 1] = total;
    }
  }
  __syncthreads();

  for (int column = 2 * lane; column < MI_VALUE; column += 64) {
    float sums[HEADS][2];
#pragma unroll
    for (int h = 0; h < HEADS; h++) sums[h][0] = sums[h][1] = 0.0f;
#pragma unroll 8
    for (int key = begin; key < end; key++) {
      several<MI_T, 2> read = load_pack<MI_T, 2>((key == row ? new_value : own_values + (i64)key * MI_VALUE) + column);
      float low = widen(read.d[0]), high = widen(read.d[1]);
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
        int g = warp + h * MI_WARPS;
        float weight = g < MI_GROUP ? weights[g][key - part0] : 0.0f;
        sums[h][0] = fmaf(weight, low, sums[h][0]);
        sums[h][1] = fmaf(weight, high, sums[h][1]);
      }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      int g = warp + h * MI_WARPS;
      if (g < MI_GROUP) store_pack<float, 2>(partial + (about + g) * MI_VALUE + column, {sums[h][0], sums[h][1]});
    }
  }
}

// The heads of all slots, `lines` of them, from `parts` of the cache each: those that saw nothing left no sums.
extern "C" __global__ void combine_cached(const float* partial, MI_T* y, int parts, i64 lines) {
  mi_take_turn();
  const float* tops = partial + parts * lines * MI_VALUE;
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < lines * MI_VALUE; i += (i64)gridDim.x * blockDim.x) {
    i64 line = i / MI_VALUE;
    float top = -mi_infinity(), total = 0.0f, sum = 0.0f;
    for (int p = 0; p < parts; p++) top = fmaxf(top, tops[(p * lines + line) * 2]);
    for (int p = 0; p < parts; p++) {
      float own = tops[(p * lines + line) * 2];
      if (own == -mi_infinity()) continue;
      float weight = expf(own - top);
      total += weight * tops[(p * lines + line) * 2 + 1];
      sum += weight * partial[(p * lines + line) * MI_VALUE + i % MI_VALUE];
    }
    y[i] = narrow<MI_T>(total == 0.0f ? 0.0f : sum / total);
  }
}
