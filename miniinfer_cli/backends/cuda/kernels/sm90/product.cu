// d[token][feature] = finish(sum over k of tokens[token][k] weights[feature][k]) for few tokens, each weight read once.
//
// Weights are the 64 rows of the matrix instructions, tokens their columns. Weights lie as shared memory has them: by 64 features,
// then by chunks of k, each of 64 rows of 128 bytes, swizzled; so a block reads one piece of memory, and asks no map where it is.
//
// A block makes MI_ROWS times 64 features x MI_TOKENS tokens over a part of k; a cluster has MI_SPLIT parts of k for MI_SHARING
// neighbours along the features. Blocks of one part share their tokens: each loads some of them for all. Sums of the parts go to the
// block that finishes them. One warp loads: all weights of the block before its turn, then tokens through a ring of MI_STAGES. A
// warpgroup multiplies 64 features and one of MI_GROUPS parts of the tokens.
//
// MI_T: f16, bf16, f32 as TF32, or a type of bytes; MI_W: of the weights, the same but for bytes of whole numbers, whose sums are
// whole numbers, too (MI_BYTES: 1); those of f8e4m3fn are added to floats every 128 elements of k (2). MI_D: of the result.
// MI_CHUNKS: of a block, at most; MI_EVEN: 1 where all have as many. MI_CONSTANT: 1 where no kernel makes the weights. MI_OVER: 1
// where parts of sums lie over weights, 2 where over tokens, which are not loaded in turns then. MI_PACK: elements of d that a thread
// finishes at once, 8, or 1 where rows of d or of operands are no whole vectors.
// MI_BODY: a function that finishes an element; MI_FINISH(s, y): its call. Its operands x0 to x3 are of types MI_X0 to MI_X3 and
// lie MI_STEP0 to MI_STEP3 elements apart along the features, 1 or 0; MI_VARIES0 to MI_VARIES3: 0 where all tokens have the same.
// MI_OPERANDS: how many there are.
//
// Rows of tokens whose statistics a kernel in front left are normalized in the finish, which is given what row_scale() makes of them:
// MI_PIECES of 64 elements, 0 where there are none; MI_CENTRED: by mean and variance. MI_KEEPS_ROWS: 1 where the normalized tokens
// are made as well: each 64 features make 2^bits packs of 8 of them. MI_SUMMARY: 1 where the statistics of results are left.
//
// MI_WINDOWS: 1 where tokens are the windows of a convolution (windows.cuh); packed weights are filled up like k.
//
// MI_ENDS: 1 where bytes leave, or sums of bytes are scaled: see integer_ending.cuh, whose numbers are a parameter, so that layers have
// one kernel.
#include "pointwise.cuh"
#if MI_ENDS
#include "integer_ending.cuh"
#endif
#include "sm90/copies.cuh"
#include "sm90/rows.cuh"
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"
#include "sm90/windows.cuh"

#define MI_ROW_NBYTES 128
#define MI_FEATURES 64
#define MI_WHOLE (MI_BYTES == 1)    // sums are whole numbers
#define MI_PARTIAL (MI_BYTES == 2)  // sums of few digits, of a chunk each
#define MI_PITCH (MI_FEATURES + 4)  // floats between tokens that are finished: neighbours lie in other banks

constexpr int ELEMENTS = MI_ROW_NBYTES / (int)sizeof(MI_T);           // of a chunk
constexpr int GROUPS = MI_ROWS * MI_GROUPS, THREADS = 128 * GROUPS;  // that multiply
constexpr int COLUMNS = MI_TOKENS / MI_GROUPS;                       // tokens of a warpgroup
constexpr int ATOMS = COLUMNS / 8;                                   // of 8 tokens
constexpr int SHARE = (ATOMS + MI_SPLIT - 1) / MI_SPLIT;             // atoms of a warpgroup that a block finishes
constexpr int BLOCKS = MI_SPLIT * MI_SHARING;                        // of a cluster
constexpr u32 TILE_NBYTES = MI_FEATURES * MI_ROW_NBYTES, WEIGHTS_NBYTES = MI_ROWS * TILE_NBYTES;
constexpr u32 TOKENS_NBYTES = MI_TOKENS * MI_ROW_NBYTES, SHARED_NBYTES = TOKENS_NBYTES / MI_SHARING;
constexpr u32 ATOM_NBYTES = 128 * 16;  // a float4 of each thread
constexpr u32 PARTS_NBYTES = (MI_SPLIT - 1) * GROUPS * SHARE * ATOM_NBYTES;
constexpr u32 AT_TOKENS = MI_CHUNKS * WEIGHTS_NBYTES;
constexpr u32 AFTER_TOKENS = AT_TOKENS + MI_STAGES * TOKENS_NBYTES;
constexpr u32 AT_PARTS = MI_OVER == 2 ? AT_TOKENS : MI_OVER ? 0 : AFTER_TOKENS;
constexpr u32 AT_BARRIERS = MI_OVER ? AFTER_TOKENS : AFTER_TOKENS + PARTS_NBYTES;
// Chunks that parts lie over: none of them is the last. The cluster is told as soon as they have been multiplied.
constexpr u32 COVERED_NBYTES = MI_OVER == 2 ? TOKENS_NBYTES : WEIGHTS_NBYTES;
constexpr int COVERED = MI_OVER ? (int)((PARTS_NBYTES + COVERED_NBYTES - 1) / COVERED_NBYTES) : 0;
constexpr int PACKS = MI_FEATURES / MI_PACK;
constexpr int UNITS = (SHARE * 8 * PACKS + 127) / 128;  // packs that a thread finishes
constexpr bool EARLY = UNITS <= 8;                      // operands that vary are loaded before the products, as others are
constexpr bool HELD = MI_STAGES >= MI_CHUNKS;           // tokens have a place each, and come to the barriers of their weights
constexpr bool VARIED = MI_VARIES0 || MI_VARIES1 || MI_VARIES2 || MI_VARIES3;
constexpr u32 AT_SCALES = AT_BARRIERS + 8 * (MI_CHUNKS + 2 * MI_STAGES + 1);  // of rows, by warpgroups
static_assert(MI_TOKENS % (8 * MI_GROUPS) == 0 && MI_TOKENS % (8 * MI_SHARING) == 0, "whole atoms for warpgroups and for blocks");

MI_BODY

#if MI_WHOLE
typedef int Sum;
MI_DEVICE float as_word(int x) { return __int_as_float(x); }
#else
typedef float Sum;
MI_DEVICE float as_word(float x) { return x; }
#endif

template <class T, int N> struct Few { T d[N]; };

// Elements of an operand for one token; `step`: 1 where each feature has its own, 0 where all have one.
template <class T> MI_DEVICE Few<T, MI_PACK> few(const T* x, long long row, long long token, int feature, int step) {
  __align__(16) Few<T, MI_PACK> v;
  const T* from = x + token * row + (step ? feature : 0);
  if (step && MI_PACK * sizeof(T) % 16 == 0) {
#pragma unroll
    for (int i = 0; i < (int)(MI_PACK * sizeof(T) / 16); i++) reinterpret_cast<uint4*>(&v)[i] = reinterpret_cast<const uint4*>(from)[i];
  } else if (step && MI_PACK * sizeof(T) == 8) {
    *reinterpret_cast<u64*>(&v) = *reinterpret_cast<const u64*>(from);
  } else {
#pragma unroll
    for (int i = 0; i < MI_PACK; i++) v.d[i] = from[step ? i : 0];
  }
  return v;
}

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1) product_sm90(
    const u8* weights, const __grid_constant__ TensorMap tokens, MI_D* d, const MI_X0* x0, const MI_X1* x1, const MI_X2* x2,
    const MI_X3* x3, Longs<4> rows, long long ldd, int features, int count, int chunks
#if MI_PIECES
    , const float2* statistics, float epsilon
#endif
#if MI_KEEPS_ROWS
    , const MI_T* x, const MI_T* scale, const MI_T* shift, MI_T* normalized, long long ldx, int bits
#endif
#if MI_SUMMARY
    , float2* summary
#endif
#if MI_WINDOWS
    , Windows w
#endif
#if MI_ENDS
    , Ending ending
#endif
) {
  MI_TILES(room);
  u32 base = shared_address(room);
  u32 weights_here = base + AT_BARRIERS, tokens_here = HELD ? weights_here : weights_here + 8 * MI_CHUNKS;
  u32 free = tokens_here + 8 * MI_STAGES;
  u32 parts_here = free + 8 * MI_STAGES;
  int me = BLOCKS > 1 ? (int)cluster_rank() : 0, rank = me / MI_SHARING, neighbour = me % MI_SHARING;
  int fewest = chunks / MI_SPLIT, more = chunks % MI_SPLIT;
  int first = rank * fewest + (rank < more ? rank : more), mine = MI_EVEN ? MI_CHUNKS : fewest + (rank < more ? 1 : 0);
  int tile0 = (int)blockIdx.x * MI_ROWS, token0 = (int)blockIdx.z * MI_TOKENS;
  int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
  int own = ATOMS - rank * SHARE < SHARE ? ATOMS - rank * SHARE : SHARE;  // atoms that each warpgroup finishes here
  bool loads = warp == 4 * GROUPS;

  auto load_weights = [&](int i) {
    int tiles = (features + MI_FEATURES - 1) / MI_FEATURES - tile0;  // of weights that there are
    tiles = tiles < 0 ? 0 : tiles < MI_ROWS ? tiles : MI_ROWS;
    arrive_expecting(weights_here + 8 * i, tiles * TILE_NBYTES + (HELD ? TOKENS_NBYTES : 0));
#pragma unroll 1
    for (int row = 0; row < tiles; row++) {
      const u8* from = weights + ((long long)(tile0 + row) * chunks + first + i) * TILE_NBYTES;
      copy_in(base + i * WEIGHTS_NBYTES + row * TILE_NBYTES, from, TILE_NBYTES, weights_here + 8 * i);
    }
  };
  if (loads && lane == 0) {
    fetch_map(tokens);  // behind weights it would wait for them, and the first tokens for it
    // By one thread, and no more than are needed: each takes its time, and by several lanes longer.
#pragma unroll 1
    for (int i = 0; i < MI_CHUNKS; i++) make_barrier(weights_here + 8 * i, 1);
#pragma unroll 1
    for (int i = 0; !HELD && i < MI_STAGES; i++) {
      make_barrier(tokens_here + 8 * i, 1);
      make_barrier(free + 8 * i, 4 * GROUPS * MI_SHARING);
    }
    if (MI_SPLIT > 1) make_barrier(parts_here, 1);
    fence_barriers();
    if (MI_SPLIT > 1 && own > 0) arrive_expecting(parts_here, (u32)own * GROUPS * (MI_SPLIT - 1) * ATOM_NBYTES);
    let_next_begin();
#pragma unroll 1
    for (int i = 0; MI_CONSTANT && i < mine; i++) load_weights(i);
  }
  __syncthreads();
  if (BLOCKS > 1) come_to_cluster();

  if (loads) {
    if (MI_SHARING > 1) await_cluster();  // others have made the barriers of what comes to them; of its own, a block knows
    await_turn();
    if (lane == 0) {
      u32 sharing = ((1u << MI_SHARING) - 1) << rank * MI_SHARING;  // blocks of this part of k
      int token = token0 + neighbour * (MI_TOKENS / MI_SHARING);
#if MI_WINDOWS
      Corner corner(w, token);
      int tap = first / w.chunks, part = first - tap * w.chunks, down = tap / w.across, across = tap - down * w.across;
#endif
#pragma unroll 1
      for (int i = 0; i < mine; i++) {
        if (!MI_CONSTANT) load_weights(i);
        int stage = i % MI_STAGES;
        if (i >= MI_STAGES) await(free + 8 * stage, (i / MI_STAGES - 1) & 1);
        if (!HELD) arrive_expecting(tokens_here + 8 * stage, TOKENS_NBYTES);
        u32 to = base + AT_TOKENS + stage * TOKENS_NBYTES + neighbour * SHARED_NBYTES, barrier = tokens_here + 8 * stage;
#if MI_WINDOWS
        int channel = part * ELEMENTS, beside = across * w.spread[0], below = down * w.spread[1];
        int x = corner.x, y = corner.y, image = corner.image;
        if (MI_SHARING > 1) load_columns_for(sharing, to, tokens, barrier, channel, x, y, image, beside, below);
        else load_columns(to, tokens, barrier, channel, x, y, image, beside, below);
        if (++part == w.chunks) {
          part = 0;
          if (++across == w.across) across = 0, down++;
        }
#else
        int k = (first + i) * ELEMENTS;
        if (MI_SHARING > 1) load_box_for(sharing, to, tokens, barrier, k, token);
        else load_box(to, tokens, barrier, k, token);
#endif
      }
    }
    __syncwarp();
    if (BLOCKS > 1 && MI_SHARING == 1) await_cluster();
    if (MI_OVER) {
      come_to_cluster();
      await_cluster();
    }
    return;
  }

  int group = GROUPS > 1 ? warp / 4 : 0, member = thread % 128, row = group / MI_GROUPS, part = group % MI_GROUPS;
  int feature = (tile0 + row) * MI_FEATURES + member % PACKS * MI_PACK;  // the first that this thread finishes, of each token
  long long token1 = token0 + part * COLUMNS + rank * SHARE * 8;         // and the first of its warpgroup's tokens
  Few<MI_X0, MI_PACK> v0[EARLY && MI_VARIES0 ? UNITS : 1];
  Few<MI_X1, MI_PACK> v1[EARLY && MI_VARIES1 ? UNITS : 1];
  Few<MI_X2, MI_PACK> v2[EARLY && MI_VARIES2 ? UNITS : 1];
  Few<MI_X3, MI_PACK> v3[EARLY && MI_VARIES3 ? UNITS : 1];
  auto load_operands = [&](int unit, bool whole) {
    int slot = EARLY ? unit : 0;
    long long token = token1 + (member + 128 * unit) / PACKS;
    if (token >= count || feature >= features) return;
    if (MI_OPERANDS > 0 && (whole || MI_VARIES0)) v0[MI_VARIES0 ? slot : 0] = few(x0, rows.d[0], token, feature, MI_STEP0);
    if (MI_OPERANDS > 1 && (whole || MI_VARIES1)) v1[MI_VARIES1 ? slot : 0] = few(x1, rows.d[1], token, feature, MI_STEP1);
    if (MI_OPERANDS > 2 && (whole || MI_VARIES2)) v2[MI_VARIES2 ? slot : 0] = few(x2, rows.d[2], token, feature, MI_STEP2);
    if (MI_OPERANDS > 3 && (whole || MI_VARIES3)) v3[MI_VARIES3 ? slot : 0] = few(x3, rows.d[3], token, feature, MI_STEP3);
  };
  await_turn();
  if (own > 0) {
#pragma unroll
    for (int unit = 0; unit < (EARLY ? UNITS : 1); unit++) load_operands(unit, unit == 0);
  }
#if MI_PIECES
  float2* scales = reinterpret_cast<float2*>(room + AT_SCALES) + group * SHARE * 8;
#pragma unroll 1
  for (int i = member; i < own * 8; i += 128)
    if (token1 + i < count) scales[i] = row_scale<MI_PIECES, MI_CENTRED>(statistics + (token1 + i) * MI_PIECES, epsilon);
#endif
  Sum sums[COLUMNS / 2];
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; i++) sums[i] = 0;
#if MI_PARTIAL
  float part_sums[COLUMNS / 2];
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; i++) part_sums[i] = 0;
  hold(part_sums);
#endif
  hold(sums);
  if (MI_OVER || MI_SHARING > 1) await_cluster();
#pragma unroll MI_EVEN ? MI_CHUNKS : 1
  for (int i = 0; i < mine; i++) {
    int stage = i % MI_STAGES;
    await(weights_here + 8 * i, 0);
    if (!HELD) await(tokens_here + 8 * stage, i / MI_STAGES & 1);
    fence_sums();
    u64 left = tile<128>(base + i * WEIGHTS_NBYTES + row * TILE_NBYTES, 16, 8 * MI_ROW_NBYTES);
    u64 right = tile<128>(base + AT_TOKENS + stage * TOKENS_NBYTES + part * COLUMNS * MI_ROW_NBYTES, 16, 8 * MI_ROW_NBYTES);
#if MI_PARTIAL
#pragma unroll
    for (int step = 0; step < 4; step++) multiply<MI_T>(part_sums, left + 2 * step, right + 2 * step, step > 0);
    close_products();
    await_products<0>();
    hold(part_sums);
#pragma unroll
    for (int n = 0; n < COLUMNS / 2; n++) sums[n] += part_sums[n];
#elif MI_WHOLE
#pragma unroll
    for (int step = 0; step < 4; step++) multiply<MI_W, MI_T>(sums, left + 2 * step, right + 2 * step, true);
    close_products();
#else
#pragma unroll
    for (int step = 0; step < 4; step++) multiply<MI_T>(sums, left + 2 * step, right + 2 * step, true);
    close_products();
#endif
    bool refilled = MI_STAGES < MI_CHUNKS && i > 0 && i - 1 + MI_STAGES < mine;  // the stage before this one
    bool covers = MI_OVER && i == COVERED;
    if (refilled || covers) await_products<1>();
    if (refilled && lane < MI_SHARING) {
      u32 there = free + 8 * ((i - 1) % MI_STAGES);
      if (MI_SHARING > 1) arrive_in_cluster(address_in_block(there, rank * MI_SHARING + lane));
      else arrive(there);
    }
    if (covers) come_to_cluster();
  }
  await_products<0>();
  hold(sums);

  // Each block gets the atoms that it finishes.
  Sum kept[SHARE * 4];
#pragma unroll
  for (int i = 0; i < SHARE * 4; i++) kept[i] = 0;
  if (BLOCKS > 1 && (MI_OVER || MI_SHARING == 1)) await_cluster();
#pragma unroll
  for (int owner = 0; owner < MI_SPLIT; owner++) {
    bool here = owner == rank;
    u32 to = base + AT_PARTS + (((here ? 0 : rank < owner ? rank : rank - 1) * GROUPS + group) * SHARE) * ATOM_NBYTES + member * 16;
    u32 there = MI_SPLIT > 1 ? address_in_block(to, owner * MI_SHARING + neighbour) : to;
    u32 barrier = MI_SPLIT > 1 ? address_in_block(parts_here, owner * MI_SHARING + neighbour) : parts_here;
#pragma unroll
    for (int a = 0; a < SHARE; a++) {
      int atom = owner * SHARE + a;
      if (atom >= ATOMS) continue;
      const Sum* v = sums + 4 * atom;
      if (here) {
#pragma unroll
        for (int e = 0; e < 4; e++) kept[4 * a + e] = v[e];
      } else {
        float4 words = make_float4(as_word(v[0]), as_word(v[1]), as_word(v[2]), as_word(v[3]));
        send_to_block(there + a * ATOM_NBYTES, words, barrier);
      }
    }
  }
  if (own <= 0) return;
#if MI_KEEPS_ROWS
  // While parts are under way: of each token that is finished here, as many packs of its row as features are 64.
  meet(2 + group, 128);
  int pack = ((tile0 + row) << bits) + (member & ((1 << bits) - 1));
#pragma unroll 1
  for (int i = member >> bits; i < own * 8; i += 128 >> bits) {
    if (token1 + i >= count || pack >= MI_PIECES * 8) break;
    several<MI_T, 8> v = load_pack<MI_T, 8>(x + (token1 + i) * ldx + pack * 8), by = load_pack<MI_T, 8>(scale + pack * 8), plus;
    if (shift) plus = load_pack<MI_T, 8>(shift + pack * 8);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      float scaled = (widen(v.d[e]) - scales[i].x) * scales[i].y * widen(by.d[e]);
      v.d[e] = narrow<MI_T>(shift ? scaled + widen(plus.d[e]) : scaled);
    }
    store_pack<MI_T, 8>(normalized + (token1 + i) * (MI_PIECES * PIECE) + pack * 8, v);
  }
#endif
  if (MI_SPLIT > 1) {
    await_in_cluster(parts_here, 0);
#pragma unroll
    for (int other = 0; other < MI_SPLIT - 1; other++)
#pragma unroll
      for (int a = 0; a < SHARE; a++) {
        if (a >= own) continue;
        const unsigned char* from = room + AT_PARTS + ((other * GROUPS + group) * SHARE + a) * ATOM_NBYTES + member * 16;
        Pack<Sum, 4> v = *reinterpret_cast<const Pack<Sum, 4>*>(from);
#pragma unroll
        for (int e = 0; e < 4; e++) kept[4 * a + e] += v.d[e];
      }
  }

  // Turned by way of shared memory, where weights lay, so that a thread finishes features that lie side by side.
  if (GROUPS > 1) meet(1, THREADS);
  else meet(2 + group, 128);
  float* turned = reinterpret_cast<float*>(room) + group * SHARE * 8 * MI_PITCH;
#pragma unroll
  for (int a = 0; a < SHARE; a++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (a < own) turned[(a * 8 + lane % 4 * 2 + e % 2) * MI_PITCH + warp % 4 * 16 + lane / 4 + e / 2 * 8] = (float)kept[4 * a + e];
  meet(2 + group, 128);
#pragma unroll EARLY && VARIED ? UNITS : 1
  for (int unit = 0; unit < UNITS; unit++) {
    int place = member + 128 * unit, slot = EARLY ? unit : 0;
    long long token = token1 + place / PACKS;
    __align__(16) Few<MI_D, MI_PACK> y;
    bool there = place < own * 8 * PACKS && token < count && feature < features;
    if (there) {
      if (!EARLY) load_operands(unit, false);
      Few<float, MI_PACK> s = few(turned, MI_PITCH, place / PACKS, place % PACKS * MI_PACK, 1);
#if MI_PIECES
      float2 scaling = scales[place / PACKS];
#else
      float2 scaling = make_float2(0, 1);
#endif
#pragma unroll
      for (int i = 0; i < MI_PACK; i++)
        MI_FINISH(
            s.d[i], v0[MI_VARIES0 ? slot : 0].d[i], v1[MI_VARIES1 ? slot : 0].d[i], v2[MI_VARIES2 ? slot : 0].d[i],
            v3[MI_VARIES3 ? slot : 0].d[i], scaling.x, scaling.y, y.d[i]);
    }
#if MI_SUMMARY
    float2 piece = piece_statistics(y.d);
    if (there && lane % 8 == 0) summary[token * (features / PIECE) + tile0 + row] = piece;
#endif
    if (!there) continue;
    MI_D* to = d + token * ldd + feature;
    if (MI_PACK * sizeof(MI_D) % 16 == 0) {
#pragma unroll
      for (int i = 0; i < (int)(MI_PACK * sizeof(MI_D) / 16); i++) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(&y)[i];
    } else if (MI_PACK * sizeof(MI_D) == 8) {
      *reinterpret_cast<u64*>(to) = *reinterpret_cast<const u64*>(&y);
    } else {
#pragma unroll
      for (int i = 0; i < MI_PACK; i++) to[i] = y.d[i];
    }
  }
}
