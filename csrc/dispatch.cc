// Which of the compiled instruction sets this machine can run, and how it likes to read. Compiled for the least machine, as it runs on every one.
#include "kernels.h"

namespace poolwise {

#if defined(POOLWISE_X86_64_V2) || defined(POOLWISE_X86_64_V3) || defined(POOLWISE_X86_64_V4)

namespace x86_64_v2 {
extern const Kernels kernels;
}
namespace x86_64_v3 {
extern const Kernels kernels;
}
namespace x86_64_v4 {
extern const Kernels kernels;
}

UsableKernels usable_kernels() {
  __builtin_cpu_init();
  UsableKernels usable{};
  const auto add = [&](bool runs, const Kernels& kernels) {
    if (runs) usable.sets[usable.count++] = &kernels;
  };
  const auto has = [](bool a, bool b, bool c) { return a && b && c; };
  const bool v2 = has(__builtin_cpu_supports("ssse3"), __builtin_cpu_supports("sse4.2"), __builtin_cpu_supports("popcnt"));
  const bool v3 = v2 && __builtin_cpu_supports("avx2") &&
                  has(__builtin_cpu_supports("fma"), __builtin_cpu_supports("bmi"), __builtin_cpu_supports("bmi2"));
  [[maybe_unused]] const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  has(__builtin_cpu_supports("avx512cd"), __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl"));
#if defined(POOLWISE_X86_64_V2)
  add(v2, x86_64_v2::kernels);
#endif
#if defined(POOLWISE_X86_64_V3)
  add(v3, x86_64_v3::kernels);
#endif
#if defined(POOLWISE_X86_64_V4)
  add(v4, x86_64_v4::kernels);
#endif
  return usable;
}

#else

namespace baseline {
extern const Kernels kernels;
}

UsableKernels usable_kernels() { return {{&baseline::kernels}, 1}; }

#endif

bool likes_order() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

const Kernels* best_kernels() {
  const UsableKernels usable = usable_kernels();
  return usable.count == 0 ? nullptr : usable.sets[usable.count - 1];
}

}  // namespace poolwise
