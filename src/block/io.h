// What a block request carries: errors as errno values, scattered host memory, flags, and the answer to "what is stored
// here". Requests are counted in bytes; nothing above the file node has to align anything.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>

namespace kite::block {

// A failed request. `code` is a positive errno value: ENOSPC matters to error policies, ECANCELED to resets.
struct IoError {
  int code;
};
template <class T = void>
using IoResult = std::expected<T, IoError>;
[[nodiscard]] inline std::unexpected<IoError> io_fail(int code) { return std::unexpected(IoError{code}); }

// KITE_TRY for IoResult expressions inside coroutines: leaves the coroutine with the error.
#define KITE_CO_TRY(expression)                                           \
  do {                                                                    \
    if (auto kite_io_result = (expression); !kite_io_result) [[unlikely]] \
      co_return std::unexpected(std::move(kite_io_result).error());       \
  } while (false)
#define KITE_CO_ASSIGN(declaration, expression) \
  KITE_CO_ASSIGN_(KITE_CONCAT(kite_io_result_, __LINE__), declaration, expression)
#define KITE_CO_ASSIGN_(name, declaration, expression)  \
  auto name = (expression);                             \
  if (!name) [[unlikely]]                               \
    co_return std::unexpected(std::move(name).error()); \
  declaration = *std::move(name)

// A view of scattered host memory: what a read fills and a write takes. It owns nothing: the memory and the iovec array
// stay as they are until the request's task has ended. Copies are cheap; slicing allocates nothing.
class IoSlice {
 public:
  IoSlice() = default;
  IoSlice(void* memory, size_t bytes) : first_{memory, bytes}, bytes_(bytes) {}
  explicit IoSlice(std::span<uint8_t> memory) : IoSlice(memory.data(), memory.size()) {}
  explicit IoSlice(std::span<const iovec> parts);
  // For writes only: nodes do not change what a write hands them.
  static IoSlice of_const(const void* memory, size_t bytes);

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] bool empty() const { return bytes_ == 0; }
  // [offset, offset+bytes) of this view; must lie inside.
  [[nodiscard]] IoSlice slice(uint64_t offset, uint64_t bytes) const;
  [[nodiscard]] IoSlice from(uint64_t offset) const { return slice(offset, bytes_ - offset); }
  // The memory when it is one piece, else null.
  [[nodiscard]] uint8_t* contiguous() const {
    return bytes_ <= first_.iov_len ? static_cast<uint8_t*>(first_.iov_base) : nullptr;
  }
  [[nodiscard]] size_t part_count() const;
  [[nodiscard]] bool aligned_to(uint64_t alignment) const;  // every part's address and length

  // visit(std::span<uint8_t>) for every part in order; stops when it answers false.
  template <class Visit>
  bool for_parts(Visit visit) const {
    uint64_t left = bytes_;
    iovec part = first_;
    const iovec* next = rest_;
    while (left != 0) {
      const size_t here = part.iov_len < left ? part.iov_len : static_cast<size_t>(left);
      if (here != 0 && !visit(std::span<uint8_t>(static_cast<uint8_t*>(part.iov_base), here))) return false;
      left -= here;
      if (left != 0) part = *next++;
    }
    return true;
  }
  void copy_to(void* to) const;  // all bytes() of it
  void copy_from(const void* from) const;
  void fill(uint8_t value) const;
  [[nodiscard]] bool all_zero() const;

 private:
  iovec first_{nullptr, 0};
  const iovec* rest_ = nullptr;
  uint64_t bytes_ = 0;
};

// True when all `bytes` at `memory` are zero.
[[nodiscard]] bool is_zero(const void* memory, size_t bytes);

// How a request is to be done.
struct IoHow {
  enum Flag : uint32_t {
    kFua = 1u << 0,         // write, write_zeroes: durable when it completes
    kMayUnmap = 1u << 1,    // write_zeroes: the space may be given back
    kNoFallback = 1u << 2,  // write_zeroes: ENOTSUP rather than writing zeroes by hand
    kCompressed = 1u << 3,  // write: store compressed; whole clusters only
    kSilent = 1u << 4,      // work of the block layer's own (copy-on-read, repair), not of a guest
  };
  uint32_t flags = 0;
  uint64_t id = 0;  // the request's id in metrics and traces; 0: none

  [[nodiscard]] bool has(Flag flag) const { return (flags & flag) != 0; }
  [[nodiscard]] IoHow with(uint32_t more) const { return {flags | more, id}; }
  [[nodiscard]] IoHow without(uint32_t less) const { return {flags & ~less, id}; }
};

class BlockNode;

// What a node knows about a range that starts at the asked offset.
struct BlockStatus {
  uint64_t bytes = 0;     // for this many bytes the rest is true; never 0 inside the node
  bool allocated = true;  // this node decides the content; false: its backing file does
  bool data = true;       // false: nothing is stored (a hole); reading gives zeroes if `zero`
  bool zero = false;      // reads as zeroes
  bool compressed = false;
  bool has_offset = false;  // the bytes lie raw at `offset` of `file`
  uint64_t offset = 0;
  const BlockNode* file = nullptr;
};

// Sizes in bytes. Requests that keep to these are never split or bounced.
struct BlockLimits {
  uint32_t request_alignment = 1;       // power of two
  uint32_t memory_alignment = 1;        // power of two
  uint64_t max_transfer = 0;            // 0: no limit
  uint64_t opt_transfer = 0;            // 0: no preference
  uint32_t discard_alignment = 1;       // smaller discards may do nothing
  uint32_t write_zeroes_alignment = 1;  // smaller ones may be written by hand
};

enum class Preallocation : uint8_t { kOff, kMetadata, kFalloc, kFull };

}  // namespace kite::block
