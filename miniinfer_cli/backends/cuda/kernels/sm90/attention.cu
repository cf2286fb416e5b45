// Attention in one pass over keys and values by the matrix instructions of sm_90 (Dao 2022, 2023): scores and sums of values stay in
// registers, and so do the probabilities that the second product takes.
//
// A warpgroup has 64 rows, the queries of one tile: 1 << shift places of 64 >> shift heads that share a head of keys and values. A
// block has MI_GROUPS tiles that lie side by side; keys and values come once for all of them, MI_KEYS at a time, through a ring of
// MI_STAGES. MI_PARTS warpgroups share a tile: they take steps of keys in turns, and what they have is put together at the end.
// Thread 0 loads: the maps know where heads lie, so a merged projection is read where it is, and what lies behind the last query,
// key, head or element of a head is zeros. MI_RESIDENTS blocks lie on a multiprocessor, so that one computes while others load.
//
// MI_T: f16, bf16, or f32 (MI_FLOATS 1), which the maps round to TF32. MI_SIZE: of a head of keys, in whole 32 bytes; MI_VALUE: of values,
// in whole 8 elements. MI_CAPPED: 1 with a soft cap.
// MI_MASK_ROWS: 2 where queries have masks of their own, 1 where all share theirs; MI_MASK_PAIRS: 1 where two neighbouring keys of
// it are read at once; attention.cuh has what else there is of a mask. MI_ROTARY: 1 where queries or keys are turned first, in
// shared memory: rotary.cuh. MI_STEPS: 1 where all keys come at once, 2 where the ring has all steps, 3 where it is filled again.
// MI_Y: of results, MI_T or bytes. MI_ROUNDS: 1 where these are i8 or u8, 2 where they are f8e4m3fn, rounded from the sums, 0 for MI_T.
#include "sm90/attention_softmax.cuh"
#include "sm90/copies.cuh"
#if MI_ROUNDS
#include "rounding.cuh"
#endif
#if MI_ROTARY
#include "sm90/rotary.cuh"
#endif
#if MI_FLOATS
#include "sm90/turned_values.cuh"
#endif
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"

constexpr int ROWS = 64;                 // of a tile
constexpr u32 ROW_NBYTES = 128;          // of a row of shared memory, swizzled
constexpr int BOX = ROW_NBYTES / sizeof(MI_T), STEP = 32 / sizeof(MI_T);  // elements of it, and of them what a matrix instruction takes
constexpr u32 PATTERN = 8 * ROW_NBYTES;  // of rows
constexpr int K_BOXES = (MI_SIZE + BOX - 1) / BOX, V_BOXES = (MI_VALUE + BOX - 1) / BOX;
constexpr int MOST_BOXES = K_BOXES > V_BOXES ? K_BOXES : V_BOXES;
constexpr int TEAMS = MI_GROUPS * MI_PARTS;  // warpgroups
constexpr u32 Q_BOX = ROWS * ROW_NBYTES, BOX_NBYTES = MI_KEYS * ROW_NBYTES;
constexpr u32 OWN_NBYTES = Q_BOX * MOST_BOXES;  // a tile's queries, and then its results
constexpr u32 K_NBYTES = BOX_NBYTES * K_BOXES, V_NBYTES = BOX_NBYTES * V_BOXES;
constexpr u32 AT_KEYS = MI_GROUPS * OWN_NBYTES;
constexpr u32 AT_VALUES = AT_KEYS + MI_STAGES * K_NBYTES;
constexpr u32 AT_PARTS = AT_VALUES + MI_STAGES * V_NBYTES;
constexpr u32 AT_BARRIERS = AT_PARTS + (MI_PARTS - 1) * MI_GROUPS * (MI_VALUE / 2 + 4) * 512;
static_assert(MI_STAGES % MI_PARTS == 0, "a stage is always of one part");
static_assert(MI_ROUNDS == 0 || MI_VALUE % 16 == 0, "bytes leave as whole vectors");
static_assert(MI_KEYS % STEP == 0 && MI_KEYS <= 256 && MI_SIZE % STEP == 0 && MI_VALUE % 8 == 0, "whole matrix instructions");

#if MI_ROUNDS
struct Leaving { float inverse, zero, low, high; };  // results times ``inverse`` are between two bounds, then comes the zero point
#endif

MI_DEVICE u64 along_head(u32 address) { return tile<(int)ROW_NBYTES>(address, 16, PATTERN); }
MI_DEVICE u64 along_keys(u32 address) { return tile<(int)ROW_NBYTES>(address, BOX_NBYTES, PATTERN); }

// sums += shares values, of the keys of step i.
template <int SUMS> MI_DEVICE void add_values(float (&sums)[SUMS], const u32 (&share)[4], u32 values, int i, bool accumulate) {
#if MI_FLOATS
  multiply<f32>(sums, share, along_head(values + i / 4 * MI_VALUE * ROW_NBYTES + i % 4 * 32), accumulate);
#else
  multiply<MI_T, true>(sums, share, along_keys(values + 2 * i * PATTERN), accumulate);
#endif
}

extern "C" __global__ void __launch_bounds__(128 * TEAMS, MI_RESIDENTS) attention_sm90(
    const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v, const MI_T* values,
    MI_Y* y, const MI_MASK_T* mask, const i64* lengths, Seeing seeing, MaskStrides by, Longs<6> strides, Tiling tiling, float scale,
    float cap, const MI_CACHE* q_cosines, const MI_CACHE* q_sines, const i64* q_ids, const MI_CACHE* k_cosines,
    const MI_CACHE* k_sines, const i64* k_ids, Longs<6> angles
#if MI_ROUNDS
    , Leaving leaving
#endif
) {
  MI_TILES(room);
  u32 base = shared_address(room);
  u32 q_here = base + AT_BARRIERS, k_here = q_here + 8 * MI_GROUPS, v_here = k_here + 8 * MI_STAGES, free = v_here + 8 * MI_STAGES;
  bool loads = threadIdx.x == 0;
  if (loads) {
    for (int i = 0; i < MI_GROUPS; i++) make_barrier(q_here + 8 * i, 1);
    for (int i = 0; i < MI_STAGES; i++) {
      make_barrier(k_here + 8 * i, 1);
      make_barrier(v_here + 8 * i, 1);
      if (MI_STEPS > 2) make_barrier(free + 8 * i, 4 * MI_GROUPS);
    }
    fence_barriers();
    fetch_map(q);
    fetch_map(k);
    fetch_map(v);
    let_next_begin();
  }
  await_turn();

  Item item = item_of(seeing, lengths);
  Span seen = seen_by(item, tiling, seeing, item.tile, min(item.tile + MI_GROUPS, tiling.tiles) - 1);
  auto load_step = [&](int step) {
    int stage = step % MI_STAGES, key0 = seen.first + step * MI_KEYS;
    arrive_expecting(k_here + 8 * stage, K_NBYTES);
    for (int box = 0; box < K_BOXES; box++)
      load_box(base + AT_KEYS + stage * K_NBYTES + box * BOX_NBYTES, k, k_here + 8 * stage, box * BOX, key0, item.kv_head, item.batch);
    arrive_expecting(v_here + 8 * stage, V_NBYTES);
    for (int box = 0; box < V_BOXES; box++)
      load_box(base + AT_VALUES + stage * V_NBYTES + box * BOX_NBYTES, v, v_here + 8 * stage, box * BOX, key0, item.kv_head, item.batch);
  };
  int steps = seen.last < seen.first ? 0 : (seen.last - seen.first) / MI_KEYS + 1;
  if (MI_STEPS == 1) steps = min(steps, 1);
  if (loads) {
    for (int i = 0; i < MI_GROUPS; i++) {
      int place = place_of(tiling, item.tile + i), head = (item.tile + i - place * tiling.across) * (ROWS >> tiling.shift);
      arrive_expecting(q_here + 8 * i, K_BOXES * Q_BOX);
      for (int box = 0; box < K_BOXES; box++)
        load_box(base + i * OWN_NBYTES + box * Q_BOX, q, q_here + 8 * i, box * BOX, place << tiling.shift, head, item.kv_head, item.batch);
    }
    for (int step = 0; step < MI_STAGES && step < steps; step++) load_step(step);
  }
  __syncthreads();

  int lane = (int)(threadIdx.x % 32), g = (int)(threadIdx.x % 32 / 4), t = (int)(threadIdx.x % 4);
  int group = (int)(threadIdx.x / 128 / MI_PARTS), part = (int)(threadIdx.x / 128 % MI_PARTS), row0 = (int)(threadIdx.x / 32 % 4 * 16);
  int tile = item.tile + group, place = place_of(tiling, tile);
  int head0 = (tile - place * tiling.across) * (ROWS >> tiling.shift), query0 = place << tiling.shift;
  u32 queries = base + group * OWN_NBYTES;
  Span own = {0, -1};
  if (tile < tiling.tiles) own = MI_GROUPS == 1 ? seen : seen_by(item, tiling, seeing, tile, tile);
  Rows rows = rows_of(item, tiling, seeing, by, query0, head0, row0 + g);
  float sums[MI_VALUE / 2];
#pragma unroll
  for (int i = 0; i < MI_VALUE / 2; i++) sums[i] = 0;
  // A mask that all queries share is loaded a step ahead: while keys come, or during the second product of the step before. For
  // masks of their own there are no registers.
  constexpr bool AHEAD = MI_MASK_ROWS == 1;
  Held held;
  if (AHEAD) load_mask(held, mask, rows.masks, seeing, by, seen.first + part * MI_KEYS + 2 * t);
  auto load_next = [&](int step) {
    if (AHEAD && MI_STEPS > 1 && step + MI_PARTS < steps)
      load_mask(held, mask, rows.masks, seeing, by, seen.first + (step + MI_PARTS) * MI_KEYS + 2 * t);
  };
  await(q_here + 8 * group, 0);
#if MI_ROTARY
  if (q_cosines) {
    Angles angle = {q_cosines, q_sines, q_ids, angles.d[0], angles.d[1], angles.d[2]};
    int mine = (int)threadIdx.x - 128 * MI_PARTS * group;
    turn_rows<ROWS>(room + group * OWN_NBYTES, angle, item.batch, query0, (1 << tiling.shift) - 1, seeing.queries, mine, 128 * MI_PARTS);
    fence_for_copies();
    meet(1 + group, 128 * MI_PARTS);
  }
#endif
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    int stage = step % MI_STAGES, phase = step / MI_STAGES & 1, key0 = seen.first + step * MI_KEYS;
    if (MI_PARTS == 1 || step % MI_PARTS == part) {
      await(k_here + 8 * stage, phase);
#if MI_ROTARY
      if (k_cosines) {
        Angles angle = {k_cosines, k_sines, k_ids, angles.d[3], angles.d[4], angles.d[5]};
        int mine = 128 * group + (int)threadIdx.x % 128;
        turn_rows<MI_KEYS>(room + AT_KEYS + stage * K_NBYTES, angle, item.batch, key0, -1, seeing.keys, mine, 128 * MI_GROUPS);
        fence_for_copies();
        meet(1 + MI_GROUPS + part, 128 * MI_GROUPS);
      }
#endif
#if MI_FLOATS
      await(v_here + 8 * stage, phase);
      turn_values<MI_KEYS, MI_VALUE, 128 * MI_GROUPS>(
          room + AT_VALUES + stage * V_NBYTES, 128 * group + (int)threadIdx.x % 128, 1 + MI_GROUPS + part);
      fence_for_copies();
      meet(1 + MI_GROUPS + part, 128 * MI_GROUPS);
#endif
      if (key0 <= own.last && key0 + MI_KEYS > own.first) {  // else only other tiles of this block see them
        float scores[MI_KEYS / 2];
        u32 keys = base + AT_KEYS + stage * K_NBYTES, from = base + AT_VALUES + stage * V_NBYTES;
        fence_sums();
#pragma unroll
        for (int i = 0; i < MI_SIZE / STEP; i++) {
          u64 left = along_head(queries + i / 4 * Q_BOX + i % 4 * 32), right = along_head(keys + i / 4 * BOX_NBYTES + i % 4 * 32);
          multiply<MI_T>(scores, left, right, i > 0);
        }
        close_products();
        if (!AHEAD) load_mask(held, mask, rows.masks, seeing, by, key0 + 2 * t);
        await_products<0>();
        hold(scores);
        u32 shares[MI_KEYS / STEP][4];
        float fade[2];
        soften(shares, fade, scores, rows, held, key0 + 2 * t, scale, cap);
        if (MI_STEPS > 1) {
#pragma unroll
          for (int i = 0; i < MI_VALUE / 2; i++) sums[i] *= fade[i / 2 % 2];
        }
        await(v_here + 8 * stage, phase);
        if (MI_FLOATS) hold(shares);
        hold(sums);
        fence_sums();
#pragma unroll
        for (int i = 0; i < MI_KEYS / STEP; i++) add_values(sums, shares[i], from, i, MI_STEPS > 1 || i > 0);
        close_products();
        load_next(step);
        await_products<0>();
        hold(sums);
      } else {
        load_next(step);
        await(v_here + 8 * stage, phase);
      }
      if (MI_STEPS > 2 && lane == 0) arrive(free + 8 * stage);
    }
    if (MI_STEPS > 2) {
      if (loads && step + MI_STAGES < steps) {
        await(free + 8 * stage, phase);
        load_step(step + MI_STAGES);
      }
      __syncwarp();
    }
  }

#if MI_PARTS > 1
  float* kept = reinterpret_cast<float*>(room + AT_PARTS) + group * (MI_PARTS - 1) * KEPT * 128 + threadIdx.x % 128;
  if (part > 0) {
    keep(kept + (part - 1) * KEPT * 128, sums, rows);
    come_to(1 + group, 128 * MI_PARTS);
    return;
  }
  meet(1 + group, 128 * MI_PARTS);
#pragma unroll 1
  for (int other = 0; other < MI_PARTS - 1; other++) add_kept(kept + other * KEPT * 128, sums, rows, factor_of(scale));
#endif

  // Results of halves go where the queries lay, so that a row of them is written by lanes side by side.
  if (!MI_FLOATS && MI_PARTS == 1) meet(1 + group, 128);
#pragma unroll
  for (int i = 0; i < 2; i++) rows.total[i] = over_row(rows.total[i], true);
  float share[2];
#pragma unroll
  for (int i = 0; i < 2; i++) share[i] = rows.total[i] == 0.0f && MI_NAN_ROWS != MI_NAN_KEEP ? 0.0f : __fdividef(1.0f, rows.total[i]);
#pragma unroll
  for (int i = 0; i < MI_VALUE / 2; i++) {
    int row = i / 2 % 2;
    sums[i] *= share[row];
#if MI_NAN_ROWS == MI_NAN_ZERO
    if (rows.total[row] != rows.total[row]) {
      const MI_T* column = values + item.batch * strides.d[0] + item.kv_head * strides.d[1] + i / 4 * 8 + 2 * t + i % 2;
      sums[i] = weighed_by_zero(column, strides.d[2], seeing.keys);
    }
#endif
  }
#if MI_FLOATS
  // Four lanes write whole sectors of 32 bytes.
  if (tile >= tiling.tiles) return;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int row = row0 + g + 8 * i, query = row & ((1 << tiling.shift) - 1), head = row >> tiling.shift;
    if (query0 + query >= seeing.queries || head0 + head >= tiling.group) continue;
    MI_T* to = y + item.batch * strides.d[3] + (item.kv_head * tiling.group + head0 + head) * strides.d[4] + (query0 + query) * strides.d[5];
#pragma unroll
    for (int n = 0; n < MI_VALUE / 8; n++)
      *reinterpret_cast<Pack<MI_T, 2>*>(to + 8 * n + 2 * t) = {sums[4 * n + 2 * i], sums[4 * n + 2 * i + 1]};
  }
#else
  auto place_in_tile = [](unsigned row, unsigned chunk) {
    return chunk / 8 * Q_BOX + row * ROW_NBYTES + ((chunk % 8 ^ row % 8) << 4);
  };
#if MI_ROUNDS
  // A row is one of shared memory: eight rows of a warp write to all of its banks.
#pragma unroll
  for (int i = 0; i < MI_VALUE / 4; i++) {
    int row = row0 + g + i % 2 * 8, n = i / 2;
    Pack<MI_Y, 2> pair;
#pragma unroll
    for (int e = 0; e < 2; e++) pair.d[e] = in_bytes(sums[2 * i + e] * leaving.inverse, leaving.low, leaving.high, leaving.zero);
    *reinterpret_cast<Pack<MI_Y, 2>*>(room + group * OWN_NBYTES + place_in_tile(row, n / 2) + n % 2 * 8 + 2 * t) = pair;
  }
#else
#pragma unroll
  for (int n = 0; n < MI_VALUE / 8; n += 2) {
    u32 to = queries + place_in_tile(row0 + threadIdx.x % 16, n + threadIdx.x % 32 / 16);
    const float* s = sums + 4 * n;
    if (n + 1 < MI_VALUE / 8) {
      u32 words[4];
#pragma unroll
      for (int i = 0; i < 4; i++) words[i] = pair_of(s[2 * i], s[2 * i + 1], (MI_T*)0);
      store_matrices(to, words);
    } else {
      u32 words[2] = {pair_of(s[0], s[1], (MI_T*)0), pair_of(s[2], s[3], (MI_T*)0)};
      store_matrices(to, words);
    }
  }
#endif
  __syncwarp();
  if (tile >= tiling.tiles) return;
  MI_Y* results = y + item.batch * strides.d[3] + (item.kv_head * tiling.group + head0) * strides.d[4] + query0 * strides.d[5];
  constexpr unsigned BESIDE = 16 / sizeof(MI_Y), CHUNKS = MI_VALUE / BESIDE;  // elements of a chunk, chunks of a row
#pragma unroll
  for (unsigned i = 0; i < CHUNKS / 2 + CHUNKS % 2; i++) {
    unsigned number = threadIdx.x % 32 + 32 * i, chunk = number % CHUNKS;
    int row = row0 + (int)(number / CHUNKS), query = row & ((1 << tiling.shift) - 1), head = row >> tiling.shift;
    if (number >= 16 * CHUNKS || query0 + query >= seeing.queries || head0 + head >= tiling.group) continue;
    uint4 words = *reinterpret_cast<const uint4*>(room + group * OWN_NBYTES + place_in_tile(row, chunk));
    *reinterpret_cast<uint4*>(results + head * strides.d[4] + query * strides.d[5] + chunk * BESIDE) = words;
  }
#endif
}
