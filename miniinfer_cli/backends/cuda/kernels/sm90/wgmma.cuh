// Matrix instructions of a warpgroup (wgmma): sums[64][N] += a[64][K] b[N][K], K = 16 halves or 8 floats of TF32.
//
// b lies in shared memory, a there or in registers. A thread of warp w (of four), g = lane / 4, t = lane % 4, has the sums
// d[4 j + 2 h + e] of row 16 w + g + 8 h and column 8 j + 2 t + e. Words of a in registers: rows g, g + 8 of the first half of
// K, then of the second; a word is two neighbouring halves (2 t, 2 t + 1) or element t of TF32.
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
    float* sums, unsigned n, u64 a, const u32* registers, u64 b, bool accumulates, int element, bool turn_a, bool turn_b);
void cores_close();
void cores_wait(unsigned most);
MI_DEVICE int element_of(f16*) { return 0; }
MI_DEVICE int element_of(bf16*) { return 1; }
MI_DEVICE int element_of(f32*) { return 2; }
}  // namespace emulation
MI_DEVICE void fence_sums() { emulation::cores_fence(); }
MI_DEVICE void close_products() { emulation::cores_close(); }
template <int OPEN> MI_DEVICE void await_products() { emulation::cores_wait(OPEN); }
template <int N> MI_DEVICE void hold(float (&d)[N]) {}
template <class T, bool TURN_A = false, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], u64 a, u64 b, bool accumulate) {
  emulation::cores_multiply(d, COUNT * 2, a, nullptr, b, accumulate, emulation::element_of((T*)0), TURN_A, TURN_B);
}
template <class T, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], const u32 (&a)[4], u64 b, bool accumulate) {
  emulation::cores_multiply(d, COUNT * 2, 0, a, b, accumulate, emulation::element_of((T*)0), false, TURN_B);
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

#define MI_SUM(i) "+f"(d[i])
#define MI_PLACES_8 "%0, %1, %2, %3"
#define MI_SUMS_8 MI_SUM(0), MI_SUM(1), MI_SUM(2), MI_SUM(3)
#define MI_PLACES_16 MI_PLACES_8 ", " "%4, %5, %6, %7"
#define MI_SUMS_16 MI_SUMS_8, MI_SUM(4), MI_SUM(5), MI_SUM(6), MI_SUM(7)
#define MI_PLACES_24 MI_PLACES_16 ", " "%8, %9, %10, %11"
#define MI_SUMS_24 MI_SUMS_16, MI_SUM(8), MI_SUM(9), MI_SUM(10), MI_SUM(11)
#define MI_PLACES_32 MI_PLACES_24 ", " "%12, %13, %14, %15"
#define MI_SUMS_32 MI_SUMS_24, MI_SUM(12), MI_SUM(13), MI_SUM(14), MI_SUM(15)
#define MI_PLACES_40 MI_PLACES_32 ", " "%16, %17, %18, %19"
#define MI_SUMS_40 MI_SUMS_32, MI_SUM(16), MI_SUM(17), MI_SUM(18), MI_SUM(19)
#define MI_PLACES_48 MI_PLACES_40 ", " "%20, %21, %22, %23"
#define MI_SUMS_48 MI_SUMS_40, MI_SUM(20), MI_SUM(21), MI_SUM(22), MI_SUM(23)
#define MI_PLACES_56 MI_PLACES_48 ", " "%24, %25, %26, %27"
#define MI_SUMS_56 MI_SUMS_48, MI_SUM(24), MI_SUM(25), MI_SUM(26), MI_SUM(27)
#define MI_PLACES_64 MI_PLACES_56 ", " "%28, %29, %30, %31"
#define MI_SUMS_64 MI_SUMS_56, MI_SUM(28), MI_SUM(29), MI_SUM(30), MI_SUM(31)
#define MI_PLACES_72 MI_PLACES_64 ", " "%32, %33, %34, %35"
#define MI_SUMS_72 MI_SUMS_64, MI_SUM(32), MI_SUM(33), MI_SUM(34), MI_SUM(35)
#define MI_PLACES_80 MI_PLACES_72 ", " "%36, %37, %38, %39"
#define MI_SUMS_80 MI_SUMS_72, MI_SUM(36), MI_SUM(37), MI_SUM(38), MI_SUM(39)
#define MI_PLACES_88 MI_PLACES_80 ", " "%40, %41, %42, %43"
#define MI_SUMS_88 MI_SUMS_80, MI_SUM(40), MI_SUM(41), MI_SUM(42), MI_SUM(43)
#define MI_PLACES_96 MI_PLACES_88 ", " "%44, %45, %46, %47"
#define MI_SUMS_96 MI_SUMS_88, MI_SUM(44), MI_SUM(45), MI_SUM(46), MI_SUM(47)
#define MI_PLACES_104 MI_PLACES_96 ", " "%48, %49, %50, %51"
#define MI_SUMS_104 MI_SUMS_96, MI_SUM(48), MI_SUM(49), MI_SUM(50), MI_SUM(51)
#define MI_PLACES_112 MI_PLACES_104 ", " "%52, %53, %54, %55"
#define MI_SUMS_112 MI_SUMS_104, MI_SUM(52), MI_SUM(53), MI_SUM(54), MI_SUM(55)
#define MI_PLACES_120 MI_PLACES_112 ", " "%56, %57, %58, %59"
#define MI_SUMS_120 MI_SUMS_112, MI_SUM(56), MI_SUM(57), MI_SUM(58), MI_SUM(59)
#define MI_PLACES_128 MI_PLACES_120 ", " "%60, %61, %62, %63"
#define MI_SUMS_128 MI_SUMS_120, MI_SUM(60), MI_SUM(61), MI_SUM(62), MI_SUM(63)
#define MI_PLACES_136 MI_PLACES_128 ", " "%64, %65, %66, %67"
#define MI_SUMS_136 MI_SUMS_128, MI_SUM(64), MI_SUM(65), MI_SUM(66), MI_SUM(67)
#define MI_PLACES_144 MI_PLACES_136 ", " "%68, %69, %70, %71"
#define MI_SUMS_144 MI_SUMS_136, MI_SUM(68), MI_SUM(69), MI_SUM(70), MI_SUM(71)
#define MI_PLACES_152 MI_PLACES_144 ", " "%72, %73, %74, %75"
#define MI_SUMS_152 MI_SUMS_144, MI_SUM(72), MI_SUM(73), MI_SUM(74), MI_SUM(75)
#define MI_PLACES_160 MI_PLACES_152 ", " "%76, %77, %78, %79"
#define MI_SUMS_160 MI_SUMS_152, MI_SUM(76), MI_SUM(77), MI_SUM(78), MI_SUM(79)
#define MI_PLACES_168 MI_PLACES_160 ", " "%80, %81, %82, %83"
#define MI_SUMS_168 MI_SUMS_160, MI_SUM(80), MI_SUM(81), MI_SUM(82), MI_SUM(83)
#define MI_PLACES_176 MI_PLACES_168 ", " "%84, %85, %86, %87"
#define MI_SUMS_176 MI_SUMS_168, MI_SUM(84), MI_SUM(85), MI_SUM(86), MI_SUM(87)
#define MI_PLACES_184 MI_PLACES_176 ", " "%88, %89, %90, %91"
#define MI_SUMS_184 MI_SUMS_176, MI_SUM(88), MI_SUM(89), MI_SUM(90), MI_SUM(91)
#define MI_PLACES_192 MI_PLACES_184 ", " "%92, %93, %94, %95"
#define MI_SUMS_192 MI_SUMS_184, MI_SUM(92), MI_SUM(93), MI_SUM(94), MI_SUM(95)
#define MI_PLACES_200 MI_PLACES_192 ", " "%96, %97, %98, %99"
#define MI_SUMS_200 MI_SUMS_192, MI_SUM(96), MI_SUM(97), MI_SUM(98), MI_SUM(99)
#define MI_PLACES_208 MI_PLACES_200 ", " "%100, %101, %102, %103"
#define MI_SUMS_208 MI_SUMS_200, MI_SUM(100), MI_SUM(101), MI_SUM(102), MI_SUM(103)
#define MI_PLACES_216 MI_PLACES_208 ", " "%104, %105, %106, %107"
#define MI_SUMS_216 MI_SUMS_208, MI_SUM(104), MI_SUM(105), MI_SUM(106), MI_SUM(107)
#define MI_PLACES_224 MI_PLACES_216 ", " "%108, %109, %110, %111"
#define MI_SUMS_224 MI_SUMS_216, MI_SUM(108), MI_SUM(109), MI_SUM(110), MI_SUM(111)
#define MI_PLACES_232 MI_PLACES_224 ", " "%112, %113, %114, %115"
#define MI_SUMS_232 MI_SUMS_224, MI_SUM(112), MI_SUM(113), MI_SUM(114), MI_SUM(115)
#define MI_PLACES_240 MI_PLACES_232 ", " "%116, %117, %118, %119"
#define MI_SUMS_240 MI_SUMS_232, MI_SUM(116), MI_SUM(117), MI_SUM(118), MI_SUM(119)
#define MI_PLACES_248 MI_PLACES_240 ", " "%120, %121, %122, %123"
#define MI_SUMS_248 MI_SUMS_240, MI_SUM(120), MI_SUM(121), MI_SUM(122), MI_SUM(123)
#define MI_PLACES_256 MI_PLACES_248 ", " "%124, %125, %126, %127"
#define MI_SUMS_256 MI_SUMS_248, MI_SUM(124), MI_SUM(125), MI_SUM(126), MI_SUM(127)

template <class T, bool TURN_A, bool TURN_B, int COUNT> struct Multiply;
template <class T, bool TURN_B, int COUNT> struct MultiplyHeld;
// A to G are the numbers of the operands behind the sums: descriptors or registers of a, then of b, then whether sums are added to.
#define MI_START(P) "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, " P ", 0;\n\twgmma.mma_async.sync.aligned.m64n"
#define MI_HALVES(N, T, name, A, B, C, D, E, F, G)                                                                        \
  template <bool TURN_A, bool TURN_B> struct Multiply<T, TURN_A, TURN_B, N / 2> {                                         \
    static MI_DEVICE void run(float (&d)[N / 2], u64 a, u64 b, int p) {                                                   \
      asm volatile(MI_START(C) #N "k16.f32." name "." name " {" MI_PLACES_##N "}, " A ", " B ", p, 1, 1, " D ", " E ";\n}" \
                   : MI_SUMS_##N : "l"(a), "l"(b), "r"(p), "n"((int)TURN_A), "n"((int)TURN_B));                           \
    }                                                                                                                     \
  };                                                                                                                      \
  template <bool TURN_B> struct MultiplyHeld<T, TURN_B, N / 2> {                                                          \
    static MI_DEVICE void run(float (&d)[N / 2], const u32 (&a)[4], u64 b, int p) {                                       \
      asm volatile(MI_START(F) #N "k16.f32." name "." name " {" MI_PLACES_##N "}, {" A ", " B ", " C ", " D "}, " E       \
                   ", p, 1, 1, " G ";\n}"                                                                                 \
                   : MI_SUMS_##N : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p), "n"((int)TURN_B));         \
    }                                                                                                                     \
  };
#define MI_MULTIPLY(N, A, B, C, D, E, F, G)                                                                                  \
  MI_HALVES(N, f16, "f16", A, B, C, D, E, F, G)                                                                              \
  MI_HALVES(N, bf16, "bf16", A, B, C, D, E, F, G)                                                                            \
  template <> struct Multiply<f32, false, false, N / 2> {                                                                    \
    static MI_DEVICE void run(float (&d)[N / 2], u64 a, u64 b, int p) {                                                      \
      asm volatile(MI_START(C) #N "k8.f32.tf32.tf32 {" MI_PLACES_##N "}, " A ", " B ", p, 1, 1;\n}"                          \
                   : MI_SUMS_##N : "l"(a), "l"(b), "r"(p));                                                                  \
    }                                                                                                                        \
  };                                                                                                                         \
  template <> struct MultiplyHeld<f32, false, N / 2> {                                                                       \
    static MI_DEVICE void run(float (&d)[N / 2], const u32 (&a)[4], u64 b, int p) {                                          \
      asm volatile(MI_START(F) #N "k8.f32.tf32.tf32 {" MI_PLACES_##N "}, {" A ", " B ", " C ", " D "}, " E ", p, 1, 1;\n}"   \
                   : MI_SUMS_##N : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(p));                              \
    }                                                                                                                        \
  };
#if !defined(MI_COLUMNS) || MI_COLUMNS == 8
MI_MULTIPLY(8, "%4", "%5", "%6", "%7", "%8", "%9", "%10")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 16
MI_MULTIPLY(16, "%8", "%9", "%10", "%11", "%12", "%13", "%14")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 24
MI_MULTIPLY(24, "%12", "%13", "%14", "%15", "%16", "%17", "%18")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 32
MI_MULTIPLY(32, "%16", "%17", "%18", "%19", "%20", "%21", "%22")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 40
MI_MULTIPLY(40, "%20", "%21", "%22", "%23", "%24", "%25", "%26")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 48
MI_MULTIPLY(48, "%24", "%25", "%26", "%27", "%28", "%29", "%30")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 56
MI_MULTIPLY(56, "%28", "%29", "%30", "%31", "%32", "%33", "%34")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 64
MI_MULTIPLY(64, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 72
MI_MULTIPLY(72, "%36", "%37", "%38", "%39", "%40", "%41", "%42")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 80
MI_MULTIPLY(80, "%40", "%41", "%42", "%43", "%44", "%45", "%46")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 88
MI_MULTIPLY(88, "%44", "%45", "%46", "%47", "%48", "%49", "%50")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 96
MI_MULTIPLY(96, "%48", "%49", "%50", "%51", "%52", "%53", "%54")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 104
MI_MULTIPLY(104, "%52", "%53", "%54", "%55", "%56", "%57", "%58")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 112
MI_MULTIPLY(112, "%56", "%57", "%58", "%59", "%60", "%61", "%62")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 120
MI_MULTIPLY(120, "%60", "%61", "%62", "%63", "%64", "%65", "%66")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 128
MI_MULTIPLY(128, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 136
MI_MULTIPLY(136, "%68", "%69", "%70", "%71", "%72", "%73", "%74")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 144
MI_MULTIPLY(144, "%72", "%73", "%74", "%75", "%76", "%77", "%78")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 152
MI_MULTIPLY(152, "%76", "%77", "%78", "%79", "%80", "%81", "%82")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 160
MI_MULTIPLY(160, "%80", "%81", "%82", "%83", "%84", "%85", "%86")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 168
MI_MULTIPLY(168, "%84", "%85", "%86", "%87", "%88", "%89", "%90")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 176
MI_MULTIPLY(176, "%88", "%89", "%90", "%91", "%92", "%93", "%94")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 184
MI_MULTIPLY(184, "%92", "%93", "%94", "%95", "%96", "%97", "%98")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 192
MI_MULTIPLY(192, "%96", "%97", "%98", "%99", "%100", "%101", "%102")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 200
MI_MULTIPLY(200, "%100", "%101", "%102", "%103", "%104", "%105", "%106")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 208
MI_MULTIPLY(208, "%104", "%105", "%106", "%107", "%108", "%109", "%110")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 216
MI_MULTIPLY(216, "%108", "%109", "%110", "%111", "%112", "%113", "%114")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 224
MI_MULTIPLY(224, "%112", "%113", "%114", "%115", "%116", "%117", "%118")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 232
MI_MULTIPLY(232, "%116", "%117", "%118", "%119", "%120", "%121", "%122")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 240
MI_MULTIPLY(240, "%120", "%121", "%122", "%123", "%124", "%125", "%126")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 248
MI_MULTIPLY(248, "%124", "%125", "%126", "%127", "%128", "%129", "%130")
#endif
#if !defined(MI_COLUMNS) || MI_COLUMNS == 256
MI_MULTIPLY(256, "%128", "%129", "%130", "%131", "%132", "%133", "%134")
#endif
#undef MI_MULTIPLY
#undef MI_HALVES
#undef MI_START
#undef MI_SUM

// T: f16, bf16, or f32 as TF32. Sums begin at 0 unless they are added to. N is twice the number of a thread's sums.
template <class T, bool TURN_A = false, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], u64 a, u64 b, bool accumulate) {
  Multiply<T, TURN_A, TURN_B, COUNT>::run(d, a, b, accumulate);
}
template <class T, bool TURN_B = false, int COUNT>
MI_DEVICE void multiply(float (&d)[COUNT], const u32 (&a)[4], u64 b, bool accumulate) {
  MultiplyHeld<T, TURN_B, COUNT>::run(d, a, b, accumulate);
}
#endif
