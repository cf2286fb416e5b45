// What reductions keep while they run, how two of these combine, and what is stored at the end.
//
// A reduction of elements T to results R has: Running, what a thread keeps, with add(Running&, T, position); Part, what
// threads exchange and stages store, made by settle(Running) and joined by combine(Part, Part); finish(Part, count) -> R.
#pragma once
#include "group.cuh"

// MI_PRE(x) is applied to each element in the type computed in; MI_POST(total, count) to the result, in floating point.
#ifndef MI_PRE
#define MI_PRE(x) (x)
#endif

template <class A> struct Real { typedef double type; };  // what means, roots and logarithms of A are computed in
template <> struct Real<float> { typedef float type; };

template <class A> struct Limits {
  static constexpr bool is_signed = (A)-1 < (A)0;
  static MI_DEVICE A lowest() { return is_signed ? (A)((u64)1 << (sizeof(A) * 8 - 1)) : (A)0; }
  static MI_DEVICE A highest() { return (A)(is_signed ? ~((u64)1 << (sizeof(A) * 8 - 1)) : ~(u64)0); }
};
template <> struct Limits<bool> {
  static MI_DEVICE bool lowest() { return false; }
  static MI_DEVICE bool highest() { return true; }
};
template <> struct Limits<float> {
  static MI_DEVICE float lowest() { return -mi_infinity(); }
  static MI_DEVICE float highest() { return mi_infinity(); }
};
template <> struct Limits<double> {
  static MI_DEVICE double lowest() { return -(double)mi_infinity(); }
  static MI_DEVICE double highest() { return (double)mi_infinity(); }
};

template <class R, class A> MI_DEVICE R finished(A total, double count) {
#ifdef MI_POST
  typedef typename Real<A>::type F;
  F wide = (F)total;
  return narrow<R>(convert<A>(MI_POST(wide, (F)count)));
#else
  return narrow<R>(total);
#endif
}

// One value of type A, joined by Join::of, from Join::start.
template <class T, class R, class A, class Join> struct Fold {
  typedef A Running;
  typedef A Part;
  static MI_DEVICE A start() { return Join::template start<A>(); }
  static MI_DEVICE void add(A& a, T element, i64) {
    A x = (A)widen(element);
    a = Join::of(a, (A)MI_PRE(x));
  }
  static MI_DEVICE A settle(A a) { return a; }
  static MI_DEVICE A combine(A a, A b) { return Join::of(a, b); }
  static MI_DEVICE R finish(A a, double count) { return finished<R>(a, count); }
};
struct JoinSum {
  template <class A> static MI_DEVICE A start() { return (A)0; }
  template <class A> static MI_DEVICE A of(A a, A b) { return math::add(a, b); }
};
struct JoinProd {
  template <class A> static MI_DEVICE A start() { return (A)1; }
  template <class A> static MI_DEVICE A of(A a, A b) { return math::multiply(a, b); }
};
struct JoinMax {  // NaN wins
  template <class A> static MI_DEVICE A start() { return Limits<A>::lowest(); }
  template <class A> static MI_DEVICE A of(A a, A b) { return b > a || b != b ? b : a; }
};
struct JoinMin {
  template <class A> static MI_DEVICE A start() { return Limits<A>::highest(); }
  template <class A> static MI_DEVICE A of(A a, A b) { return b < a || b != b ? b : a; }
};
template <class T, class R> struct Sum : Fold<T, R, computed<T>, JoinSum> {};
template <class T, class R> struct Prod : Fold<T, R, computed<T>, JoinProd> {};
template <class T, class R> struct Max : Fold<T, R, computed<T>, JoinMax> {};
template <class T, class R> struct Min : Fold<T, R, computed<T>, JoinMin> {};

// sum(exp(x)) as scaled * exp(shift(highest)), where the shift is 0 unless the maximum is finite.
template <class F> struct ExpSum { F highest, scaled; };
template <class F> MI_DEVICE F exp_shift(F highest) { return is_finite(highest) ? highest : (F)0; }
template <class F> MI_DEVICE ExpSum<F> joined(ExpSum<F> a, ExpSum<F> b) {
  ExpSum<F> r;
  r.highest = a.highest > b.highest ? a.highest : b.highest;
  F shift = exp_shift(r.highest);
  F left = a.scaled == (F)0 ? (F)0 : a.scaled * math::exp(exp_shift(a.highest) - shift);
  F right = b.scaled == (F)0 ? (F)0 : b.scaled * math::exp(exp_shift(b.highest) - shift);
  r.scaled = left + right;
  return r;
}
template <class F> MI_DEVICE void add_exp(ExpSum<F>& a, F x) {
  if (x > a.highest) {
    if (a.scaled != (F)0) a.scaled *= math::exp(exp_shift(a.highest) - exp_shift(x));
    a.highest = x;
  }
  a.scaled += math::exp(x - exp_shift(a.highest));
}
template <class T, class R> struct LogSumExp {
  typedef typename Real<computed<T>>::type F;
  typedef ExpSum<F> Running;
  typedef ExpSum<F> Part;
  static MI_DEVICE Part start() { return {-(F)mi_infinity(), (F)0}; }
  static MI_DEVICE void add(Part& a, T x, i64) { add_exp(a, (F)widen(x)); }
  static MI_DEVICE Part settle(Part a) { return a; }
  static MI_DEVICE Part combine(Part a, Part b) { return joined(a, b); }
  static MI_DEVICE R finish(Part a, double) { return narrow<R>(math::log(a.scaled) + exp_shift(a.highest)); }
};
// As LogSumExp, with the maximum and log(sum(exp(x - maximum))) apart: what a logarithm of a softmax subtracts.
template <class T, class R> struct LogSumExpParts : LogSumExp<T, R> {
  typedef LogSumExp<T, R> Base;
  static MI_DEVICE R finish(typename Base::Part a, double) {
    typedef typename Base::F F;
    F infinity = (F)mi_infinity();
    return {a.highest, a.highest == infinity ? infinity - infinity : math::log(a.scaled)};  // NaN, as infinity - infinity is
  }
};

// The position of the largest or smallest element; NaN before all, then the first position (MI_LAST: the last).
#ifndef MI_LAST
#define MI_LAST 0
#endif
template <class A> struct Place { A value; i64 at; };
template <class T, class R, bool LARGEST> struct ArgFold {
  typedef computed<T> A;
  typedef Place<A> Running;
  typedef Place<A> Part;
  static MI_DEVICE Part start() { return {(A)0, -1}; }
  static MI_DEVICE bool beats(Part a, Part b) {  // a before b
    if (a.at < 0 || b.at < 0) return a.at >= 0;
    bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan;
    if (!a_nan && a.value != b.value) return LARGEST ? a.value > b.value : a.value < b.value;
    return MI_LAST ? a.at > b.at : a.at < b.at;
  }
  static MI_DEVICE void add(Part& a, T x, i64 at) {
    Part b = {(A)widen(x), at};
    if (beats(b, a)) a = b;
  }
  static MI_DEVICE Part settle(Part a) { return a; }
  static MI_DEVICE Part combine(Part a, Part b) { return beats(b, a) ? b : a; }
  static MI_DEVICE R finish(Part a, double) { return (R)a.at; }
};
template <class T, class R> struct ArgMax : ArgFold<T, R, true> {};
template <class T, class R> struct ArgMin : ArgFold<T, R, false> {};

// Mean and variance in F, as Pack<F, 2>. A thread sums differences from its first element, so that nothing cancels.
template <class F> struct RunningMoments { F count, first, sum, squares; };
template <class F> struct PartMoments { F count, mean, squares; };  // squares: of differences from the mean
template <class F> MI_DEVICE PartMoments<F> joined(PartMoments<F> a, PartMoments<F> b) {
  if (b.count == (F)0) return a;
  if (a.count == (F)0) return b;
  F count = a.count + b.count, apart = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * (a.count * share)};
}
template <class T, class R, class F> struct MomentsIn {
  typedef RunningMoments<F> Running;
  typedef PartMoments<F> Part;
  static MI_DEVICE Running start() { return {(F)0, (F)0, (F)0, (F)0}; }
  static MI_DEVICE void add(Running& a, T element, i64) {
    F x = (F)widen(element);
    if (a.count == (F)0) a.first = x;
    F apart = x - a.first;
    a.count += (F)1;
    a.sum += apart;
    a.squares += apart * apart;
  }
  static MI_DEVICE Part settle(Running a) {
    if (a.count == (F)0) return {(F)0, (F)0, (F)0};
    F mean = a.sum / a.count, squares = a.squares - a.sum * mean;
    return {a.count, a.first + mean, squares < (F)0 ? (F)0 : squares};
  }
  static MI_DEVICE Part combine(Part a, Part b) { return joined(a, b); }
  static MI_DEVICE R finish(Part a, double) { return {a.count == (F)0 ? a.squares / a.count : a.mean, a.squares / a.count}; }
};
template <class T, class R> struct MomentsF32 : MomentsIn<T, R, float> {};
template <class T, class R> struct MomentsF64 : MomentsIn<T, R, double> {};
// 0 and the mean of squares, in the same form.
template <class T, class R, class F> struct SquaresIn : Fold<T, R, F, JoinSum> {
  static MI_DEVICE void add(F& a, T element, i64) {
    F x = (F)widen(element);
    a += x * x;
  }
  static MI_DEVICE R finish(F a, double count) { return {(F)0, a / (F)count}; }
};
template <class T, class R> struct SquaresF32 : SquaresIn<T, R, float> {};
template <class T, class R> struct SquaresF64 : SquaresIn<T, R, double> {};

// Two sums beside each other: losses and their weights. MI_POST(total, weights).
template <class T, class R> struct PairSum {
  typedef T Running;  // Pack<F, 2>
  typedef T Part;
  static MI_DEVICE T start() { return T{}; }
  static MI_DEVICE T combine(T a, T b) {
    a.d[0] += b.d[0];
    a.d[1] += b.d[1];
    return a;
  }
  static MI_DEVICE void add(T& a, T x, i64) { a = combine(a, x); }
  static MI_DEVICE T settle(T a) { return a; }
  static MI_DEVICE R finish(T a, double) {
#ifdef MI_POST
    return narrow<R>(MI_POST(a.d[0], a.d[1]));
#else
    return narrow<R>(a.d[0]);
#endif
  }
};
