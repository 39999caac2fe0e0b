// Sums of windows that slide along a row: blocks of as many columns as a window has, each column added once to those after it in its
// block and once to those before it, as rows are (van Herk 1992; Gil & Werman 1993). Columns can be added to each other where
// many of them lie beside their equals: rows of one channel are turned, a few at a time, so that a column of theirs is one after another.
#pragma once

#include "lines.h"

namespace poolwise::POOLWISE_ISA {

// From so many taps on, measured (benchmarks/factors.md, 74), to as many as scratch memory has room for; of rows that no instruction set
// reduces in registers.
constexpr Int columns_worth_sliding = 15, most_slid_columns = 1 << 12, row_worth_sliding = 33;
constexpr int turned_rows = 8;  // at once; and channels, where there are several

template <int N, int Half, bool Second>
struct Exchanged {
  static constexpr int of(int i) {
    if (Second) return (i & Half) == 0 ? i + Half : N + i;
    return (i & Half) == 0 ? i : N + i - Half;
  }
};

// N packs of N lanes: what was lane i of pack j is lane j of pack i.
template <class A, int N, int Half = N / 2>
POOLWISE_INLINE void turn(Pack<A, N> (&packs)[N]) {
  if constexpr (Half > 0) {
    constexpr auto lanes = std::make_integer_sequence<int, N>{};
    for (int i = 0; i < N; ++i) {
      if ((i & Half) != 0) continue;
      const Pack<A, N> a = packs[i], b = packs[i + Half];
      packs[i] = shuffled<Exchanged<N, Half, false>>(a, b, lanes);
      packs[i + Half] = shuffled<Exchanged<N, Half, true>>(a, b, lanes);
    }
    turn<A, N, Half / 2>(packs);
  }
}

// What a sum slides over.
struct SlidColumns {
  Int begin, end;  // the columns that are there
  Int apart;       // lanes from one to the next
  Int taps, step, outputs;
};

// Adds U packs of lanes side by side. `after` holds what each column of a block comes to with those after it, U packs apart, and so do
// the sums lie, one for each output; they may begin where the columns do, where those lie U packs apart too.
template <class A, int U>
POOLWISE_INLINE void slide_columns(const A* from, SlidColumns columns, A* after, A* sums) {
  constexpr int N = full<A>;
  using Packs = Pack<A, N>[U];
  const auto put = [](A* to, Int column, const Packs& run) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) store<N, A>(to + (column * U + u) * N, run[u]);
  };
  const auto add = [&](Packs& run, Int column) POOLWISE_LAMBDA {
    for (int u = 0; u < U; ++u) run[u] += load<A, N>(from + column * columns.apart + u * N);
  };
  const Int taps = columns.taps, step = columns.step;
  for (Int block = 0, j = 0; j < columns.outputs; block += taps) {
    const Int first = j * step, begin = larger(first, columns.begin), end = smaller(block + taps, columns.end);
    Packs run{}, before{};
    Int column = block + taps;
    for (const Int stop = larger(first, end); column > stop;) put(after, --column - block, run);
    while (column > begin) {
      add(run, --column);
      put(after, column - block, run);
    }
    while (column > first) put(after, --column - block, run);
    const auto sum = [&] POOLWISE_LAMBDA {
      for (int u = 0; u < U; ++u) run[u] = load<A, N>(after + ((j * step - block) * U + u) * N) + before[u];
      put(sums, j++, run);
    };
    const Int last = smaller(columns.outputs, ceil_div(block + taps, step));
    Int next = larger(block + taps, columns.begin);
    while (j < last) {
      for (const Int stop = smaller(j * step + taps, columns.end); next < stop; ++next) add(before, next);
      sum();
      if (step == 1 && next == j + taps - 1)
        for (const Int stop = smaller(columns.end, last + taps - 1); next < stop;) {
          add(before, next++);
          sum();
        }
    }
  }
}

}  // namespace poolwise::POOLWISE_ISA
