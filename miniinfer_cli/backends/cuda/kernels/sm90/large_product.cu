// d[token][feature] = finish(narrow(alpha sum over k of tokens[token][k] weights[feature][k] + bias[feature])) for many tokens.
//
// Blocks stay and go from tile to tile, of MI_GROUPS times 64 tokens x MI_FEATURES features. MI_GROUPS warpgroups multiply 64 tokens
// each; meanwhile three warps finish the tile before, and one loads, through a ring of MI_STAGES chunks of 128 bytes of k. Sums pass
// to where they are finished through shared memory, rounded to MI_S, the product's own type; so the matrix units do not wait for
// what follows a product. Of the last tile each warpgroup finishes its own part.
//
// A cluster is MI_SHARING blocks, one below the other; each loads a part of the weights for all of them. Tiles are taken in bands of
// ``band`` clusters along the tokens, so that what is loaded at one time lies within few rows of either operand.
//
// MI_T: f16, bf16, or f32 as TF32; MI_D: of the result. MI_CONSTANT: 1 where no kernel makes the weights, which are loaded before
// the kernel's turn. MI_SCALES: 1 where there is an alpha; MI_BIASED: 1 where there is a bias, of type MI_B. MI_BODY: a function that
// finishes an element; MI_FINISH(s, x0, x1, x2, x3, y): its call. Its operands x0 to x3 are of types MI_X0 to MI_X3 and lie MI_STEP0
// to MI_STEP3 elements apart along the features, 1 or 0. MI_OPERANDS: how many there are; MI_TABLE: which of them, of the size of
// MI_S, is loaded through shared memory a tile ahead, or -1. MI_WHOLE: 1 where all rows are whole vectors. MI_MULTIPLYING,
// MI_FINISHING: registers of a thread, 0 where all have as many.
#include "pointwise.cuh"
#include "sm90/copies.cuh"
#include "sm90/pieces.cuh"
#include "sm90/quick.cuh"
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"

#define MI_ROW_NBYTES 128
#define MI_ROWS 64  // tokens of a warpgroup

constexpr int ELEMENTS = MI_ROW_NBYTES / (int)sizeof(MI_T);  // of a chunk
constexpr int TOKENS = MI_ROWS * MI_GROUPS, THREADS = 128 * (MI_GROUPS + 1);
constexpr u32 TOKENS_NBYTES = TOKENS * MI_ROW_NBYTES, WEIGHTS_NBYTES = MI_FEATURES * MI_ROW_NBYTES;
constexpr u32 STAGE_NBYTES = TOKENS_NBYTES + WEIGHTS_NBYTES, PART_NBYTES = WEIGHTS_NBYTES / MI_SHARING;
constexpr int PIECE = 16 / (int)sizeof(MI_S);                 // elements of 16 bytes that wait to be finished
constexpr int PANELS = MI_FEATURES * (int)sizeof(MI_S) / 128;  // of 128 bytes of each token, swizzled
constexpr u32 PANEL_NBYTES = MI_ROWS * 128, WAITING_NBYTES = PANELS * PANEL_NBYTES;
constexpr u32 AT_WAITING = MI_STAGES * STAGE_NBYTES, AT_TABLE = AT_WAITING + MI_GROUPS * WAITING_NBYTES;
constexpr u32 AT_BIAS = AT_TABLE + (MI_TABLE >= 0 ? MI_GROUPS * WAITING_NBYTES : 0);
constexpr int BIAS_PITCH = MI_FEATURES / 4 + 4;  // floats of one thread of four, and some so that they lie in other banks
constexpr u32 BIAS_NBYTES = MI_BIASED ? 4 * BIAS_PITCH * 4 : 0;
constexpr u32 AT_BARRIERS = AT_BIAS + 2 * BIAS_NBYTES;
constexpr int FINISHERS = 3;         // warps
constexpr int FOURS = PANELS * 16;   // fours of tokens, 128 bytes of each, of a warpgroup's part of a tile: a warp's at one time
constexpr int BATCH = 2;             // of these that are finished at one time: with more the compiler does one behind the other
constexpr int AHEAD = 3;             // batches that are read ahead, since shared memory is busy with what is multiplied
static_assert(MI_FEATURES % (8 * MI_SHARING) == 0 && MI_FEATURES * sizeof(MI_S) % 128 == 0, "whole patterns and panels");

MI_BODY

// Elements of an operand for one token: of the table in shared memory, or of memory; ``step``: 1 where each feature has its own, 0
// where all have one.
template <bool TABLE, class T>
MI_DEVICE Few<T, PIECE> few(const unsigned char* table, const T* x, long long row, long long token, int feature, int step) {
  if (TABLE) return neighbours<T, PIECE>(reinterpret_cast<const T*>(table));
  return step ? neighbours<T, PIECE>(x + token * row + feature) : alike<T, PIECE>(x[token * row]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) large_product(
    const __grid_constant__ TensorMap tokens, const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap table,
    MI_D* d, const MI_B* bias, const MI_X0* x0, const MI_X1* x1, const MI_X2* x2, const MI_X3* x3, Longs<4> rows, long long ldd,
    float alpha, int features, int count, int chunks, int down, int across, int band) {
  MI_TILES(room);
  u32 base = shared_address(room);
  u32 loaded = base + AT_BARRIERS, free = loaded + 8 * MI_STAGES, waiting = free + 8 * MI_STAGES, taken = waiting + 8 * MI_GROUPS;
  u32 tabled = taken + 8 * MI_GROUPS;
  int me = MI_SHARING > 1 ? (int)cluster_rank() : 0;
  int first = (int)blockIdx.x / MI_SHARING, step = (int)gridDim.x / MI_SHARING, tiles = down * across;
  int thread = (int)threadIdx.x, group = thread / 128, warp = thread / 32 % 4, lane = thread % 32;

  bool loads = group == MI_GROUPS && warp == FINISHERS;
  if (loads && lane == 0) {
    fetch_map(tokens);
    fetch_map(weights);
    if (MI_TABLE >= 0) fetch_map(table);
  }
  if (thread == 0) {
    for (int i = 0; i < MI_STAGES; i++) {
      make_barrier(loaded + 8 * i, 1);
      make_barrier(free + 8 * i, 4 * MI_GROUPS * MI_SHARING);
    }
    for (int i = 0; i < MI_GROUPS; i++) {
      make_barrier(waiting + 8 * i, 4);
      make_barrier(taken + 8 * i, FINISHERS);
      make_barrier(tabled + 8 * i, 1);
    }
    fence_barriers();
    let_next_begin();
  }
  __syncthreads();
  if (MI_SHARING > 1) {
    come_to_cluster();
    await_cluster();
  }
  if (!loads) await_turn();

  // The first token and the first feature of this block in a tile of its cluster.
  auto find = [&](int tile, int& token, int& feature) {
    int bands = tile / (band * across), left = tile - bands * band * across;
    int height = down - bands * band < band ? down - bands * band : band;
    int column = left / height, row = bands * band + left - column * height;
    token = (row * MI_SHARING + me) * TOKENS;
    feature = column * MI_FEATURES;
  };

  // 64 tokens of a tile by so many warps, which lie in shared memory when the barrier's phase is over: four tokens of a panel at once.
  auto finish = [&](int warps, int part, int token0, int feature0, bool waits, u32 parity) {
    const unsigned char* from = room + AT_WAITING + part * WAITING_NBYTES;
    token0 += part * MI_ROWS;
    if (waits) await(waiting + 8 * part, parity);
    if (!MI_WHOLE) {
      for (int row = warp; row < MI_ROWS && token0 + row < count; row += warps) {
        long long token = token0 + row;
#pragma unroll
        for (int i = 0; i < (MI_FEATURES + 31) / 32; i++) {
          int column = 32 * i + lane, feature = feature0 + column, piece = column / PIECE;
          if (column >= MI_FEATURES || feature >= features) continue;
          const unsigned char* at = from + piece / 8 * PANEL_NBYTES + row * 128 + ((piece ^ row) % 8) * 16;
          MI_S s = reinterpret_cast<const MI_S*>(at)[column % PIECE];
          MI_X0 v0{};
          MI_X1 v1{};
          MI_X2 v2{};
          MI_X3 v3{};
          if (MI_OPERANDS > 0) v0 = x0[token * rows.d[0] + feature * MI_STEP0];
          if (MI_OPERANDS > 1) v1 = x1[token * rows.d[1] + feature * MI_STEP1];
          if (MI_OPERANDS > 2) v2 = x2[token * rows.d[2] + feature * MI_STEP2];
          if (MI_OPERANDS > 3) v3 = x3[token * rows.d[3] + feature * MI_STEP3];
          MI_D y;
          MI_FINISH(widen(s), v0, v1, v2, v3, y);
          d[token * ldd + feature] = y;
        }
      }
      return;
    }
    if (MI_TABLE >= 0) await(tabled + 8 * part, parity);
    // Fours lie one behind the other; of each warp, those from an even one on.
    int share = ((FOURS + warps - 1) / warps + 1) / 2 * 2, begin = warp * share, end = begin + share < FOURS ? begin + share : FOURS;
    int row0 = lane / 8, column0 = lane % 8 * PIECE, pitch = (int)(4 * ldd);
    u32 places[BATCH];
#pragma unroll
    for (int b = 0; b < BATCH; b++) places[b] = row0 * 128 + ((lane ^ (4 * b + row0)) % 8) * 16;
    MI_D* result = d + (token0 + row0) * ldd + feature0 + column0;
    __align__(16) Few<MI_S, PIECE> s[AHEAD][BATCH];
    auto read = [&](int four, int slot) {
#pragma unroll
      for (int b = 0; b < BATCH; b++) move<sizeof(MI_S) * PIECE>(&s[slot][b], from + (four < end ? four + b : b) * 512 + places[b]);
    };
#pragma unroll
    for (int a = 0; a < AHEAD; a++) read(begin + a * BATCH, a);
#pragma unroll 1
    for (int at = begin; at < end; at += AHEAD * BATCH) {
#pragma unroll
      for (int a = 0; a < AHEAD; a++) {
        int first_four = at + a * BATCH;
        if (first_four >= end) break;
        __align__(16) Few<MI_D, PIECE> y[BATCH];
        Few<MI_X0, PIECE> v0[BATCH];
        Few<MI_X1, PIECE> v1[BATCH];
        Few<MI_X2, PIECE> v2[BATCH];
        Few<MI_X3, PIECE> v3[BATCH];
        bool there[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++) {  // with no branch, so that all of a batch is under way at one time
          int four = first_four + b, token = token0 + row0 + four % 16 * 4, feature = feature0 + column0 + four / 16 * 8 * PIECE;
          there[b] = token < count && feature < features;
          token = token < count ? token : count - 1;
          feature = feature < features ? feature : features - PIECE;
          const unsigned char* table = room + AT_TABLE + part * WAITING_NBYTES + four * 512 + places[b];
          if (MI_OPERANDS > 0) v0[b] = few<MI_TABLE == 0>(table, x0, rows.d[0], token, feature, MI_STEP0);
          if (MI_OPERANDS > 1) v1[b] = few<MI_TABLE == 1>(table, x1, rows.d[1], token, feature, MI_STEP1);
          if (MI_OPERANDS > 2) v2[b] = few<MI_TABLE == 2>(table, x2, rows.d[2], token, feature, MI_STEP2);
          if (MI_OPERANDS > 3) v3[b] = few<MI_TABLE == 3>(table, x3, rows.d[3], token, feature, MI_STEP3);
        }
        float sum[BATCH][PIECE];
#pragma unroll
        for (int b = 0; b < BATCH; b++)
#pragma unroll
          for (int i = 0; i < PIECE; i++) sum[b][i] = widen(s[a][b].d[i]);
        read(first_four + AHEAD * BATCH, a);
#pragma unroll
        for (int b = 0; b < BATCH; b++)
#pragma unroll
          for (int i = 0; i < PIECE; i++) MI_FINISH(sum[b][i], v0[b].d[i], v1[b].d[i], v2[b].d[i], v3[b].d[i], y[b].d[i]);
#pragma unroll
        for (int b = 0; b < BATCH; b++) hold(y[b]);
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
          int four = first_four + b;
          if (there[b]) move<sizeof(MI_D) * PIECE>(result + four % 16 * pitch + four / 16 * 8 * PIECE, &y[b]);
        }
      }
    }
  };

  if (group < MI_GROUPS) {
    if constexpr (MI_MULTIPLYING > 0) take_registers<MI_MULTIPLYING>();
    int stage = 0;
    u32 phase = 0, turn = 0;
    auto give_back = [&](int which) {
      if (lane >= MI_SHARING) return;
      if (MI_SHARING > 1) give_back_in_cluster(address_in_block(free + 8 * which, lane));
      else arrive(free + 8 * which);
    };
    float sums[MI_FEATURES / 2];
#pragma unroll
    for (int i = 0; i < MI_FEATURES / 2; i++) sums[i] = 0;
    hold(sums);
    for (int at = first;; at += step, turn++) {
      for (int chunk = 0; chunk < chunks; chunk++) {
        await(loaded + 8 * stage, phase);
        fence_sums();
        u32 here = base + stage * STAGE_NBYTES;
        u64 left = tile<128>(here + group * MI_ROWS * MI_ROW_NBYTES, 16, 8 * MI_ROW_NBYTES);
        u64 right = tile<128>(here + TOKENS_NBYTES, 16, 8 * MI_ROW_NBYTES);
#pragma unroll
        for (int i = 0; i < 4; i++) multiply<MI_T>(sums, left + 2 * i, right + 2 * i, chunk > 0 || i > 0);
        close_products();
        if (chunk > 0) {
          await_products<1>();
          give_back(stage ? stage - 1 : MI_STAGES - 1);
        }
        if (++stage == MI_STAGES) stage = 0, phase ^= 1;
      }
      await_products<0>();
      hold(sums);
      give_back(stage ? stage - 1 : MI_STAGES - 1);

      await(taken + 8 * group, turn & 1);
      u32 mine = base + AT_WAITING + group * WAITING_NBYTES;
      const float4* added = reinterpret_cast<const float4*>(room + AT_BIAS + (turn & 1) * BIAS_NBYTES) + lane % 4 * (BIAS_PITCH / 4);
#pragma unroll
      for (int j = 0; j < MI_FEATURES / 8; j += 2) {
        float4 b = make_float4(0, 0, 0, 0);
        if (MI_BIASED) b = added[j / 2];
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float add = i / 4 ? (i % 2 ? b.w : b.z) : i % 2 ? b.y : b.x, scaled = MI_SCALES ? alpha * sums[4 * j + i] : sums[4 * j + i];
          sums[4 * j + i] = MI_BIASED ? scaled + add : scaled;
        }
      }
#pragma unroll
      for (int j = 0; j < MI_FEATURES / 8; j += 2) {
        if constexpr (sizeof(MI_S) == 2) {
          u32 words[4];
#pragma unroll
          for (int i = 0; i < 4; i++) words[i] = two_halves<MI_S>(sums[4 * j + 2 * i], sums[4 * j + 2 * i + 1]);
          int piece = j + lane / 16, row = warp * 16 + lane % 16;
          store_matrices(mine + j / 8 * PANEL_NBYTES + row * 128 + ((piece ^ row) % 8) * 16, words);
        } else {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            int piece = 2 * (j + i / 2) + lane % 4 / 2, row = warp * 16 + i % 2 * 8 + lane / 4;
            unsigned char* to = room + (mine - base) + piece / 8 * PANEL_NBYTES + row * 128 + ((piece ^ row) % 8) * 16;
            reinterpret_cast<float2*>(to)[lane % 2] = make_float2(sums[4 * j + 2 * i], sums[4 * j + 2 * i + 1]);
          }
        }
      }
      if (at + step >= tiles) break;
      __syncwarp();
      if (lane == 0) arrive(waiting + 8 * group);
    }
    int token, feature;
    find(tiles - 1 - (tiles - 1 - first) % step, token, feature);
    meet(1 + group, 128);
    finish(4, group, token, feature, false, turn & 1);
  } else {
    if constexpr (MI_FINISHING > 0) give_registers<MI_FINISHING>();
    int token, feature;
    if (warp < FINISHERS) {
      u32 turn = 0;
      auto add_bias = [&](int tile, u32 to) {
        if (!MI_BIASED || tile >= tiles) return;
        find(tile, token, feature);
        float* values = reinterpret_cast<float*>(room + AT_BIAS + (to & 1) * BIAS_NBYTES);
        for (int i = warp * 32 + lane; i < MI_FEATURES; i += 32 * FINISHERS)
          values[i % 8 / 2 * BIAS_PITCH + i / 8 * 2 + i % 2] = feature + i < features ? widen(bias[feature + i]) : 0;
      };
      auto load_table = [&](int tile, int part) {
        if (MI_TABLE < 0 || warp > 0 || lane > 0 || tile >= tiles) return;
        find(tile, token, feature);
        arrive_expecting(tabled + 8 * part, WAITING_NBYTES);
        u32 to = base + AT_TABLE + part * WAITING_NBYTES;
        for (int panel = 0; panel < PANELS; panel++)
          load_box(to + panel * PANEL_NBYTES, table, tabled + 8 * part, feature + panel * 8 * PIECE, token + part * MI_ROWS);
      };
      auto give = [&](int part) {
        __syncwarp();
        if (lane == 0) arrive(taken + 8 * part);
      };
      add_bias(first, 0);
      for (int part = 0; part < MI_GROUPS; part++) {
        load_table(first, part);
        give(part);
      }
      for (int tile = first; tile + step < tiles; tile += step, turn++) {
        add_bias(tile + step, turn + 1);
        for (int part = 0; part < MI_GROUPS; part++) {
          find(tile, token, feature);
          finish(FINISHERS, part, token, feature, true, turn & 1);
          give(part);
          if (MI_TABLE >= 0) await(taken + 8 * part, (turn + 1) & 1);
          load_table(tile + step, part);
        }
      }
    } else {
      auto load_weights = [&](int stage, int chunk) {
        u32 barrier = loaded + 8 * stage, to = base + stage * STAGE_NBYTES + TOKENS_NBYTES + me * PART_NBYTES;
        int row = feature + me * (MI_FEATURES / MI_SHARING);
        arrive_expecting(barrier, STAGE_NBYTES);
        if (MI_SHARING > 1) load_box_for((1u << MI_SHARING) - 1, to, weights, barrier, chunk * ELEMENTS, row);
        else load_box(to, weights, barrier, chunk * ELEMENTS, row);
      };
      int early = 0, stage = 0;  // chunks whose weights are loaded before the turn
      if (lane == 0) {
        find(first, token, feature);
        for (; MI_CONSTANT && early < MI_STAGES && early < chunks; early++) load_weights(early, early);
      }
      await_turn();
      u32 phase = 1;
      for (int tile = first; lane == 0 && tile < tiles; tile += step) {
        find(tile, token, feature);
        for (int chunk = 0; chunk < chunks; chunk++, early--) {
          if (early <= 0) {
            await(free + 8 * stage, phase);
            load_weights(stage, chunk);
          }
          load_box(base + stage * STAGE_NBYTES, tokens, loaded + 8 * stage, chunk * ELEMENTS, token);
          if (++stage == MI_STAGES) stage = 0, phase ^= 1;
        }
      }
    }
    __syncwarp();
  }
  // Nobody ends while others of the cluster still load into its memory or tell it what is free.
  if (MI_SHARING > 1) {
    come_to_cluster();
    await_cluster();
  }
}
