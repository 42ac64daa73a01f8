// The log: plain messages for the user on stderr, and categories switched on by `-d` that go to the `-D` file.
// All functions are thread-safe.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "support/result.h"

namespace kite::log {

// What `-d item,...` can switch on.
enum class Category : uint32_t {
  kGuestErrors = 1u << 0,    // guest_errors: the guest did something the hardware does not define
  kUnimplemented = 1u << 1,  // unimp: the guest used something Kite does not have
  kInterrupts = 1u << 2,     // int: exceptions and interrupts as they are delivered
  kInAsm = 1u << 3,          // in_asm: guest code as it is decoded
  kExec = 1u << 4,           // exec: every instruction as it is executed
  kCpuReset = 1u << 5,       // cpu_reset: CPU state before a reset
  kMmu = 1u << 6,            // mmu: page walks and faults
  kIo = 1u << 7,             // io: port and device memory accesses
  kPci = 1u << 8,            // pci: configuration accesses and BAR moves
  kOutAsm = 1u << 10,        // out_asm: host code as it is emitted, by guest instruction
  kOp = 1u << 11,            // op: what the translator decides for each guest instruction
  kTranslator = 1u << 9,     // jit: what the translator did, when a vCPU ends
};

struct CategoryName {
  std::string_view name;
  Category category;
  std::string_view help;
};
std::span<const CategoryName> categories();

// Parses "int,guest_errors"; refuses unknown names with the nearest known one. "help" is the caller's business.
Result<> enable(std::string_view items);
// Sends category output to `path` instead of stderr; "%d" stands for the process id.
Result<> set_file(const std::string& path);

extern std::atomic<uint32_t> enabled_mask;
inline bool enabled(Category category) {
  return (enabled_mask.load(std::memory_order_relaxed) & static_cast<uint32_t>(category)) != 0;
}

// From now on messages have neither the program's name nor their kind in front: the image tools speak for themselves.
void set_plain();

// From now on messages begin with the time.
void set_timestamps(bool on);

void write_line(std::string_view line);                        // category output
void message(std::string_view prefix, std::string_view text);  // "kite: warning: text" on stderr

template <class... Args>
void print(Category category, fmt::format_string<Args...> text, Args&&... args) {
  if (enabled(category)) write_line(fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> text, Args&&... args) {
  message("warning: ", fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> text, Args&&... args) {
  message("", fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> text, Args&&... args) {
  message("", fmt::format(text, std::forward<Args>(args)...));
}

// At most kBurst passes in any second; counts what it swallows. For lines that a guest can cause at will.
class RateLimit {
 public:
  static constexpr int kBurst = 20;

  bool pass();
  bool pass_at(int64_t now_ns);  // pass() at this instant of CLOCK_MONOTONIC
  // How many were swallowed since the last call.
  uint64_t take_swallowed() { return swallowed_.exchange(0, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> window_start_ns_{std::numeric_limits<int64_t>::min()};
  std::atomic<int> used_{0};
  std::atomic<uint64_t> swallowed_{0};
};

// The limit that the messages of one format text share; told apart by the literal's address.
RateLimit& limit_of(std::string_view text);
// One line in the guest_errors category; says how many of its kind were swallowed before it.
void write_guest_error(RateLimit& limit, std::string line);

// A guest's nonsense: one rate-limited line in the guest_errors category.
template <class... Args>
void guest_error(fmt::format_string<Args...> text, Args&&... args) {
  if (!enabled(Category::kGuestErrors)) return;
  const fmt::string_view literal = text;
  RateLimit& limit = limit_of(std::string_view(literal.data(), literal.size()));
  if (limit.pass()) write_guest_error(limit, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace kite::log
