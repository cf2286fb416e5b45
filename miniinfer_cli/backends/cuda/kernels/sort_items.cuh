// Items that are sorted in place of elements of MI_T: an element's key with its index, so that no two are equal.
#pragma once
#include "ordered_keys.cuh"

template <class Key> struct ItemOf;
template <> struct ItemOf<u32> {
  typedef u64 type;
  static MI_DEVICE type make(u32 key, u32 index) { return (u64)key << 32 | index; }
  static MI_DEVICE u32 index(type item) { return (u32)item; }
  static MI_DEVICE bool same_key(type a, type b) { return a >> 32 == b >> 32; }
  static MI_DEVICE bool less(type a, type b) { return a < b; }
};
struct __align__(16) WideItem { u64 key; u32 index; };
template <> struct ItemOf<u64> {
  typedef WideItem type;
  static MI_DEVICE type make(u64 key, u32 index) { return {key, index}; }
  static MI_DEVICE u32 index(type item) { return item.index; }
  static MI_DEVICE bool same_key(type a, type b) { return a.key == b.key; }
  static MI_DEVICE bool less(type a, type b) { return a.key < b.key || (a.key == b.key && a.index < b.index); }
};
typedef decltype(ordered_key(MI_T{})) Key;
typedef ItemOf<Key> Items;
typedef Items::type Item;
struct Less { MI_DEVICE bool operator()(Item a, Item b) const { return Items::less(a, b); } };

// Fills up a row, and comes last.
MI_DEVICE Item last_item() { return Items::make((Key)~(Key)0, 0xffffffffu); }
