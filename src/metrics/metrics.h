// Metrics: what the program counts about itself, under hierarchical names ("block.drive0.reads"), readable while
// everything runs. Counting takes no lock and allocates nothing; a metric lives in the object that counts and is a
// plain member of it.
//
//   class Drive {
//     metrics::SharedCounter reads_;
//     metrics::Log2Histogram latency_;
//     metrics::Group metrics_{"block.drive0"};  // the last member: goes first, before what it shows
//   };
//   metrics_.add("reads", reads_, {.help = "read requests completed"});
//   metrics_.add("latency", latency_, {.help = "time of a request", .unit = Unit::kSeconds, .exponent = -9});
//
// The monitor shows all of it: query-stats, query-stats-schemas, "info stats".
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace kite::metrics {

// --- what is counted with

// Counted up by one thread at a time (a vCPU's, an executor's), read by any: an increment is one plain ADD to memory.
class Counter {
 public:
  void add(uint64_t amount = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Counted up by any thread.
class SharedCounter {
 public:
  void add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Remembers the largest value it was shown; any thread.
class Peak {
 public:
  void see(uint64_t value) {
    uint64_t known = value_.load(std::memory_order_relaxed);
    while (known < value && !value_.compare_exchange_weak(known, value, std::memory_order_relaxed)) {
    }
  }
  [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// How often values of each size came; any thread. Bucket 0 counts zeros, bucket n the values from 2^(n-1) below 2^n,
// the last one everything above.
class Log2Histogram {
 public:
  static constexpr size_t kBuckets = 48;  // of nanoseconds: up to 39 hours

  static constexpr size_t bucket_of(uint64_t value) {
    const auto width = static_cast<size_t>(std::bit_width(value));
    return width < kBuckets ? width : kBuckets - 1;
  }
  void record(uint64_t value) { buckets_[bucket_of(value)].fetch_add(1, std::memory_order_relaxed); }
  // The counts, without the empty buckets at the end.
  [[nodiscard]] std::vector<uint64_t> values() const;

 private:
  std::array<std::atomic<uint64_t>, kBuckets> buckets_{};
};

// --- how it is shown

enum class Kind : uint8_t { kCumulative, kInstant, kPeak, kLinearHistogram, kLog2Histogram };
enum class Unit : uint8_t { kNone, kBytes, kSeconds, kCycles, kBoolean };

// As QMP's schemas spell them; "" for kNone.
std::string_view kind_name(Kind kind);
std::string_view unit_name(Unit unit);

// A value v stands for v * base^exponent of its unit.
struct Meaning {
  std::string_view help;  // a literal, or outlives the metric
  Unit unit = Unit::kNone;
  uint8_t base = 10;  // 2 or 10
  int16_t exponent = 0;
};

struct Description {
  std::string name;  // "block.drive0.reads"
  std::string help;
  Kind kind = Kind::kCumulative;
  Unit unit = Unit::kNone;
  uint8_t base = 10;
  int16_t exponent = 0;
  uint32_t bucket_size = 0;  // kLinearHistogram: width of a bucket
};

// Whom a metric is about.
struct Subject {
  enum class Target : uint8_t { kVm, kVcpu } target = Target::kVm;
  uint32_t vcpu = 0;  // kVcpu: its index
  bool operator==(const Subject&) const = default;

  static constexpr Subject of_vcpu(uint32_t index) { return {.target = Target::kVcpu, .vcpu = index}; }
};

struct Sample {
  Description description;
  std::vector<uint64_t> values;  // one, or a histogram's buckets
};

// --- who has metrics

class Registry;

// Something whose metrics can be read all at once. Implemented by Group, and by what has metrics of its own kind (KVM's
// statistics descriptors). The registry calls from any thread, one call at a time, with its lock held.
class Source {
 public:
  virtual ~Source() = default;
  [[nodiscard]] virtual std::string_view provider() const { return "kite"; }
  [[nodiscard]] virtual Subject subject() const = 0;
  [[nodiscard]] virtual std::vector<Sample> read() const = 0;
};

// The sources that exist now. Thread-safe.
class Registry {
 public:
  static Registry& process();  // the one that the monitor shows

  void add(const Source& source);
  void remove(const Source& source);  // when it returns, nothing reads the source any more
  // In the order in which they were added.
  void for_each(const std::function<void(const Source&)>& visit) const;

 private:
  mutable std::mutex mutex_;
  std::vector<const Source*> sources_;
};

// The metrics of one object. They must live as long as the group does; make it the owner's last member. add() before
// the owner is shared between threads, or on the thread that owns it: it takes the registry's lock.
class Group final : public Source {
 public:
  explicit Group(std::string path, Subject subject = {}, Registry& registry = Registry::process());
  ~Group() override;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  void add(std::string_view name, const Counter& counter, const Meaning& meaning);
  void add(std::string_view name, const SharedCounter& counter, const Meaning& meaning);
  void add(std::string_view name, const Peak& peak, const Meaning& meaning);
  void add(std::string_view name, const Log2Histogram& histogram, const Meaning& meaning);
  // What `value` answers now: called on a reader's thread with the registry's lock held. It takes no lock under which
  // groups are made or destroyed.
  void add_gauge(std::string_view name, std::function<uint64_t()> value, const Meaning& meaning);

  [[nodiscard]] Subject subject() const override { return subject_; }
  [[nodiscard]] std::vector<Sample> read() const override;

 private:
  struct Metric {
    Description description;
    std::function<std::vector<uint64_t>()> values;
  };
  void add(std::string_view name, Kind kind, const Meaning& meaning, std::function<std::vector<uint64_t>()> values);

  const std::string path_;
  const Subject subject_;
  Registry& registry_;
  mutable std::mutex mutex_;
  std::vector<Metric> metrics_;
};

}  // namespace kite::metrics
