// d[token][feature] = finish(sum over k of tokens[token][k] weights[feature][k]) for few tokens, each weight read once.
//
// Weights are the 64 rows of the matrix instructions, tokens their columns. Weights lie as shared memory has them: by 64 features,
// then by chunks of k, each of 64 rows of 128 bytes, swizzled; so a block reads one piece of memory, and asks no map where it is.
//
// A cluster makes a tile of 64 features x MI_TOKENS: each
// of its MI_SPLIT blocks sums up a part of k, in chunks of 128 bytes, and sends what belongs to others to them; a block finishes
// its share of the tokens. One warp loads: all weights of the block before its turn, then tokens through a ring of MI_STAGES.
// MI_GROUPS warpgroups multiply, each a part of the tokens.
//
// MI_T: f16, bf16, or f32 as TF32; MI_D: of the result. MI_CHUNKS: of a block, at most. MI_CONSTANT: 1 where no kernel makes the
// weights. MI_PACK: elements of d that a thread finishes at once, 8, or 1 where rows of d or of operands are no whole vectors.
// MI_BODY: a function that finishes an element; MI_FINISH(s, y): its call. Its operands x0 to x3 are of types MI_X0 to MI_X3 and
// lie MI_STEP0 to MI_STEP3 elements apart along the features, 1 or 0. MI_OPERANDS: how many there are.
#include "pointwise.cuh"
#include "sm90/copies.cuh"
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"

#define MI_ROW_NBYTES 128
#define MI_FEATURES 64
#define MI_PITCH (MI_FEATURES + 4)  // floats between tokens that are finished: neighbours lie in other banks

constexpr int ELEMENTS = MI_ROW_NBYTES / (int)sizeof(MI_T);  // of a chunk
constexpr int COLUMNS = MI_TOKENS / MI_GROUPS;               // tokens of a warpgroup
constexpr int ATOMS = COLUMNS / 8;                           // of 8 tokens
constexpr int SHARE = (ATOMS + MI_SPLIT - 1) / MI_SPLIT;     // atoms of a warpgroup that a block finishes
constexpr u32 WEIGHTS_NBYTES = MI_FEATURES * MI_ROW_NBYTES, TOKENS_NBYTES = MI_TOKENS * MI_ROW_NBYTES;
constexpr u32 ATOM_NBYTES = 128 * 16;                        // a float4 of each thread
constexpr u32 AT_TOKENS = MI_CHUNKS * WEIGHTS_NBYTES;
constexpr u32 AT_PARTS = AT_TOKENS + MI_STAGES * TOKENS_NBYTES;
constexpr u32 AT_BARRIERS = AT_PARTS + (MI_SPLIT - 1) * MI_GROUPS * SHARE * ATOM_NBYTES;
constexpr int THREADS = 128 * MI_GROUPS;  // that multiply
static_assert(MI_TOKENS % (8 * MI_GROUPS) == 0, "whole atoms for each warpgroup");

MI_BODY

template <class T, int N> struct Few { T d[N]; };

// Elements of an operand for one token; `step`: 1 where each feature has its own, 0 where all have one.
template <class T> MI_DEVICE Few<T, MI_PACK> few(const T* x, long long row, long long token, int feature, int step) {
  Few<T, MI_PACK> v;
  const T* from = x + token * row + (step ? feature : 0);
  if (step && MI_PACK * sizeof(T) % 16 == 0) {
#pragma unroll
    for (int i = 0; i < (int)(MI_PACK * sizeof(T) / 16); i++) reinterpret_cast<uint4*>(&v)[i] = reinterpret_cast<const uint4*>(from)[i];
  } else {
#pragma unroll
    for (int i = 0; i < MI_PACK; i++) v.d[i] = from[step ? i : 0];
  }
  return v;
}

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1) product_sm90(
    const u8* weights, const __grid_constant__ TensorMap tokens, MI_D* d, const MI_X0* x0, const MI_X1* x1,
    const MI_X2* x2, const MI_X3* x3, Longs<4> rows, long long ldd, int features, int count, int chunks) {
  MI_TILES(room);
  u32 base = shared_address(room);
  u32 weights_here = base + AT_BARRIERS, tokens_here = weights_here + 8 * MI_CHUNKS, free = tokens_here + 8 * MI_STAGES;
  u32 parts_here = free + 8 * MI_STAGES;
  u32 rank = MI_SPLIT > 1 ? cluster_rank() : 0;
  int fewest = chunks / MI_SPLIT, more = chunks % MI_SPLIT;
  int first = (int)rank * fewest + ((int)rank < more ? (int)rank : more), mine = fewest + ((int)rank < more ? 1 : 0);
  int feature0 = (int)blockIdx.y * MI_FEATURES, token0 = (int)blockIdx.z * MI_TOKENS;
  int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
  bool loads = warp == 4 * MI_GROUPS;
  int own = (ATOMS - (int)rank * SHARE) < SHARE ? ATOMS - (int)rank * SHARE : SHARE;  // atoms that each warpgroup finishes here

  auto load_weights = [&](int i) {
    arrive_expecting(weights_here + 8 * i, WEIGHTS_NBYTES);
    const u8* from = weights + ((long long)blockIdx.y * chunks + first + i) * WEIGHTS_NBYTES;
    copy_in(base + i * WEIGHTS_NBYTES, from, WEIGHTS_NBYTES, weights_here + 8 * i);
  };
  if (loads && lane == 0) {
    fetch_map(tokens);
    for (int i = 0; i < MI_CHUNKS; i++) make_barrier(weights_here + 8 * i, 1);
    for (int i = 0; i < MI_STAGES; i++) {
      make_barrier(tokens_here + 8 * i, 1);
      make_barrier(free + 8 * i, 4 * MI_GROUPS);
    }
    make_barrier(parts_here, 1);
    fence_barriers();
    if (MI_SPLIT > 1 && own > 0) arrive_expecting(parts_here, (u32)own * MI_GROUPS * (MI_SPLIT - 1) * ATOM_NBYTES);
    let_next_begin();
    for (int i = 0; MI_CONSTANT && i < mine; i++) load_weights(i);
  }
  __syncthreads();
  if (MI_SPLIT > 1) arrive_at_cluster();

  if (loads) {
    await_turn();
    if (lane == 0) {
      for (int i = 0; i < mine; i++) {
        if (!MI_CONSTANT) load_weights(i);
        int stage = i % MI_STAGES;
        if (i >= MI_STAGES) await(free + 8 * stage, (i / MI_STAGES - 1) & 1);
        arrive_expecting(tokens_here + 8 * stage, TOKENS_NBYTES);
        load_box(base + AT_TOKENS + stage * TOKENS_NBYTES, tokens, tokens_here + 8 * stage, (first + i) * ELEMENTS, token0);
      }
    }
    __syncwarp();
    if (MI_SPLIT > 1) await_cluster();
    return;
  }

  int group = warp / 4, member = thread % 128;
  float sums[COLUMNS / 2];
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; i++) sums[i] = 0;
  hold(sums);
  for (int i = 0; i < mine; i++) {
    int stage = i % MI_STAGES;
    await(weights_here + 8 * i, 0);
    await(tokens_here + 8 * stage, i / MI_STAGES & 1);
    fence_sums();
    u64 left = tile<128>(base + i * WEIGHTS_NBYTES, 16, 8 * MI_ROW_NBYTES);
    u64 right = tile<128>(base + AT_TOKENS + stage * TOKENS_NBYTES + group * COLUMNS * MI_ROW_NBYTES, 16, 8 * MI_ROW_NBYTES);
#pragma unroll
    for (int step = 0; step < 4; step++) multiply<MI_T>(sums, left + 2 * step, right + 2 * step, true);
    close_products();
    if (MI_STAGES < MI_CHUNKS && i > 0) {
      await_products<1>();
      if (lane == 0) arrive(free + 8 * ((i - 1) % MI_STAGES));
    }
  }
  await_products<0>();
  hold(sums);

  // Each block gets the atoms that it finishes.
  float kept[SHARE * 4];
#pragma unroll
  for (int i = 0; i < SHARE * 4; i++) kept[i] = 0;
  if (MI_SPLIT > 1) await_cluster();
#pragma unroll
  for (int owner = 0; owner < MI_SPLIT; owner++) {
    bool here = owner == (int)rank;
    u32 slot = (int)rank < owner ? rank : rank - 1;
    u32 to = base + AT_PARTS + (((here ? 0 : slot) * MI_GROUPS + group) * SHARE) * ATOM_NBYTES + member * 16;
    u32 there = MI_SPLIT > 1 ? address_in_block(to, owner) : to;
    u32 barrier = MI_SPLIT > 1 ? address_in_block(parts_here, owner) : parts_here;
#pragma unroll
    for (int a = 0; a < SHARE; a++) {
      int atom = owner * SHARE + a;
      if (atom >= ATOMS) continue;
      float4 v = make_float4(sums[4 * atom], sums[4 * atom + 1], sums[4 * atom + 2], sums[4 * atom + 3]);
      if (here) {
        kept[4 * a] = v.x;
        kept[4 * a + 1] = v.y;
        kept[4 * a + 2] = v.z;
        kept[4 * a + 3] = v.w;
      } else {
        send_to_block(there + a * ATOM_NBYTES, v, barrier);
      }
    }
  }
  await_turn();
  if (own <= 0) return;
  if (MI_SPLIT > 1) {
    await_in_cluster(parts_here, 0);
#pragma unroll
    for (int other = 0; other < MI_SPLIT - 1; other++)
#pragma unroll
      for (int a = 0; a < SHARE; a++) {
        if (a >= own) continue;
        const unsigned char* from = room + AT_PARTS + ((other * MI_GROUPS + group) * SHARE + a) * ATOM_NBYTES + member * 16;
        float4 v = *reinterpret_cast<const float4*>(from);
        kept[4 * a] += v.x;
        kept[4 * a + 1] += v.y;
        kept[4 * a + 2] += v.z;
        kept[4 * a + 3] += v.w;
      }
  }

  // Turned by way of shared memory, where weights lay, so that a thread finishes features that lie side by side.
  meet(1, THREADS);
  float* turned = reinterpret_cast<float*>(room) + group * SHARE * 8 * MI_PITCH;
#pragma unroll
  for (int a = 0; a < SHARE; a++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (a < own) turned[(a * 8 + lane % 4 * 2 + e % 2) * MI_PITCH + warp % 4 * 16 + lane / 4 + e / 2 * 8] = kept[4 * a + e];
  meet(2 + group, 128);
  constexpr int PACKS = MI_FEATURES / MI_PACK;
  for (int unit = member; unit < own * 8 * PACKS; unit += 128) {
    int feature = feature0 + unit % PACKS * MI_PACK;
    long long token = token0 + group * COLUMNS + (int)rank * SHARE * 8 + unit / PACKS;
    if (token >= count || feature >= features) continue;
    const float* s = turned + unit / PACKS * MI_PITCH + unit % PACKS * MI_PACK;
    Few<MI_X0, MI_PACK> v0;
    Few<MI_X1, MI_PACK> v1;
    Few<MI_X2, MI_PACK> v2;
    Few<MI_X3, MI_PACK> v3;
    if (MI_OPERANDS > 0) v0 = few(x0, rows.d[0], token, feature, MI_STEP0);
    if (MI_OPERANDS > 1) v1 = few(x1, rows.d[1], token, feature, MI_STEP1);
    if (MI_OPERANDS > 2) v2 = few(x2, rows.d[2], token, feature, MI_STEP2);
    if (MI_OPERANDS > 3) v3 = few(x3, rows.d[3], token, feature, MI_STEP3);
    __align__(16) Few<MI_D, MI_PACK> y;
#pragma unroll
    for (int i = 0; i < MI_PACK; i++) MI_FINISH(s[i], v0.d[i], v1.d[i], v2.d[i], v3.d[i], y.d[i]);
    MI_D* to = d + token * ldd + feature;
    if (MI_PACK * sizeof(MI_D) % 16 == 0) {
#pragma unroll
      for (int i = 0; i < (int)(MI_PACK * sizeof(MI_D) / 16); i++) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(&y)[i];
    } else {
#pragma unroll
      for (int i = 0; i < MI_PACK; i++) to[i] = y.d[i];
    }
  }
}
