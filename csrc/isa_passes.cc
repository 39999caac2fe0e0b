// Passes over elements, of one instruction set: what the gradients of norms are made of, beside norms and sums.
#include <limits>

#include "isa.h"

namespace poolwise::POOLWISE_ISA {
namespace {

// The least normal number: what is below is rounded more than others. And what so many shares may be that sums and products do not overflow.
template <class A>
struct Range {
  static constexpr A least = std::numeric_limits<A>::min(), most = sizeof(A) == 4 ? A(0x1p100f) : A(0x1p900);
};

// Calls run.operator()<T>() with the type of an array.
template <class Run>
void with_type(Dtype dtype, Run&& run) {
  switch (dtype) {
    case Dtype::float16: return run.template operator()<Half>();
    case Dtype::bfloat16: return run.template operator()<Brain>();
    case Dtype::float32: return run.template operator()<float>();
    default: return run.template operator()<double>();
  }
}

template <class T, class A>
POOLWISE_OUTLINE bool over(const T* g, A* norms, Int n) {
  using R = Range<A>;
  bool all = true;
  for_rare_lanes<full<A>>(n, [&]<int N, int U>(Int i) POOLWISE_LAMBDA {
    const auto norm = load<A, N>(norms + i), sent = load<A, N>(g + i);
    const auto share = norm == 0 ? Pack<A, N>{} : sent / norm;
    const auto magnitude = share < 0 ? -share : share;
    const auto fits = (norm == 0) | ((norm >= R::least) & (magnitude >= R::least) & (magnitude <= R::most)) |
                      ((sent == 0) & (norm > 0) & (norm <= R::most));
    all = all & holds<Lane<A>, N>(fits);
    store<N, A>(norms + i, share);
  });
  return all;
}

template <class T, class A>
POOLWISE_OUTLINE void multiplied(const T* x, const A* sums, T* gx, Int n) {
  for_rare_lanes<full<A>>(n, [&]<int N, int U>(Int i) POOLWISE_LAMBDA {
    const auto sum = load<A, N>(sums + i);
    store<N, A>(gx + i, sum == 0 ? Pack<A, N>{} : sum * load<A, N>(x + i));  // x that nobody reads may be infinite
  });
}

}  // namespace

bool over_norms(Dtype dtype, const void* g, void* norms, Int n) {
  bool all = false;
  with_type(dtype, [&]<class T>() { all = over(static_cast<const T*>(g), static_cast<Number<T>*>(norms), n); });
  return all;
}
void times_sums(Dtype dtype, const void* x, const void* sums, void* gx, Int n) {
  with_type(dtype, [&]<class T>() { multiplied(static_cast<const T*>(x), static_cast<const Number<T>*>(sums), static_cast<T*>(gx), n); });
}
// To half precision of float64 through float32.
void copied(Dtype from_dtype, const void* from, Dtype to_dtype, void* to, Int n) {
  with_type(from_dtype, [&]<class From>() {
    with_type(to_dtype, [&]<class To>() {
      using A = Number<std::conditional_t<sizeof(From) == 8, From, To>>;
      for_rare_lanes<full<A>>(n, [&]<int N, int U>(Int i) POOLWISE_LAMBDA {
        store<N, A>(static_cast<To*>(to) + i, load<A, N>(static_cast<const From*>(from) + i));
      });
    });
  });
}

}  // namespace poolwise::POOLWISE_ISA
