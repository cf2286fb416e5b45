// d[token][feature] = finish(narrow(alpha sum over k of tokens[token][k] weights[feature][k] + bias[feature])) for many tokens and
// up to 64 features, or more of them in parts.
//
// Weights are the 64 rows of the matrix instructions, and stay in shared memory; tokens are their MI_TOKENS columns, so each is read
// once, by as few instructions as there can be. Blocks stay, and two warpgroups take tiles of MI_TOKENS tokens in turns: one
// finishes while the other multiplies. One warp loads, through a ring of MI_STAGES chunks of 128 bytes of k.
//
// MI_T, MI_D: f16 or bf16, of the result too; MI_B: of the bias, where MI_BIASED is 1. MI_CONSTANT: 1 where no kernel makes the
// weights, which are loaded before the kernel's turn. MI_SCALES: 1 where there is an alpha. MI_BODY: a function that finishes an
// element; MI_FINISH(s, x0, x1, x2, x3, y): its call. Its operands x0 to x3 are of types MI_X0 to MI_X3 and lie MI_STEP0 to MI_STEP3
// elements apart along the features, 1 or 0; MI_OPERANDS: how many there are. MI_PLAIN: 1 where nothing is done to a sum; MI_EARLY:
// 1 where there is no operand, and it takes a few instructions. All rows are whole vectors.
//
// MI_WINDOWS: 1 where tokens are the windows of a convolution (windows.cuh). MI_GROUPED: 1 where it has several groups: of ``width``
// features each, by as many channels as the map of tokens has of one. MI_PARTED: 1 where there are groups, or more features: a row of
// blocks makes up to 64 features of a group, ``parts`` rows all of them. MI_STEPS: how many times 16 elements of a chunk are multiplied, 4 but where a tap's channels are one short chunk.
#include "pointwise.cuh"
#include "quick.cuh"
#include "sm90/copies.cuh"
#include "sm90/pieces.cuh"
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"
#include "sm90/windows.cuh"

#define MI_FEATURES 64

constexpr int ELEMENTS = 64, VECTOR = 8;  // of a chunk; of 16 bytes
constexpr u32 TOKENS_NBYTES = MI_TOKENS * 128, WEIGHTS_NBYTES = MI_FEATURES * 128;
constexpr int UNITS = MI_TOKENS / 16;  // vectors that a thread finishes
constexpr int EARLY_UNITS = MI_OPERANDS > 0 ? UNITS : 1;

MI_BODY

extern "C" __global__ void __launch_bounds__(288, 1) narrow_product(
    const __grid_constant__ TensorMap tokens, const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap results,
    const MI_B* bias, const MI_X0* x0, const MI_X1* x1, const MI_X2* x2, const MI_X3* x3, Longs<4> rows, float alpha, int features,
    int count, int chunks
#if MI_WINDOWS
    , Windows w
#endif
#if MI_PARTED
    , int width, int parts
#endif
) {
  MI_TILES(room);
  u32 at_ring = chunks * WEIGHTS_NBYTES, at_results = at_ring + MI_STAGES * TOKENS_NBYTES, at_barriers = at_results + 2 * TOKENS_NBYTES;
  u32 base = shared_address(room), ring = base + at_ring;
  u32 loaded = base + at_barriers, free = loaded + 8 * MI_STAGES, weighed = free + 8 * MI_STAGES;
  u32 begun = weighed + 8;  // of each warpgroup: what a tile reads has come, and the other may multiply
  int tiles = (count + MI_TOKENS - 1) / MI_TOKENS;
  int thread = (int)threadIdx.x, group = thread / 128, member = thread % 128, warp = member / 32, lane = thread % 32;
  bool loads = group == 2;
#if MI_PARTED
  int block = (int)blockIdx.y / parts, column0 = ((int)blockIdx.y - block * parts) * MI_FEATURES, feature0 = block * width + column0;
  features = width - column0;
#else
  const int feature0 = 0;
#endif

  if (loads && lane == 0) {
    fetch_map(tokens);
    fetch_map(weights);
    fetch_map(results);
    for (int i = 0; i < MI_STAGES; i++) {
      make_barrier(loaded + 8 * i, 1);
      make_barrier(free + 8 * i, 4);
    }
    make_barrier(weighed, 1);
    for (int i = 0; i < 2; i++) make_barrier(begun + 8 * i, 4);
    fence_barriers();
    let_next_begin();
  }
  __syncthreads();

  if (loads) {
    auto load_all_weights = [&]() {
#if MI_WINDOWS
      int of_tap = w.chunks;
#else
      int of_tap = chunks;
#endif
      if (lane == 0) arrive_expecting(weighed, chunks * WEIGHTS_NBYTES);
      for (int chunk = 0; lane == 0 && chunk < chunks; chunk++) {
        int tap = chunk / of_tap, channel = (chunk - tap * of_tap) * ELEMENTS;
        load_weights<1>(base + chunk * WEIGHTS_NBYTES, weights, weighed, channel, tap, feature0);
      }
    };
    if (MI_CONSTANT) load_all_weights();
    await_turn();
    if (!MI_CONSTANT) load_all_weights();
    int stage = 0;
    u32 phase = 1;
    for (int tile = (int)blockIdx.x; lane == 0 && tile < tiles; tile += (int)gridDim.x) {
      int token = tile * MI_TOKENS, channel = 0;
#if MI_WINDOWS
      Corner corner(w, token);
      int across = 0, down = 0;
#endif
      for (int chunk = 0; chunk < chunks; chunk++) {
        await(free + 8 * stage, phase);
        arrive_expecting(loaded + 8 * stage, TOKENS_NBYTES);
        u32 to = ring + stage * TOKENS_NBYTES;
#if MI_WINDOWS
        int beside = across * w.spread[0], below = down * w.spread[1];
#if MI_GROUPED
        load_columns(to, tokens, loaded + 8 * stage, channel, corner.x, corner.y, corner.image, block, beside, below);
#else
        load_columns(to, tokens, loaded + 8 * stage, channel, corner.x, corner.y, corner.image, beside, below);
#endif
#else
        load_box(to, tokens, loaded + 8 * stage, channel, token);
#endif
        channel += ELEMENTS;
#if MI_WINDOWS
        if (channel == w.chunks * ELEMENTS) {
          channel = 0;
          if (++across == w.across) across = 0, down++;
        }
#endif
        if (++stage == MI_STAGES) stage = 0, phase ^= 1;
      }
    }
    return;
  }

  await_turn();
  unsigned char* mine = room + at_results + group * TOKENS_NBYTES;  // where this warpgroup's results wait
  float added[2] = {};  // to the two features of this lane
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int feature = warp * 16 + lane / 4 + i * 8;
    if (MI_BIASED && feature < features) added[i] = widen(bias[feature0 + feature]);
  }
  // What a thread finishes of a row: eight features, of which there may be none.
  int column = member % 8 * VECTOR;
  bool there = column < features;
  column += feature0;
  float sums[MI_TOKENS / 2];
#pragma unroll
  for (int i = 0; i < MI_TOKENS / 2; i++) sums[i] = 0;
  hold(sums);
  await(weighed, 0);
  u32 turn = 0;
  for (int at = (int)blockIdx.x; at < tiles; at += (int)gridDim.x, turn++) {
    if ((turn & 1) != (u32)group) continue;
    long long token0 = (long long)at * MI_TOKENS;
    Few<MI_X0, VECTOR> v0[EARLY_UNITS];  // comes while sums are made
    if (MI_OPERANDS > 0) {
#pragma unroll
      for (int unit = 0; unit < UNITS; unit++) {
        long long token = token0 + member / 8 + 16 * unit;
        if (there && token < count) v0[MI_OPERANDS > 0 ? unit : 0] = few<VECTOR>(x0, rows.d[0], token, column, MI_STEP0);
      }
    }
    u32 place = turn * (u32)chunks;
    int stage = (int)(place % MI_STAGES);
    u32 phase = place / MI_STAGES & 1;
    auto give_back = [&](int which) {
      __syncwarp();  // all lanes have seen it full
      if (lane == 0) arrive(free + 8 * which);
    };
    // Of a stage that the other one has not seen full, a phase is not told from the one before.
    if (turn > 0) await(begun + 8 * (1 - group), (turn - 1) / 2 & 1);
    for (int chunk = 0; chunk < chunks; chunk++) {
      await(loaded + 8 * stage, phase);
      fence_sums();
      u64 left = tile<128>(base + chunk * WEIGHTS_NBYTES, 16, 1024), right = tile<128>(ring + stage * TOKENS_NBYTES, 16, 1024);
#pragma unroll
      for (int i = 0; i < MI_STEPS; i++) multiply<MI_T>(sums, left + 2 * i, right + 2 * i, chunk > 0 || i > 0);
      close_products();
      if (chunk > 0) {
        await_products<1>();
        give_back(stage ? stage - 1 : MI_STAGES - 1);
      }
      if (++stage == MI_STAGES) stage = 0, phase ^= 1;
    }
    __syncwarp();
    if (lane == 0) arrive(begun + 8 * group);
    await_products<0>();
    hold(sums);
    give_back(stage ? stage - 1 : MI_STAGES - 1);

    // Sums are turned, so that a token's features lie side by side; its results of two turns ago have been copied by then.
    if (member == 0) await_stores_read<0>();
    meet(1 + group, 128);
#pragma unroll
    for (int j = 0; j < MI_TOKENS / 8; j += 2) {
      u32 words[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float two[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float sum = sums[4 * j + 2 * i + e];
          if (MI_SCALES) sum *= alpha;
          two[e] = sum + added[i % 2];
          if constexpr (MI_EARLY) {
            MI_D y;
            MI_FINISH(widen(narrow<MI_D>(two[e])), MI_X0{}, MI_X1{}, MI_X2{}, MI_X3{}, y);
            two[e] = widen(y);
          }
        }
        words[i] = two_halves<MI_D>(two[0], two[1]);
      }
      int token = (j + lane / 16) * 8 + lane % 8, piece = warp * 2 + lane / 8 % 2;
      store_matrices_turned(shared_address(mine) + token * 128 + ((piece ^ token) % 8) * 16, words);
    }
    if constexpr (!MI_PLAIN && !MI_EARLY) {
      meet(1 + group, 128);
#pragma unroll
      for (int unit = 0; unit < UNITS; unit++) {
        int row = member / 8 + 16 * unit;
        long long token = token0 + row;
        if (!there || token >= count) continue;
        unsigned char* here = mine + row * 128 + ((member ^ row) % 8) * 16;
        Few<MI_X0, VECTOR> w0 = v0[MI_OPERANDS > 0 ? unit : 0];
        Few<MI_X1, VECTOR> w1{};
        Few<MI_X2, VECTOR> w2{};
        Few<MI_X3, VECTOR> w3{};
        if (MI_OPERANDS > 1) w1 = few<VECTOR>(x1, rows.d[1], token, column, MI_STEP1);
        if (MI_OPERANDS > 2) w2 = few<VECTOR>(x2, rows.d[2], token, column, MI_STEP2);
        if (MI_OPERANDS > 3) w3 = few<VECTOR>(x3, rows.d[3], token, column, MI_STEP3);
        __align__(16) Few<MI_D, VECTOR> s, y;
        move<16>(&s, here);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) MI_FINISH(widen(s.d[i]), w0.d[i], w1.d[i], w2.d[i], w3.d[i], y.d[i]);
        move<16>(here, &y);
      }
    }
    fence_for_copies();
    meet(1 + group, 128);
    if (member == 0) {
#if MI_GROUPED
      store_box(shared_address(mine), results, column0, block, (int)token0);
#else
      store_box(shared_address(mine), results, feature0, (int)token0);
#endif
      close_stores();
    }
  }
  if (member == 0) await_stores<0>();
}
