// Memory for outputs that are too large for the usual allocators to keep: they hand it back to the system and ask for it anew, and
// the system clears every page of it, which takes longer than pooling. A few blocks are kept here instead.
#pragma once

#include <cstddef>

namespace poolwise {

// Memory of at least so many bytes, aligned to a large page; what it holds is left over. Throws std::bad_alloc.
class Lent {
 public:
  explicit Lent(std::size_t bytes);
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  ~Lent();  // keeps the memory for the next one, where the system may take it away when it is short
  void* data() const { return data_; }

 private:
  void* data_;
  std::size_t room_;
};

}  // namespace poolwise
