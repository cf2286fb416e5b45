// One new token of each slot, as in ../cached_attention.cu, in one launch: a cluster has a head of keys of one slot, and sums up there.
//
// Each warp of the cluster has 16 rows of the cache at a time, and softmax over its own: eight lanes have a key, each some of its
// elements; sixteen a value. Queries lie in shared memory, turned and scaled. The first rows are under way before the block's turn
// and before it is known how many there are; the new row, which the first block writes, comes from shared memory. At the end the warps of a block are summed up,
// then the blocks, each some of the heads, in their order.
//
// MI_T, MI_CACHE, MI_SIZE, MI_GROUP, MI_INTERLEAVED as there; values are as long as keys. MI_PARTS: blocks of a cluster. MI_CAPPED: 1
// where scores are bounded by `cap`. Scores are those times log2(e), for powers of two.
#include "arithmetic.cuh"
#include "packs.cuh"
#include "sm90/copies.cuh"
#include "sm90/halves.cuh"
#include "sm90/turns.cuh"

#define MI_WARPS 8
constexpr int THREADS = 32 * MI_WARPS, ROWS = 16, HEADS = 8;
constexpr int OF_KEY = MI_SIZE / 8, OF_VALUE = MI_SIZE / 16;     // elements of a lane
constexpr int PAIRS = MI_SIZE / 2, PITCH = MI_SIZE + 4;          // floats from head to head
constexpr int OWNED = (MI_GROUP + MI_PARTS - 1) / MI_PARTS;      // heads that a block finishes at most
static_assert(MI_GROUP <= HEADS && MI_SIZE % 64 == 0, "heads of a group, and elements of a lane");

// Shared memory of a block.
struct __align__(16) Room {
  float queries[MI_GROUP][MI_SIZE];
  float weights[MI_WARPS][ROWS + 1][HEADS];  // and behind the rows' what the sums so far are scaled by
  float sums[MI_WARPS][MI_GROUP][PITCH];     // of values; then the highest score and the sum of weights
  float parts[MI_PARTS][OWNED][PITCH];       // likewise, of all blocks
  MI_T new_key[MI_SIZE], new_value[MI_SIZE];
  u64 barrier;                               // of `parts`
};

struct Lie {
  i64 slot[3], head[3];
};

MI_DEVICE void turned_pair(const MI_T* head, int pair, const MI_CACHE* cosines, const MI_CACHE* sines, MI_T& low, MI_T& high) {
  int first = MI_INTERLEAVED ? 2 * pair : pair, second = MI_INTERLEAVED ? 2 * pair + 1 : pair + PAIRS;
  float a = widen(head[first]), b = widen(head[second]), cosine = widen(cosines[pair]), sine = widen(sines[pair]);
  low = narrow<MI_T>(cosine * a - sine * b);
  high = narrow<MI_T>(sine * a + cosine * b);
}

constexpr float LOG2_E = 1.4426950408889634f;

// The highest of no scores is nothing to take off.
MI_DEVICE float finite(float highest) { return highest == -mi_infinity() ? 0.0f : highest; }

template <int N> struct __align__(16) Row { MI_T d[N]; };
template <int N> MI_DEVICE void read_row(Row<N>& to, const MI_T* from) {
  constexpr int NBYTES = N * sizeof(MI_T);
  if (NBYTES % 16 == 0) {
#pragma unroll
    for (int i = 0; i < NBYTES / 16; i++) reinterpret_cast<uint4*>(&to)[i] = reinterpret_cast<const uint4*>(from)[i];
  } else {
    *reinterpret_cast<uint2*>(&to) = *reinterpret_cast<const uint2*>(from);
  }
}

extern "C" __global__ void __launch_bounds__(32 * MI_WARPS) cached_in_cluster(
    const MI_T* q, const MI_T* k, const MI_T* v, MI_T* keys, MI_T* values, MI_T* y, const i64* write_at, const i64* held,
    const MI_CACHE* cosines, const MI_CACHE* sines, const i64* ids, i64 rows, i64 angles_of_slot, Lie lie, float scale, float cap,
    int left, int kv_heads, int capacity) {
  let_next_begin();
  MI_TILES(room);
  Room& shared = *reinterpret_cast<Room*>(room);
  auto& queries = shared.queries;
  auto& new_key = shared.new_key;
  auto& new_value = shared.new_value;
  auto& weights = shared.weights;
  auto& sums = shared.sums;
  auto& parts = shared.parts;
  int part = (int)cluster_rank(), matrix = (int)(blockIdx.x / MI_PARTS), slot = matrix / kv_heads, kv_head = matrix - slot * kv_heads;
  int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
  u32 barrier = shared_address(&shared.barrier);
  int own_heads = (MI_GROUP - part + MI_PARTS - 1) / MI_PARTS;  // that this block finishes
  if (thread == 0) {
    make_barrier(barrier, 1);
    fence_barriers();
    arrive_expecting(barrier, own_heads * MI_PARTS * (MI_SIZE + 2) * 4);
  }
  come_to_cluster();

  // The first rows, as many as there are places for; which of them count is known later. Others than the new one, which is not
  // taken from here, are of earlier inferences: nobody has to wait for them.
  const MI_T* own_keys = keys + (i64)matrix * capacity * MI_SIZE;
  const MI_T* own_values = values + (i64)matrix * capacity * MI_SIZE;
  int row0 = (part * MI_WARPS + warp) * ROWS, of_key = lane / 8, of_value = lane / 16;
  Row<OF_KEY> key_rows[ROWS / 4];
  Row<OF_VALUE> value_rows[ROWS / 2];
  auto read_rows = [&](int first) {
#pragma unroll
    for (int i = 0; i < ROWS / 4; i++) {
      int row = first + of_key + 4 * i;
      if (row < capacity) read_row(key_rows[i], own_keys + (i64)row * MI_SIZE + lane % 8 * OF_KEY);
    }
#pragma unroll
    for (int i = 0; i < ROWS / 2; i++) {
      int row = first + of_value + 2 * i;
      if (row < capacity) read_row(value_rows[i], own_values + (i64)row * MI_SIZE + lane % 16 * OF_VALUE);
    }
  };
  read_rows(row0);
  await_turn();

  i64 new_row = write_at[slot], seen = held[slot], angle = slot * angles_of_slot;
  if (ids) {
    angle = ids[angle];
    if (angle < 0) angle += rows;
    angle = angle < 0 ? 0 : angle >= rows ? rows - 1 : angle;
  }
  const MI_CACHE *cosine = cosines + angle * PAIRS, *sine = sines + angle * PAIRS;
#pragma unroll 1
  for (int i = thread; i < (MI_GROUP + 1) * PAIRS; i += THREADS) {
    int head = i / PAIRS, pair = i - head * PAIRS, low = MI_INTERLEAVED ? 2 * pair : pair, high = MI_INTERLEAVED ? low + 1 : low + PAIRS;
    const MI_T* from = head < MI_GROUP ? q + slot * lie.slot[0] + ((i64)kv_head * MI_GROUP + head) * lie.head[0]
                                       : k + slot * lie.slot[1] + kv_head * lie.head[1];
    MI_T a, b;
    turned_pair(from, pair, cosine, sine, a, b);
    if (head < MI_GROUP) {
      queries[head][low] = widen(a) * scale;
      queries[head][high] = widen(b) * scale;
    } else {
      new_key[low] = a;
      new_key[high] = b;
    }
  }
#pragma unroll 1
  for (int i = thread; i < MI_SIZE; i += THREADS) new_value[i] = v[slot * lie.slot[2] + kv_head * lie.head[2] + i];
  __syncthreads();
  if (part == 0 && new_row >= 0 && new_row < capacity) {
    i64 at = ((i64)matrix * capacity + new_row) * MI_SIZE;
#pragma unroll 1
    for (int i = thread; i < MI_SIZE; i += THREADS) {
      keys[at + i] = new_key[i];
      values[at + i] = new_value[i];
    }
  }

  int end = (int)(seen < capacity ? seen : capacity), begin = left < 0 || seen - 1 - left < 0 ? 0 : (int)(seen - 1 - left);
  float top = -mi_infinity(), total = 0.0f;  // of head lane % 8 over this lane's rows
  float made[MI_GROUP][OF_VALUE];
#pragma unroll
  for (int h = 0; h < MI_GROUP; h++)
#pragma unroll
    for (int e = 0; e < OF_VALUE; e++) made[h][e] = 0.0f;

#pragma unroll 1
  for (int first = row0; first < end; first += MI_PARTS * MI_WARPS * ROWS) {
    if (first > row0) read_rows(first);
    float scores[ROWS / 4];
    {
      float by_head[ROWS / 4][HEADS];
#pragma unroll
      for (int i = 0; i < ROWS / 4; i++) {
        if (first + of_key + 4 * i == new_row) read_row(key_rows[i], new_key + lane % 8 * OF_KEY);
#pragma unroll
        for (int h = 0; h < HEADS; h++) by_head[i][h] = 0.0f;
      }
#pragma unroll
      for (int e = 0; e < OF_KEY; e += 4) {
        float x[ROWS / 4][4];
#pragma unroll
        for (int i = 0; i < ROWS / 4; i++)
#pragma unroll
          for (int n = 0; n < 4; n++) x[i][n] = widen(key_rows[i].d[e + n]);
#pragma unroll
        for (int h = 0; h < MI_GROUP; h++) {
          float4 by = *reinterpret_cast<const float4*>(&queries[h][lane % 8 * OF_KEY + e]);
#pragma unroll
          for (int i = 0; i < ROWS / 4; i++)
            by_head[i][h] = fmaf(x[i][0], by.x, fmaf(x[i][1], by.y, fmaf(x[i][2], by.z, fmaf(x[i][3], by.w, by_head[i][h]))));
        }
      }
      // Sums over the eight lanes of a key, of which lane h keeps that of head h.
#pragma unroll
      for (int i = 0; i < ROWS / 4; i++) {
#pragma unroll
        for (int by = 4; by; by /= 2)
#pragma unroll
          for (int h = 0; h < by; h++) {
            bool upper = lane & by;
            float kept = upper ? by_head[i][h + by] : by_head[i][h], sent = upper ? by_head[i][h] : by_head[i][h + by];
            by_head[i][h] = kept + __shfl_xor_sync(0xffffffffu, sent, by);
          }
        float sum = by_head[i][0];
        if (MI_CAPPED) sum = tanhf(sum / cap) * cap;
        int row = first + of_key + 4 * i;
        scores[i] = row >= begin && row < end ? sum * LOG2_E : -mi_infinity();
      }
    }
    float highest = top;
#pragma unroll
    for (int i = 0; i < ROWS / 4; i++) highest = fmaxf(highest, scores[i]);
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 8));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 16));
    float base = finite(highest), less = power_of_two(top - base);
    total *= less;
#pragma unroll
    for (int i = 0; i < ROWS / 4; i++) {
      float weight = power_of_two(scores[i] - base);
      total += weight;
      weights[warp][of_key + 4 * i][lane % 8] = weight;
    }
    if (lane < HEADS) weights[warp][ROWS][lane] = less;
    top = highest;
    __syncwarp();
    if (first > row0) {
#pragma unroll
      for (int h = 0; h < MI_GROUP; h++)
#pragma unroll
        for (int e = 0; e < OF_VALUE; e++) made[h][e] *= weights[warp][ROWS][h];
    }
#pragma unroll
    for (int i = 0; i < ROWS / 2; i++) {
      int row = first + of_value + 2 * i;
      if (row == new_row) read_row(value_rows[i], new_value + lane % 16 * OF_VALUE);
      bool counts = row >= begin && row < end;
      __align__(16) float by[HEADS];
      *reinterpret_cast<float4*>(by) = *reinterpret_cast<const float4*>(weights[warp][of_value + 2 * i]);
      *reinterpret_cast<float4*>(by + 4) = *reinterpret_cast<const float4*>(weights[warp][of_value + 2 * i] + 4);
#pragma unroll
      for (int e = 0; e < OF_VALUE; e++) {
        float x = counts ? widen(value_rows[i].d[e]) : 0.0f;
#pragma unroll
        for (int h = 0; h < MI_GROUP; h++) made[h][e] = fmaf(by[h], x, made[h][e]);
      }
    }
    __syncwarp();
  }

  total += __shfl_xor_sync(0xffffffffu, total, 8);
  total += __shfl_xor_sync(0xffffffffu, total, 16);
  if (lane < MI_GROUP) {
    sums[warp][lane][MI_SIZE] = top;
    sums[warp][lane][MI_SIZE + 1] = total;
  }
#pragma unroll
  for (int h = 0; h < MI_GROUP; h++)
#pragma unroll
    for (int e = 0; e < OF_VALUE; e++) {
      float sum = made[h][e] + __shfl_xor_sync(0xffffffffu, made[h][e], 16);
      if (lane < 16) sums[warp][h][lane * OF_VALUE + e] = sum;
    }
  __syncthreads();
  await_cluster();  // the others have made their barriers
#pragma unroll 1
  for (int i = thread; i < MI_GROUP * MI_SIZE; i += THREADS) {
    int h = i / MI_SIZE, e = i - h * MI_SIZE;
    float highest = -mi_infinity(), sum = 0.0f, whole = 0.0f;
#pragma unroll
    for (int w = 0; w < MI_WARPS; w++) highest = fmaxf(highest, sums[w][h][MI_SIZE]);
    float base = finite(highest);
#pragma unroll
    for (int w = 0; w < MI_WARPS; w++) {
      float weight = power_of_two(sums[w][h][MI_SIZE] - base);
      sum += weight * sums[w][h][e];
      whole += weight * sums[w][h][MI_SIZE + 1];
    }
    float* to = parts[part][h / MI_PARTS];
    u32 there = address_in_block(shared_address(to), h % MI_PARTS), told = address_in_block(barrier, h % MI_PARTS);
    send_to_block(there + 4 * e, sum, told);
    if (e == 0) {
      send_to_block(there + 4 * MI_SIZE, highest, told);
      send_to_block(there + 4 * MI_SIZE + 4, whole, told);
    }
  }
  if (own_heads == 0) return;
  await_in_cluster(barrier, 0);
#pragma unroll 1
  for (int i = thread; i < OWNED * MI_SIZE; i += THREADS) {
    int own = i / MI_SIZE, e = i - own * MI_SIZE, h = own * MI_PARTS + part;
    if (h >= MI_GROUP) continue;
    float highest = -mi_infinity(), sum = 0.0f, whole = 0.0f;
#pragma unroll
    for (int p = 0; p < MI_PARTS; p++) highest = fmaxf(highest, parts[p][own][MI_SIZE]);
    float base = finite(highest);
#pragma unroll
    for (int p = 0; p < MI_PARTS; p++) {
      float weight = power_of_two(parts[p][own][MI_SIZE] - base);
      sum += weight * parts[p][own][e];
      whole += weight * parts[p][own][MI_SIZE + 1];
    }
    y[((i64)matrix * MI_GROUP + h) * MI_SIZE + e] = narrow<MI_T>(whole == 0.0f ? 0.0f : sum / whole);
  }
}
