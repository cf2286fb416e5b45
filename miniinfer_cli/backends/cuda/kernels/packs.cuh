// Neighbours in memory moved by one access.
#pragma once
#include "types.cuh"

// N elements moved at once; one alone keeps its own alignment, whatever its size.
template <class T, int N> struct Several { typedef Pack<T, N> type; };
template <class T> struct Several<T, 1> { struct type { T d[1]; }; };
template <class T, int N> using several = typename Several<T, N>::type;
template <class T, int N> MI_DEVICE several<T, N> load_pack(const T* p) { return *reinterpret_cast<const several<T, N>*>(p); }
template <class T, int N> MI_DEVICE void store_pack(T* p, const several<T, N>& v) { *reinterpret_cast<several<T, N>*>(p) = v; }
