// Matrix instructions of a warpgroup (wgmma): sums[64][N] += a[64][K] b[N][K], K = 16 halves, 8 floats of TF32 or 32 bytes.
//
// b lies in shared memory, a there or in registers. A thread of warp w (of four), g = lane / 4, t = lane % 4, has the sums
// d[4 j + 2 h + e] of row 16 w + g + 8 h and column 8 j + 2 t + e. Words of a in registers: rows g, g + 8 of the first half of
// K, then of the second; a word is two neighbouring halves (2 t, 2 t + 1) or element t of TF32.
//
// Bytes are f8e4m3fn, whose sums are floats of fewer digits than f32 has (a kernel adds them up itself every so often), or i8 and u8,
// whose sums are of 32 bits, wrap around, and have 8, 16, 24, 32 or a multiple of 16 columns. They lie along k, both in shared memory.
//
// MI_COLUMNS: the only N that a kernel takes; where it is defined, the compiler reads no other's.
#pragma once
#include "sm90/shared.cuh"

// How an operand lies in shared memory. SWIZZLE: bytes over which it is swizzled, as its map has it. ``address``: of its first row,
// 16 bytes steps along k within a swizzled row included. Along k ("K-major"), a pattern is 8 rows of SWIZZLE bytes, and ``stride`` bytes lie
// between patterns along the rows; without a swizzle, 8 rows of 16 bytes, and ``leading`` bytes between those along k. Turned
// (halves alone), a pattern is 8 steps of k of SWIZZLE bytes of rows, ``leading`` lies between patterns along the rows and
// ``stride`` between those along k.
template <int SWIZZLE> MI_DEVICE u64 tile(u32 address, u32 leading, u32 stride) {
  const u64 mode = SWIZZLE == 128 ? 1 : SWIZZLE == 64 ? 2 : SWIZZLE == 32 ? 3 : 0;
  return (u64)(address >> 4 & 0x3fff) | (u64)(leading >> 4 & 0x3fff) << 16 | (u64)(stride >> 4 & 0x3fff) << 32 | mode << 62;
}

#ifdef MI_EMULATED
namespace emulation {
void cores_fence();
void cores_multiply(
    void* sums, unsigned n, u64 a, const u32* registers, u64 b, bool accumulates, int left, int right, bool turn_a, bool turn_b);
void cores_close();
void cores_wait(unsigned most);
MI_DEVICE int element_of(f16*) { return 0; }
MI_DEVICE int element_of(bf16*) { return 1; }
MI_DEVICE int element_of(f32*) { return 2; }
MI_DEVICE int element_of(f8e4m3fn*) { return 3; }
MI_DEVICE int element_of(i8*) { return 4; }
MI_DEVICE int element_of(u8*) { return 5; }
}  // namespace emulation
MI_DEVICE void fence_sums() { emulation::cores_fence(); }
MI_DEVICE void close_products() { emulation::cores_close(); }
template <int OPEN> MI_DEVICE void await_products() { emulation::cores_wait(OPEN); }
template <class S, int N> MI_DEVICE void hold(S (&d)[N]) {}
template <int N> MI_DEVICE void hold(u32 (&a)[N][4]) {}
template <class T, bool TURN_A = false, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], u64 a, u64 b, bool accumulate) {
  int type = emulation::element_of((T*)0);
  emulation::cores_multiply(d, COUNT * 2, a, nullptr, b, accumulate, type, type, TURN_A, TURN_B);
}
template <class T, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], const u32 (&a)[4], u64 b, bool accumulate) {
  int type = emulation::element_of((T*)0);
  emulation::cores_multiply(d, COUNT * 2, 0, a, b, accumulate, type, type, false, TURN_B);
}
template <class A, class B, int COUNT> MI_DEVICE void multiply(int (&d)[COUNT], u64 a, u64 b, bool accumulate) {
  int left = emulation::element_of((A*)0), right = emulation::element_of((B*)0);
  emulation::cores_multiply(d, COUNT * 2, a, nullptr, b, accumulate, left, right, false, false);
}
#else
// Before the first product, and after the registers of sums or of a were touched.
MI_DEVICE void fence_sums() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The products since the last call, as a group.
MI_DEVICE void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most so many groups are under way. Sums, and a in registers, are not to be touched before.
template <int OPEN> MI_DEVICE void await_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(OPEN) : "memory"); }
// Keeps the compiler from moving registers across.
template <int N> MI_DEVICE void hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N> MI_DEVICE void hold(int (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(d[i])::"memory");
}
template <int N> MI_DEVICE void hold(u32 (&a)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

// K: "+f" for floats, "+r" for integers.
#define MI_PLACES_8 "%0, %1, %2, %3"
#define MI_SUMS_8(K) K(d[0]), K(d[1]), K(d[2]), K(d[3])
#define MI_PLACES_16 MI_PLACES_8 ", " "%4, %5, %6, %7"
#define MI_SUMS_16(K) MI_SUMS_8(K), K(d[4]), K(d[5]), K(d[6]), K(d[7])
#define MI_PLACES_24 MI_PLACES_16 ", " "%8, %9, %10, %11"
#define MI_SUMS_24(K) MI_SUMS_16(K), K(d[8]), K(d[9]), K(d[10]), K(d[11])
#define MI_PLACES_32 MI_PLACES_24 ", " "%12, %13, %14, %15"
#define MI_SUMS_32(K) MI_SUMS_24(K), K(d[12]), K(d[13]), K(d[14]), K(d[15])
#define MI_PLACES_40 MI_PLACES_32 ", " "%16, %17, %18, %19"
#define MI_SUMS_40(K) MI_SUMS_32(K), K(d[16]), K(d[17]), K(d[18]), K(d[19])
#define MI_PLACES_48 MI_PLACES_40 ", " "%20, %21, %22, %23"
#define MI_SUMS_48(K) MI_SUMS_40(K), K(d[20]), K(d[21]), K(d[22]), K(d[23])
#define MI_PLACES_56 MI_PLACES_48 ", " "%24, %25, %26, %27"
#define MI_SUMS_56(K) MI_SUMS_48(K), K(d[24]), K(d[25]), K(d[26]), K(d[27])
#define MI_PLACES_64 MI_PLACES_56 ", " "%28, %29, %30, %31"
#define MI_SUMS_64(K) MI_SUMS_56(K), K(d[28]), K(d[29]), K(d[30]), K(d[31])
#define MI_PLACES_72 MI_PLACES_64 ", " "%32, %33, %34, %35"
#define MI_SUMS_72(K) MI_SUMS_64(K), K(d[32]), K(d[33]), K(d[34]), K(d[35])
#define MI_PLACES_80 MI_PLACES_72 ", " "%36, %37, %38, %39"
#define MI_SUMS_80(K) MI_SUMS_72(K), K(d[36]), K(d[37]), K(d[38]), K(d[39])
#define MI_PLACES_88 MI_PLACES_80 ", " "%40, %41, %42, %43"
#define MI_SUMS_88(K) MI_SUMS_80(K), K(d[40]), K(d[41]), K(d[42]), K(d[43])
#define MI_PLACES_96 MI_PLACES_88 ", " "%44, %45, %46, %47"
#define MI_SUMS_96(K) MI_SUMS_88(K), K(d[44]), K(d[45]), K(d[46]), K(d[47])
#define MI_PLACES_104 MI_PLACES_96 ", " "%48, %49, %50, %51"
#define MI_SUMS_104(K) MI_SUMS_96(K), K(d[48]), K(d[49]), K(d[50]), K(d[51])
#define MI_PLACES_112 MI_PLACES_104 ", " "%52, %53, %54, %55"
#define MI_SUMS_112(K) MI_SUMS_104(K), K(d[52]), K(d[53]), K(d[54]), K(d[55])
#define MI_PLACES_120 MI_PLACES_112 ", " "%56, %57, %58, %59"
#define MI_SUMS_120(K) MI_SUMS_112(K), K(d[56]), K(d[57]), K(d[58]), K(d[59])
#define MI_PLACES_128 MI_PLACES_120 ", " "%60, %61, %62, %63"
#define MI_SUMS_128(K) MI_SUMS_120(K), K(d[60]), K(d[61]), K(d[62]), K(d[63])
#define MI_PLACES_136 MI_PLACES_128 ", " "%64, %65, %66, %67"
#define MI_SUMS_136(K) MI_SUMS_128(K), K(d[64]), K(d[65]), K(d[66]), K(d[67])
#define MI_PLACES_144 MI_PLACES_136 ", " "%68, %69, %70, %71"
#define MI_SUMS_144(K) MI_SUMS_136(K), K(d[68]), K(d[69]), K(d[70]), K(d[71])
#define MI_PLACES_152 MI_PLACES_144 ", " "%72, %73, %74, %75"
#define MI_SUMS_152(K) MI_SUMS_144(K), K(d[72]), K(d[73]), K(d[74]), K(d[75])
#define MI_PLACES_160 MI_PLACES_152 ", " "%76, %77, %78, %79"
#define MI_SUMS_160(K) MI_SUMS_152(K), K(d[76]), K(d[77]), K(d[78]), K(d[79])
#define MI_PLACES_168 MI_PLACES_160 ", " "%80, %81, %82, %83"
#define MI_SUMS_168(K) MI_SUMS_160(K), K(d[80]), K(d[81]), K(d[82]), K(d[83])
#define MI_PLACES_176 MI_PLACES_168 ", " "%84, %85, %86, %87"
#define MI_SUMS_176(K) MI_SUMS_168(K), K(d[84]), K(d[85]), K(d[86]), K(d[87])
#define MI_PLACES_184 MI_PLACES_176 ", " "%88, %89, %90, %91"
#define MI_SUMS_184(K) MI_SUMS_176(K), K(d[88]), K(d[89]), K(d[90]), K(d[91])
#define MI_PLACES_192 MI_PLACES_184 ", " "%92, %93, %94, %95"
#define MI_SUMS_192(K) MI_SUMS_184(K), K(d[92]), K(d[93]), K(d[94]), K(d[95])
#define MI_PLACES_200 MI_PLACES_192 ", " "%96, %97, %98, %99"
#define MI_SUMS_200(K) MI_SUMS_192(K), K(d[96]), K(d[97]), K(d[98]), K(d[99])
#define MI_PLACES_208 MI_PLACES_200 ", " "%100, %101, %102, %103"
#define MI_SUMS_208(K) MI_SUMS_200(K), K(d[100]), K(d[101]), K(d[102]), K(d[103])
#define MI_PLACES_216 MI_PLACES_208 ", " "%104, %105, %106, %107"
#define MI_SUMS_216(K) MI_SUMS_208(K), K(d[104]), K(d[105]), K(d[106]), K(d[107])
#define MI_PLACES_224 MI_PLACES_216 ", " "%108, %109, %110, %111"
#define MI_SUMS_224(K) MI_SUMS_216(K), K(d[108]), K(d[109]), K(d[110]), K(d[111])
#define MI_PLACES_232 MI_PLACES_224 ", " "%112, %113, %114, %115"
#define MI_SUMS_232(K) MI_SUMS_224(K), K(d[112]), K(d[113]), K(d[114]), K(d[115])
#define MI_PLACES_240 MI_PLACES_232 ", " "%116, %117, %118, %119"
#define MI_SUMS_240(K) MI_SUMS_232(K), K(d[116]), K(d[117]), K(d[118]), K(d[119])
#define MI_PLACES_248 MI_PLACES_240 ", " "%120, %121, %122, %123"
#define MI_SUMS_248(K) MI_SUMS_240(K), K(d[120]), K(d[121]), K(d[122]), K(d[123])
#define MI_PLACES_256 MI_PLACES_248 ", " "%124, %125, %126, %127"
#define MI_SUMS_256(K) MI_SUMS_248(K), K(d[124]), K(d[125]), K(d[126]), K(d[127])

template <class T, bool TURN_A, bool TURN_B, int COUNT> struct Multiply;
template <class T, bool TURN_B, int COUNT> struct MultiplyHeld;
template <class A, class B, int COUNT> struct MultiplyIntegers;
// A to G are the numbers of the operands behind the sums: descriptors or registers of a, then of b, then whether sums are added to.
#define MI_START(P) "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, " P ", 0;\n\twgmma.mma_async.sync.aligned.m64n"
#define MI_HALVES(N, T, name, A, B, C, D, E, F, G)                                                                        \
  template <bool TURN_A, bool TURN_B> struct Multiply<T, TURN_A, TURN_B, N / 2> {                                         \
    static MI_DEVICE void run(float (&d)[N / 2], u64 a, u64 b, int p) {                                                   \
      asm volatile(MI_START(C) #N "k16.f32." name "." name " {" MI_PLACES_##N "}, " A ", " B ", p, 1, 1, " D ", " E ";\n}" \
                   : MI_SUMS_##N("+f") : "l"(a), "l"(b), "r"(p), "n"((int)TURN_A), "n"((int)TURN_B));                           \
    }                                                                                                                     \
  };                                                                                                                      \
  template <bool TURN_B> struct MultiplyHeld<T, TURN_B, N / 2> {                                                          \
    static MI_DEVICE void run(float (&d)[N / 2], const u32 (&a)[4], u64 b, int p) {                                       \
      asm volatile(MI_START(F) #N "k16.f32." name "." name " {" MI_PLACES_##N "}, {" A ", " B ", " C ", " D "}, " E       \
                   ", p, 1, 1, " G ";\n}"                                                                                 \
                   : MI_SUMS_##N("+f") : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p), "n"((int)TURN_B));         \
    }                                                                                                                     \
  };
#define MI_MULTIPLY(N, A, B, C, D, E, F, G)                                                                                  \
  MI_HALVES(N, f16, "f16", A, B, C, D, E, F, G)                                                                              \
  MI_HALVES(N, bf16, "bf16", A, B, C, D, E, F, G)                                                                            \
  template <> struct Multiply<f32, false, false, N / 2> {                                                                    \
    static MI_DEVICE void run(float (&d)[N / 2], u64 a, u64 b, int p) {                                                      \
      asm volatile(MI_START(C) #N "k8.f32.tf32.tf32 {" MI_PLACES_##N "}, " A ", " B ", p, 1, 1;\n}"                          \
                   : MI_SUMS_##N("+f") : "l"(a), "l"(b), "r"(p));                                                                  \
    }                                                                                                                        \
  };                                                                                                                         \
  template <> struct Multiply<f8e4m3fn, false, false, N / 2> {                                                               \
    static MI_DEVICE void run(float (&d)[N / 2], u64 a, u64 b, int p) {                                                      \
      asm volatile(MI_START(C) #N "k32.f32.e4m3.e4m3 {" MI_PLACES_##N "}, " A ", " B ", p, 1, 1;\n}"                         \
                   : MI_SUMS_##N("+f") : "l"(a), "l"(b), "r"(p));                                                            \
    }                                                                                                                        \
  };                                                                                                                         \
  template <> struct MultiplyHeld<f32, false, N / 2> {                                                                       \
    static MI_DEVICE void run(float (&d)[N / 2], const u32 (&a)[4], u64 b, int p) {                                          \
      asm volatile(MI_START(F) #N "k8.f32.tf32.tf32 {" MI_PLACES_##N "}, {" A ", " B ", " C ", " D "}, " E ", p, 1, 1;\n}"   \
                   : MI_SUMS_##N("+f") : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p));                              \
    }                                                                                                                        \
  };
#define MI_INTEGERS_OF(N, T, U, names, A, B, C)                                                                 \
  template <> struct MultiplyIntegers<T, U, N / 2> {                                                            \
    static MI_DEVICE void run(int (&d)[N / 2], u64 a, u64 b, int p) {                                           \
      asm volatile(MI_START(C) #N "k32.s32." names " {" MI_PLACES_##N "}, " A ", " B ", p;\n}"                  \
                   : MI_SUMS_##N("+r") : "l"(a), "l"(b), "r"(p));                                               \
    }                                                                                                           \
  };
#define MI_MULTIPLY_INTEGERS(N, A, B, C)           \
  MI_INTEGERS_OF(N, i8, i8, "s8.s8", A, B, C)      \
  MI_INTEGERS_OF(N, i8, u8, "s8.u8", A, B, C)      \
  MI_INTEGERS_OF(N, u8, i8, "u8.s8", A, B, C)      \
  MI_INTEGERS_OF(N, u8, u8, "u8.u8", A, B, C)
#if !defined(MI_COLUMNS) || MI_COLUMNS == 8
MI_MULTIPLY(8, "%4", "%5", "%6", "%7", "%8", "%9", "%10")
MI_MULTIPLY_INTEGERS(8, "%4", "%5", "%6")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 16
MI_MULTIPLY(16, "%8", "%9", "%10", "%11", "%12", "%13", "%14")
MI_MULTIPLY_INTEGERS(16, "%8", "%9", "%10")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 24
MI_MULTIPLY(24, "%12", "%13", "%14", "%15", "%16", "%17", "%18")
MI_MULTIPLY_INTEGERS(24, "%12", "%13", "%14")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 32
MI_MULTIPLY(32, "%16", "%17", "%18", "%19", "%20", "%21", "%22")
MI_MULTIPLY_INTEGERS(32, "%16", "%17", "%18")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 40
MI_MULTIPLY(40, "%20", "%21", "%22", "%23", "%24", "%25", "%26")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 48
MI_MULTIPLY(48, "%24", "%25", "%26", "%27", "%28", "%29", "%30")
MI_MULTIPLY_INTEGERS(48, "%24", "%25", "%26")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 56
MI_MULTIPLY(56, "%28", "%29", "%30", "%31", "%32", "%33", "%34")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 64
MI_MULTIPLY(64, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
MI_MULTIPLY_INTEGERS(64, "%32", "%33", "%34")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 72
MI_MULTIPLY(72, "%36", "%37", "%38", "%39", "%40", "%41", "%42")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 80
MI_MULTIPLY(80, "%40", "%41", "%42", "%43", "%44", "%45", "%46")
MI_MULTIPLY_INTEGERS(80, "%40", "%41", "%42")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 88
MI_MULTIPLY(88, "%44", "%45", "%46", "%47", "%48", "%49", "%50")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 96
MI_MULTIPLY(96, "%48", "%49", "%50", "%51", "%52", "%53", "%54")
MI_MULTIPLY_INTEGERS(96, "%48", "%49", "%50")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 104
MI_MULTIPLY(104, "%52", "%53", "%54", "%55", "%56", "%57", "%58")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 112
MI_MULTIPLY(112, "%56", "%57", "%58", "%59", "%60", "%61", "%62")
MI_MULTIPLY_INTEGERS(112, "%56", "%57", "%58")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 120
MI_MULTIPLY(120, "%60", "%61", "%62", "%63", "%64", "%65", "%66")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 128
MI_MULTIPLY(128, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
MI_MULTIPLY_INTEGERS(128, "%64", "%65", "%66")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 136
MI_MULTIPLY(136, "%68", "%69", "%70", "%71", "%72", "%73", "%74")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 144
MI_MULTIPLY(144, "%72", "%73", "%74", "%75", "%76", "%77", "%78")
MI_MULTIPLY_INTEGERS(144, "%72", "%73", "%74")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 152
MI_MULTIPLY(152, "%76", "%77", "%78", "%79", "%80", "%81", "%82")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 160
MI_MULTIPLY(160, "%80", "%81", "%82", "%83", "%84", "%85", "%86")
MI_MULTIPLY_INTEGERS(160, "%80", "%81", "%82")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 168
MI_MULTIPLY(168, "%84", "%85", "%86", "%87", "%88", "%89", "%90")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 176
MI_MULTIPLY(176, "%88", "%89", "%90", "%91", "%92", "%93", "%94")
MI_MULTIPLY_INTEGERS(176, "%88", "%89", "%90")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 184
MI_MULTIPLY(184, "%92", "%93", "%94", "%95", "%96", "%97", "%98")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 192
MI_MULTIPLY(192, "%96", "%97", "%98", "%99", "%100", "%101", "%102")
MI_MULTIPLY_INTEGERS(192, "%96", "%97", "%98")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 200
MI_MULTIPLY(200, "%100", "%101", "%102", "%103", "%104", "%105", "%106")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 208
MI_MULTIPLY(208, "%104", "%105", "%106", "%107", "%108", "%109", "%110")
MI_MULTIPLY_INTEGERS(208, "%104", "%105", "%106")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 216
MI_MULTIPLY(216, "%108", "%109", "%110", "%111", "%112", "%113", "%114")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 224
MI_MULTIPLY(224, "%112", "%113", "%114", "%115", "%116", "%117", "%118")
MI_MULTIPLY_INTEGERS(224, "%112", "%113", "%114")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 232
MI_MULTIPLY(232, "%116", "%117", "%118", "%119", "%120", "%121", "%122")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 240
MI_MULTIPLY(240, "%120", "%121", "%122", "%123", "%124", "%125", "%126")
MI_MULTIPLY_INTEGERS(240, "%120", "%121", "%122")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 248
MI_MULTIPLY(248, "%124", "%125", "%126", "%127", "%128", "%129", "%130")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 256
MI_MULTIPLY(256, "%128", "%129", "%130", "%131", "%132", "%133", "%134")
MI_MULTIPLY_INTEGERS(256, "%128", "%129", "%130")
#endif
#undef MI_MULTIPLY
#undef MI_MULTIPLY_INTEGERS
#undef MI_INTEGERS_OF
#undef MI_HALVES
#undef MI_START

// T: f16, bf16, f8e4m3fn, or f32 as TF32. A, B: i8 or u8. Sums begin at 0 unless they are added to. N is twice the number of a thread's sums.
template <class T, bool TURN_A = false, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], u64 a, u64 b, bool accumulate) {
  Multiply<T, TURN_A, TURN_B, COUNT>::run(d, a, b, accumulate);
}
template <class T, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], const u32 (&a)[4], u64 b, bool accumulate) {
  MultiplyHeld<T, TURN_B, COUNT>::run(d, a, b, accumulate);
}
template <class A, class B, int COUNT> MI_DEVICE void multiply(int (&d)[COUNT], u64 a, u64 b, bool accumulate) {
  MultiplyIntegers<A, B, COUNT>::run(d, a, b, accumulate);
}
#endif
