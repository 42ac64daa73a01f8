#include "support/log.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <mutex>
#include <vector>

#include "support/fd.h"
#include "support/suggest.h"

namespace kite::log {

std::atomic<uint32_t> enabled_mask{0};

namespace {

constexpr std::array kCategories{
    CategoryName{"guest_errors", Category::kGuestErrors, "the guest did something the hardware does not define"},
    CategoryName{"unimp", Category::kUnimplemented, "the guest used something that Kite does not have"},
    CategoryName{"int", Category::kInterrupts, "interrupts and exceptions as they are delivered"},
    CategoryName{"in_asm", Category::kInAsm, "guest code as it is decoded"},
    CategoryName{"exec", Category::kExec, "every instruction as it is executed, one at a time"},
    CategoryName{"cpu_reset", Category::kCpuReset, "the CPU's state before a reset"},
    CategoryName{"mmu", Category::kMmu, "page walks and page faults"},
    CategoryName{"io", Category::kIo, "port and device memory accesses"},
    CategoryName{"pci", Category::kPci, "PCI configuration accesses and moved BARs"},
    CategoryName{"op", Category::kOp, "what the translator decides for each guest instruction"},
    CategoryName{"out_asm", Category::kOutAsm, "host code as the translator emits it, by guest instruction"},
    CategoryName{"jit", Category::kTranslator, "what the translator of a vCPU did, when it ends"},
};

std::atomic<bool> plain{false};
std::atomic<bool> timed{false};

// "2024-02-29T12:00:00.123456Z ", or nothing.
std::string time_text() {
  if (!timed.load(std::memory_order_relaxed)) return {};
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm date{};
  ::gmtime_r(&now.tv_sec, &date);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z ", date.tm_year + 1900, date.tm_mon + 1, date.tm_mday,
                     date.tm_hour, date.tm_min, date.tm_sec, now.tv_nsec / 1000);
}

// Where category output goes: the -D file, or stderr while there is none.
struct Output {
  std::mutex mutex;
  Fd file;
};

Output& output() {
  static Output* instance = new Output;  // never destroyed: threads may log while the process exits
  return *instance;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;  // a log that cannot be written has nowhere to complain
    text.remove_prefix(static_cast<size_t>(wrote));
  }
}

const CategoryName* find_category(std::string_view name) {
  for (const CategoryName& entry : kCategories) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::string expand_process_id(std::string_view path) {
  std::string expanded;
  for (size_t at = 0; at < path.size(); ++at) {
    if (path.substr(at, 2) == "%d") {
      expanded += std::to_string(::getpid());
      ++at;
    } else {
      expanded += path[at];
    }
  }
  return expanded;
}

}  // namespace

std::span<const CategoryName> categories() { return kCategories; }

Result<> enable(std::string_view items) {
  uint32_t mask = 0;
  while (true) {
    const size_t comma = items.find(',');
    const std::string_view item = items.substr(0, comma);
    const CategoryName* category = find_category(item);
    if (category == nullptr) {
      std::vector<std::string_view> names;
      for (const CategoryName& entry : kCategories) names.push_back(entry.name);
      return fail("unknown log item '{}'{}", item, suggestion(item, names));
    }
    mask |= static_cast<uint32_t>(category->category);
    if (comma == std::string_view::npos) break;
    items.remove_prefix(comma + 1);
  }
  enabled_mask.fetch_or(mask, std::memory_order_relaxed);
  return {};
}

Result<> set_file(const std::string& path) {
  const std::string name = expand_process_id(path);
  Fd file(::open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666));
  if (!file.valid()) return fail("cannot open the log file '{}': {}", name, errno_text(errno));
  const std::lock_guard lock(output().mutex);
  output().file = std::move(file);
  return {};
}

void write_line(std::string_view line) {
  std::string text(line);
  text += '\n';
  const std::lock_guard lock(output().mutex);
  write_all(output().file.valid() ? output().file.get() : STDERR_FILENO, text);
}

void set_plain() { plain.store(true, std::memory_order_relaxed); }

void set_timestamps(bool on) { timed.store(on, std::memory_order_relaxed); }

void message(std::string_view prefix, std::string_view text) {
  const bool bare = plain.load(std::memory_order_relaxed);
  const std::string line = bare ? fmt::format("{}\n", text) : fmt::format("{}kite: {}{}\n", time_text(), prefix, text);
  const std::lock_guard lock(output().mutex);
  write_all(STDERR_FILENO, line);
}

bool RateLimit::pass() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return pass_at(int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec);
}

bool RateLimit::pass_at(int64_t now_ns) {
  constexpr int64_t kWindowNs = 1'000'000'000;
  int64_t start = window_start_ns_.load(std::memory_order_relaxed);
  const bool expired = start == std::numeric_limits<int64_t>::min() || now_ns - start >= kWindowNs;
  // One thread opens the new window; the others count in it.
  if (expired && window_start_ns_.compare_exchange_strong(start, now_ns, std::memory_order_relaxed)) {
    used_.store(0, std::memory_order_relaxed);
  }
  // Looked at first so that a flood cannot overflow the counter.
  if (used_.load(std::memory_order_relaxed) < kBurst && used_.fetch_add(1, std::memory_order_relaxed) < kBurst) {
    return true;
  }
  swallowed_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

RateLimit& limit_of(std::string_view text) {
  static std::array<RateLimit, 256> limits;  // two texts that meet in one slot share it, which only logs less
  return limits[std::hash<const void*>{}(text.data()) * 0x9e3779b97f4a7c15u >> 56];
}

void write_guest_error(RateLimit& limit, std::string line) {
  if (const uint64_t swallowed = limit.take_swallowed(); swallowed != 0) {
    line += fmt::format(" ({} more of this kind were not logged)", swallowed);
  }
  write_line(line);
}

}  // namespace kite::log
