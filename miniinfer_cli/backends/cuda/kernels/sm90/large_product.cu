// d[token][feature] = finish(narrow(alpha sum over k of tokens[token][k] weights[feature][k] + bias[feature])) for many tokens.
//
// Blocks stay and go from tile to tile, of MI_GROUPS times 64 tokens x MI_FEATURES features. MI_GROUPS warpgroups multiply 64 tokens
// each; meanwhile MI_FINISHERS warps, three or four, finish the tile before, and one loads, through a ring of MI_STAGES chunks of 128
// bytes of k. Sums pass to where they are finished through shared memory, rounded to MI_S, the product's own type; so the matrix units
// do not wait for what follows a product. Of the last tile each warpgroup finishes its own part.
//
// A cluster is MI_SHARING blocks, one below the other; each loads a part of the weights for all of them. Tiles are taken in bands of
// ``band`` clusters along the tokens, so that what is loaded at one time lies within few rows of either operand.
//
// MI_T: f16, bf16, or f32 as TF32; MI_D: of the result. MI_CONSTANT: 1 where no kernel makes the weights, which are loaded before
// the kernel's turn. MI_SCALES: 1 where there is an alpha; MI_BIASED: 1 where there is a bias, of type MI_B. MI_BODY: a function that
// finishes an element; MI_FINISH(s, x0, x1, x2, x3, y): its call. Its operands x0 to x3 are of types MI_X0 to MI_X3 and lie MI_STEP0
// to MI_STEP3 elements apart along the features, 1 or 0. MI_OPERANDS: how many there are. MI_TABLE: 1 where there is one alone, of the
// size of MI_S as MI_D is: it is loaded a tile ahead to where sums will wait, and those who multiply finish; MI_ADDS: 1 where they
// only add it, all of type MI_S, and the sum is rounded once. MI_EARLY: 1 where there is no operand, and those who multiply finish,
// too. MI_PLAIN: 1 where nothing is done to a sum, and MI_D is MI_S; then, where those who multiply finish, and with a table, results
// are copied out of where they wait by a map. MI_WHOLE: 1 where all rows are whole vectors. MI_MULTIPLYING, MI_FINISHING, MI_LOADING:
// registers of a thread, 0 where all have as many.
//
// Rows of tokens whose statistics a kernel in front left are normalized: MI_PIECES of 64 elements, 0 where there are none; MI_CENTRED:
// by mean and variance. Weights were multiplied by the scale and a factor, ``unscale`` is one by that; where rows are centred those of
// a feature sum up to nothing, so means go away by themselves. MI_SHIFTED: 1 where ``shift`` is added, what the weights make of the
// normalization's. MI_KEEPS_ROWS: 1 where the normalized tokens are made as well. MI_SUMMARY: 1 where statistics of results are left.
//
// MI_WINDOWS: 1 where tokens are the windows of a convolution (windows.cuh).
#include "pointwise.cuh"
#include "quick.cuh"
#include "sm90/copies.cuh"
#include "sm90/pieces.cuh"
#include "sm90/rows.cuh"
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"
#include "sm90/windows.cuh"

#define MI_ROW_NBYTES 128
#define MI_ROWS 64  // tokens of a warpgroup

constexpr int ELEMENTS = MI_ROW_NBYTES / (int)sizeof(MI_T);  // of a chunk
constexpr int TOKENS = MI_ROWS * MI_GROUPS, THREADS = 128 * (MI_GROUPS + 1 + MI_FINISHERS / 4);
constexpr u32 TOKENS_NBYTES = TOKENS * MI_ROW_NBYTES, WEIGHTS_NBYTES = MI_FEATURES * MI_ROW_NBYTES;
constexpr u32 STAGE_NBYTES = TOKENS_NBYTES + WEIGHTS_NBYTES, PART_NBYTES = WEIGHTS_NBYTES / MI_SHARING;
constexpr int VECTOR = 16 / (int)sizeof(MI_S);                 // elements of 16 bytes that wait to be finished
constexpr int PANELS = MI_FEATURES * (int)sizeof(MI_S) / 128;  // of 128 bytes of each token, swizzled
constexpr u32 PANEL_NBYTES = MI_ROWS * 128, WAITING_NBYTES = PANELS * PANEL_NBYTES;
constexpr u32 AT_WAITING = MI_STAGES * STAGE_NBYTES, AT_BIAS = AT_WAITING + MI_GROUPS * WAITING_NBYTES;
constexpr int BIAS_PITCH = MI_FEATURES / 4 + 4;  // floats of one thread of four, and some so that they lie in other banks
constexpr bool BIASED = MI_BIASED || MI_SHIFTED;
constexpr u32 BIAS_NBYTES = BIASED ? 4 * BIAS_PITCH * 4 : 0;
constexpr u32 AT_SCALES = AT_BIAS + 2 * BIAS_NBYTES, SCALES_NBYTES = MI_PIECES ? TOKENS * 4 : 0;
constexpr u32 AT_BARRIERS = AT_SCALES + 2 * SCALES_NBYTES;
constexpr bool TABLED = MI_TABLE != 0, EARLY = TABLED || MI_EARLY;
constexpr bool COPIED = EARLY || MI_PLAIN;  // results wait as they are stored
constexpr bool SINGLY = COPIED && !MI_SUMMARY;  // a warp finishes each part, which is to have it copied
static_assert(!MI_SUMMARY || (COPIED && sizeof(MI_S) == 2), "statistics are of results that wait");
constexpr int STEPS = PANELS * 8;  // to finish a warpgroup's part of a tile: each eight tokens, 128 bytes of each
constexpr int BATCH = 2;           // fours of tokens of a step
static_assert(MI_FEATURES % (8 * MI_SHARING) == 0 && MI_FEATURES * sizeof(MI_S) % 128 == 0, "whole patterns and panels");

MI_BODY

// Sums side by side, as these wait, finished; where there is a table, with its elements that lie in their places.
template <class W, int N> MI_DEVICE W finished(W sums, const unsigned char* at) {
  __align__(8) Few<MI_S, N> s;
  __align__(8) Few<MI_X0, N> x{};
  __align__(8) Few<MI_D, N> y;
  move<sizeof(W)>(&s, &sums);
  if constexpr (TABLED) move<sizeof(W)>(&x, at);
#pragma unroll
  for (int i = 0; i < N; i++) MI_FINISH(widen(s.d[i]), x.d[i], MI_X1{}, MI_X2{}, MI_X3{}, y.d[i]);
  W found;
  move<sizeof(W)>(&found, &y);
  return found;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) large_product(
    const __grid_constant__ TensorMap tokens, const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap table,
    const __grid_constant__ TensorMap results, MI_D* d, const MI_B* bias, const MI_X0* x0, const MI_X1* x1, const MI_X2* x2,
    const MI_X3* x3, Longs<4> rows, long long ldd, float alpha, int features, int count, int chunks, int down, int across, int band,
    const float2* statistics, const float* shift, float2* summary, float epsilon, float unscale
#if MI_KEEPS_ROWS
    , const MI_T* x, const MI_T* by, const MI_T* plus, MI_T* normalized, long long ldx
#endif
#if MI_WINDOWS
    , Windows w
#endif
) {
  MI_TILES(room);
  u32 base = shared_address(room);
  u32 loaded = base + AT_BARRIERS, free = loaded + 8 * MI_STAGES, waiting = free + 8 * MI_STAGES, taken = waiting + 8 * MI_GROUPS;
  u32 tabled = taken + 8 * MI_GROUPS;
  int me = MI_SHARING > 1 ? (int)cluster_rank() : 0;
  int first = (int)blockIdx.x / MI_SHARING, step = (int)gridDim.x / MI_SHARING, tiles = down * across;
  int thread = (int)threadIdx.x, group = thread / 128, warp = thread / 32 % 4, lane = thread % 32;

  bool loads = thread / 32 == 4 * MI_GROUPS + MI_FINISHERS;
  if (loads && lane == 0) {
    fetch_map(tokens);
    fetch_map(weights);
    if (TABLED) fetch_map(table);
    if (COPIED) fetch_map(results);
  }
  if (thread == 0) {
    for (int i = 0; i < MI_STAGES; i++) {
      make_barrier(loaded + 8 * i, 1);
      make_barrier(free + 8 * i, 4 * MI_GROUPS * MI_SHARING);
    }
    for (int i = 0; i < MI_GROUPS; i++) {
      make_barrier(waiting + 8 * i, 4);
      make_barrier(taken + 8 * i, MI_FINISHERS);
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

  // 64 tokens of a tile, whose sums lie in shared memory, by so many warps; ``one`` of them has them copied, where they are.
  auto finish = [&](int warps, int one, int part, int token0, int feature0) {
    const unsigned char* from = room + AT_WAITING + part * WAITING_NBYTES;
    token0 += part * MI_ROWS;
    if (!MI_WHOLE) {
      for (int row = warp; row < MI_ROWS && token0 + row < count; row += warps) {
        long long token = token0 + row;
#pragma unroll
        for (int i = 0; i < (MI_FEATURES + 31) / 32; i++) {
          int column = 32 * i + lane, feature = feature0 + column, piece = column / VECTOR;
          if (column >= MI_FEATURES || feature >= features) continue;
          const unsigned char* at = from + piece / 8 * PANEL_NBYTES + row * 128 + ((piece ^ row) % 8) * 16;
          MI_S s = reinterpret_cast<const MI_S*>(at)[column % VECTOR];
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
    if constexpr (COPIED) {
      if (warp == one && lane == 0) {
        for (int panel = 0; panel < PANELS; panel++)
          store_box(shared_address(from) + panel * PANEL_NBYTES, results, feature0 + panel * 8 * VECTOR, token0);
        close_stores();
      }
#if MI_SUMMARY
      // Statistics of 64 neighbours in a row by each lane: around the first of them, which is no farther from the mean than others
      // are; so a difference of sums of squares is exact enough.
#pragma unroll 1
      for (int task = (warp + part * 2) % warps; task < 2 * PANELS; task += warps) {
        int panel = task / 2, row = task % 2 * 32 + lane, feature = feature0 + panel * PIECE;
        const unsigned char* at = from + panel * PANEL_NBYTES + row * 128;
        __align__(16) Few<MI_S, VECTOR> values[8];
#pragma unroll
        for (int i = 0; i < 8; i++) move<16>(&values[i], at + ((i ^ row) % 8) * 16);
        float pivot = widen(values[0].d[0]), sum[2] = {}, squares[2] = {};
#pragma unroll
        for (int i = 0; i < 8 * VECTOR; i++) {
          float far = widen(values[i / VECTOR].d[i % VECTOR]) - pivot;
          sum[i % 2] += far;
          squares[i % 2] += far * far;
        }
        float mean = (sum[0] + sum[1]) * (1.0f / PIECE), spread = squares[0] + squares[1] - PIECE * mean * mean;
        if (token0 + row < count && feature < features)
          summary[(long long)(token0 + row) * (features / PIECE) + feature / PIECE] = make_float2(pivot + mean, fmaxf(spread, 0.0f));
      }
#endif
      if (warp == one && lane == 0) await_stores_read<0>();
      return;
    }
    // What a step takes is loaded a step ahead.
    u32 share = (STEPS + warps - 1) / warps, begin = warp * share, end = begin + share < STEPS ? begin + share : STEPS;
    int row0 = lane / 8, column0 = lane % 8 * VECTOR, pitch = 4 * (int)ldd;
    int down_to = count - token0 - row0, right_to = features - feature0 - column0;
    MI_D* result = d + (token0 + row0) * ldd + feature0 + column0;
    u32 places[BATCH];
#pragma unroll
    for (int b = 0; b < BATCH; b++) places[b] = (4 * b + row0) * 128 + ((lane ^ (4 * b + row0)) % 8) * 16;
    __align__(16) Few<MI_S, VECTOR> s[BATCH];
    Few<MI_X0, VECTOR> v0[BATCH];
    Few<MI_X1, VECTOR> v1[BATCH];
    Few<MI_X2, VECTOR> v2[BATCH];
    Few<MI_X3, VECTOR> v3[BATCH];
    auto read = [&](u32 step) {
#pragma unroll
      for (int b = 0; b < BATCH; b++) {
        move<sizeof(MI_S) * VECTOR>(&s[b], from + step * 1024 + places[b]);
        if (MI_OPERANDS == 0) continue;
        int row = (int)(step % 8 * 8) + b * 4, column = (int)(step / 8 * 8 * VECTOR);
        long long token = token0 + row0 + (row < down_to ? row : down_to - 1);
        int feature = feature0 + column0 + (column < right_to ? column : right_to - VECTOR);
        v0[b] = few<VECTOR>(x0, rows.d[0], token, feature, MI_STEP0);
        if (MI_OPERANDS > 1) v1[b] = few<VECTOR>(x1, rows.d[1], token, feature, MI_STEP1);
        if (MI_OPERANDS > 2) v2[b] = few<VECTOR>(x2, rows.d[2], token, feature, MI_STEP2);
        if (MI_OPERANDS > 3) v3[b] = few<VECTOR>(x3, rows.d[3], token, feature, MI_STEP3);
      }
    };
    read(begin);
#pragma unroll 1
    for (u32 step = begin; step < end; step++) {
      __align__(16) Few<MI_D, VECTOR> y[BATCH];
      float sum[BATCH][VECTOR];
      Few<MI_X0, VECTOR> w0[BATCH];
      Few<MI_X1, VECTOR> w1[BATCH];
      Few<MI_X2, VECTOR> w2[BATCH];
      Few<MI_X3, VECTOR> w3[BATCH];
#pragma unroll
      for (int b = 0; b < BATCH; b++) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) sum[b][i] = widen(s[b].d[i]);
        w0[b] = v0[b], w1[b] = v1[b], w2[b] = v2[b], w3[b] = v3[b];
      }
      read(step + 1 < end ? step + 1 : begin);
#pragma unroll
      for (int b = 0; b < BATCH; b++)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) MI_FINISH(sum[b][i], w0[b].d[i], w1[b].d[i], w2[b].d[i], w3[b].d[i], y[b].d[i]);
#pragma unroll
      for (int b = 0; b < BATCH; b++) hold(y[b]);
      int row = (int)(step % 8 * 8), column = (int)(step / 8 * 8 * VECTOR);
#pragma unroll
      for (int b = 0; b < BATCH; b++)
        if (row + 4 * b < down_to && column < right_to)
          move<sizeof(MI_D) * VECTOR>(result + (u32)((row / 4 + b) * pitch + column), &y[b]);
    }
  };

#if MI_KEEPS_ROWS
  // The normalized tokens themselves: 32 of each warp's at one time, whose scales a lane each makes, then one by one, while the next
  // is under way.
  auto keep_rows = [&]() {
    constexpr int PACKS = MI_PIECES * 8, OF_LANE = (PACKS + 31) / 32;
    int stride = (int)gridDim.x * MI_FINISHERS, begin = (int)blockIdx.x * MI_FINISHERS + warp;
    __align__(16) Few<MI_T, 8> values[OF_LANE], scales[OF_LANE], shifts[OF_LANE] = {};
    auto load = [&](Few<MI_T, 8>(&to)[OF_LANE], const MI_T* from) {
#pragma unroll
      for (int i = 0; i < OF_LANE; i++)
        if (32 * i + lane < PACKS) move<16>(&to[i], from + (32 * i + lane) * 8);
    };
    load(scales, by);
    if (plus) load(shifts, plus);
#pragma unroll 1
    for (int first = begin; first < count; first += 32 * stride) {
      load(values, x + first * ldx);
      float2 mine = {};
      if (first + lane * stride < count)
        mine = row_scale<MI_PIECES, MI_CENTRED>(statistics + (long long)(first + lane * stride) * MI_PIECES, epsilon);
#pragma unroll 1
      for (int n = 0, row = first; n < 32 && row < count; n++, row += stride) {
        float mean = __shfl_sync(0xffffffffu, mine.x, n), inverse = __shfl_sync(0xffffffffu, mine.y, n);
        float wide[OF_LANE][8];
#pragma unroll
        for (int i = 0; i < OF_LANE; i++)
#pragma unroll
          for (int k = 0; k < 8; k++) wide[i][k] = (widen(values[i].d[k]) - mean) * inverse;
        if (n < 31 && row + stride < count) load(values, x + (row + stride) * ldx);
#pragma unroll
        for (int i = 0; i < OF_LANE; i++) {
          __align__(16) Few<MI_T, 8> y;
#pragma unroll
          for (int k = 0; k < 8; k++) y.d[k] = narrow<MI_T>(wide[i][k] * widen(scales[i].d[k]) + widen(shifts[i].d[k]));
          if (32 * i + lane < PACKS) move<16>(normalized + (long long)row * (MI_PIECES * PIECE) + (32 * i + lane) * 8, &y);
        }
      }
    }
  };
#endif

  // What the warps do that finish, and the one that loads.
  auto finish_all = [&]() {
    int token, feature;
    u32 turn = 0;
    int last = -1, held = -1;  // first features of the turns before: what is added to those lies where it is to be
    // What is added to the sums of a tile, and what its tokens are multiplied by.
    auto prepare = [&](int tile, u32 to) {
      if (!(BIASED || MI_PIECES) || tile >= tiles) return;
      find(tile, token, feature);
      float* values = reinterpret_cast<float*>(room + AT_BIAS + (to & 1) * BIAS_NBYTES);
      float* scales = reinterpret_cast<float*>(room + AT_SCALES + (to & 1) * SCALES_NBYTES);
      bool known = held == feature;
      held = last, last = feature;
      for (int i = thread - 128 * MI_GROUPS; BIASED && !known && i < MI_FEATURES; i += 32 * MI_FINISHERS) {
        bool there = feature + i < features;
        float added = (MI_BIASED && there ? widen(bias[feature + i]) : 0.0f) + (MI_SHIFTED && there ? shift[feature + i] : 0.0f);
        values[i % 8 / 2 * BIAS_PITCH + i / 8 * 2 + i % 2] = added;
      }
#if MI_PIECES
      for (int i = thread - 128 * MI_GROUPS; i < TOKENS; i += 32 * MI_FINISHERS) {
        long long row = token + i < count ? token + i : count - 1;
        scales[i] = row_scale<MI_PIECES, MI_CENTRED>(statistics + row * MI_PIECES, epsilon).y * unscale;
      }
#endif
    };
    // Says that a part is free; where there is a table, the next tile's is loaded there.
    auto give = [&](int part, int tile, u32 parity) {
      if (TABLED) fence_for_copies();
      __syncwarp();
      if (lane == 0) arrive(taken + 8 * part);
      if (!TABLED || warp != (SINGLY ? part : 0) || lane > 0 || tile >= tiles) return;
      await(taken + 8 * part, parity);
      find(tile, token, feature);
      arrive_expecting(tabled + 8 * part, WAITING_NBYTES);
      u32 to = base + AT_WAITING + part * WAITING_NBYTES;
      for (int panel = 0; panel < PANELS; panel++)
        load_box(to + panel * PANEL_NBYTES, table, tabled + 8 * part, feature + panel * 8 * VECTOR, token + part * MI_ROWS);
    };
    prepare(first, 0);
    for (int part = 0; part < MI_GROUPS; part++) give(part, first, 0);
#if MI_KEEPS_ROWS
    keep_rows();
#endif
    for (int tile = first; tile + step < tiles; tile += step, turn++) {
      prepare(tile + step, turn + 1);
      for (int i = 0; i < MI_GROUPS; i++) {
        int part = SINGLY ? (warp + 1 + i) % MI_GROUPS : i;  // that of another first: who copies waits
        find(tile, token, feature);
        await(waiting + 8 * part, turn & 1);
        if (!SINGLY || warp == part) finish(MI_FINISHERS, SINGLY ? part : 0, part, token, feature);
        give(part, tile + step, (turn + 1) & 1);
      }
    }
    if (COPIED && lane == 0) await_stores<0>();
  };
  auto load = [&]() {
    int token, feature;
    auto load_part = [&](int stage, int channel, int tap) {
      u32 barrier = loaded + 8 * stage, to = base + stage * STAGE_NBYTES + TOKENS_NBYTES + me * PART_NBYTES;
      arrive_expecting(barrier, STAGE_NBYTES);
      load_weights<MI_SHARING>(to, weights, barrier, channel, tap, feature + me * (MI_FEATURES / MI_SHARING));
    };
#if MI_WINDOWS
    int parts = w.chunks;  // of a tap
#else
    int parts = chunks;
#endif
    int early = 0, stage = 0;  // chunks whose weights are loaded before the turn
    if (lane == 0) {
      find(first, token, feature);
      for (; MI_CONSTANT && early < MI_STAGES && early < chunks; early++)
        load_part(early, early % parts * ELEMENTS, early / parts);
    }
    await_turn();
    u32 phase = 1;
    for (int tile = first; lane == 0 && tile < tiles; tile += step) {
      find(tile, token, feature);
      int channel = 0, tap = 0;
#if MI_WINDOWS
      Corner corner(w, token < count ? token : 0);  // one behind all images is nowhere
      int across = 0, down = 0;
#endif
      for (int chunk = 0; chunk < chunks; chunk++, early--) {
        if (early <= 0) {
          await(free + 8 * stage, phase);
          load_part(stage, channel, tap);
        }
        u32 to = base + stage * STAGE_NBYTES;
#if MI_WINDOWS
        int beside = across * w.spread[0], below = down * w.spread[1];
        load_columns(to, tokens, loaded + 8 * stage, channel, corner.x, corner.y, corner.image, beside, below);
#else
        load_box(to, tokens, loaded + 8 * stage, channel, token);
#endif
        channel += ELEMENTS;
#if MI_WINDOWS
        if (channel == parts * ELEMENTS) {
          channel = 0;
          tap++;
          if (++across == w.across) across = 0, down++;
        }
#endif
        if (++stage == MI_STAGES) stage = 0, phase ^= 1;
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
    // Where a piece of 16 bytes of a token waits.
    auto place = [&](int piece, int row) {
      return room + AT_WAITING + group * WAITING_NBYTES + piece / 8 * PANEL_NBYTES + row * 128 + ((piece ^ row) % 8) * 16;
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

      await((TABLED ? tabled : taken) + 8 * group, turn & 1);
      u32 mine = base + AT_WAITING + group * WAITING_NBYTES;
      const unsigned char* behind = room + AT_BIAS + (turn & 1) * BIAS_NBYTES + lane % 4 * (BIAS_PITCH * 4);
      float scale[2] = {};  // of the two tokens of this lane
      if (MI_PIECES) {
        const unsigned char* of = room + AT_SCALES + (turn & 1) * SCALES_NBYTES + (group * MI_ROWS + warp * 16 + lane / 4) * 4;
        for (int i = 0; i < 2; i++) scale[i] = *reinterpret_cast<const float*>(of + i * 32);
      }
#pragma unroll
      for (int j = 0; j < MI_FEATURES / 8; j += 2) {
        float bias4[4] = {};
        if (BIASED) move<16>(bias4, behind + j * 8);
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float& sum = sums[4 * j + i];
          float add = bias4[i / 4 * 2 + i % 2];
          if (MI_PIECES || MI_SCALES) sum *= MI_PIECES ? scale[i / 2 % 2] : alpha;
          if (BIASED) sum += add;
        }
      }
#pragma unroll
      for (int j = 0; j < MI_FEATURES / 8; j += 2) {
        if constexpr (sizeof(MI_S) == 2) {
          u32 words[4];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            float low = sums[4 * j + 2 * i], high = sums[4 * j + 2 * i + 1];
            const unsigned char* at = place(j + i / 2, warp * 16 + i % 2 * 8 + lane / 4) + lane % 4 * 4;
            if constexpr (MI_ADDS) {
              Few<MI_S, 2> added = neighbours<MI_S, 2>(reinterpret_cast<const MI_S*>(at));
              low += widen(added.d[0]), high += widen(added.d[1]);
            }
            words[i] = two_halves<MI_S>(low, high);
            if constexpr (EARLY && !MI_ADDS) words[i] = finished<u32, 2>(words[i], at);
          }
          int piece = j + lane / 16, row = warp * 16 + lane % 16;
          store_matrices(mine + piece / 8 * PANEL_NBYTES + row * 128 + ((piece ^ row) % 8) * 16, words);
        } else {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            unsigned char* to = place(2 * (j + i / 2) + lane % 4 / 2, warp * 16 + i % 2 * 8 + lane / 4) + lane % 2 * 8;
            float2 two = make_float2(sums[4 * j + 2 * i], sums[4 * j + 2 * i + 1]);
            if constexpr (EARLY) two = finished<float2, 2>(two, to);
            *reinterpret_cast<float2*>(to) = two;
          }
        }
      }
      if (COPIED) fence_for_copies();
      if (at + step >= tiles) break;
      __syncwarp();
      if (lane == 0) arrive(waiting + 8 * group);
    }
    int token, feature;
    find(tiles - 1 - (tiles - 1 - first) % step, token, feature);
    meet(1 + group, 128);
    finish(4, 0, group, token, feature);
    if (COPIED && warp == 0 && lane == 0) await_stores<0>();
  } else if (MI_FINISHERS == 4 && group > MI_GROUPS) {
    if constexpr (MI_LOADING > 0) give_registers<MI_LOADING>();
    if (loads) load();
  } else {
    if constexpr (MI_FINISHERS == 4 && MI_FINISHING > 0) take_registers<MI_FINISHING>();
    if constexpr (MI_FINISHERS < 4 && MI_FINISHING > 0) give_registers<MI_FINISHING>();
    if (MI_FINISHERS == 4 || !loads) finish_all();
    else load();
  }
  __syncwarp();
  // Nobody ends while others of the cluster still load into its memory or tell it what is free.
  if (MI_SHARING > 1) {
    come_to_cluster();
    await_cluster();
  }
}
