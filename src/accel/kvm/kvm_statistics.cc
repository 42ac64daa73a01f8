#include "accel/kvm/kvm_statistics.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_vcpu.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite {

namespace {

using metrics::Kind;
using metrics::Unit;

// Bounds on what a kernel may plausibly say.
constexpr size_t kMostStatistics = 4096, kLongestName = 256, kMostValues = 4096, kMostDataBytes = 1u << 20;

// `value` as one of `known`, in the ABI's order; the first for what this program does not know.
template <class T, size_t kCount>
T one_of(const std::array<T, kCount>& known, uint32_t value) {
  return value < kCount ? known[value] : known[0];
}

Kind kind_of(uint32_t flags) {
  static constexpr std::array kKinds{Kind::kCumulative, Kind::kInstant, Kind::kPeak, Kind::kLinearHistogram,
                                     Kind::kLog2Histogram};
  return one_of(kKinds, (flags & KVM_STATS_TYPE_MASK) >> KVM_STATS_TYPE_SHIFT);
}

Unit unit_of(uint32_t flags) {
  static constexpr std::array kUnits{Unit::kNone, Unit::kBytes, Unit::kSeconds, Unit::kCycles, Unit::kBoolean};
  return one_of(kUnits, (flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT);
}

}  // namespace

KvmStatistics::KvmStatistics(const KvmFd& owner, metrics::Subject subject, metrics::Registry& registry)
    : owner_(owner), subject_(subject), registry_(registry) {
  registry_.add(*this);
}

KvmStatistics::~KvmStatistics() { registry_.remove(*this); }

std::vector<uint8_t> KvmStatistics::bytes(size_t offset, size_t count) const {
  std::vector<uint8_t> block(count);
  const int64_t got = file_.calls().read_at(file_.get(), block.data(), count, static_cast<int64_t>(offset));
  block.resize(got == static_cast<int64_t>(count) ? count : 0);
  return block;
}

void KvmStatistics::open() const {
  if (std::exchange(opened_, true)) return;
  const int fd = owner_.ioctl(KVM_GET_STATS_FD);
  if (fd < 0) return;
  file_ = KvmFd(owner_.calls(), fd);
  if (auto done = describe(); !done) {
    log::warn("KVM's statistics are left out: {}", done.error().message);
    places_.clear();
  }
}

Result<> KvmStatistics::describe() const {
  const std::vector<uint8_t> head = bytes(0, sizeof(kvm_stats_header));
  if (head.empty()) return fail("their header cannot be read");
  const auto header = load<kvm_stats_header>(head.data());
  if (header.num_desc > kMostStatistics || header.name_size == 0 || header.name_size > kLongestName)
    return fail("there are {} with names of {} bytes", header.num_desc, header.name_size);
  const size_t step = sizeof(kvm_stats_desc) + header.name_size;
  const std::vector<uint8_t> block = bytes(header.desc_offset, header.num_desc * step);
  if (block.size() != header.num_desc * step) return fail("their descriptions cannot be read");
  data_offset_ = header.data_offset;
  for (size_t at = 0; at < block.size(); at += step) {
    const auto entry = load<kvm_stats_desc>(block.data() + at);
    const auto* const name = reinterpret_cast<const char*>(block.data() + at + sizeof(kvm_stats_desc));
    if (entry.size == 0 || entry.size > kMostValues || entry.offset > kMostDataBytes)
      return fail("'{}' has {} values at {}", std::string(name, strnlen(name, header.name_size)), entry.size,
                  entry.offset);
    places_.push_back({.description = {.name = std::string(name, strnlen(name, header.name_size)),
                                       .help = {},
                                       .kind = kind_of(entry.flags),
                                       .unit = unit_of(entry.flags),
                                       .base = static_cast<uint8_t>(
                                           (entry.flags & KVM_STATS_BASE_MASK) == KVM_STATS_BASE_POW2 ? 2 : 10),
                                       .exponent = entry.exponent,
                                       .bucket_size = entry.bucket_size},
                       .offset = entry.offset,
                       .count = entry.size});
    data_bytes_ = std::max(data_bytes_, entry.offset + entry.size * sizeof(uint64_t));
  }
  return {};
}

std::vector<metrics::Sample> KvmStatistics::read() const {
  const std::lock_guard lock(mutex_);
  open();
  std::vector<metrics::Sample> samples;
  if (places_.empty()) return samples;
  const std::vector<uint8_t> data = bytes(data_offset_, data_bytes_);
  if (data.size() != data_bytes_) return samples;
  samples.reserve(places_.size());
  for (const Place& place : places_) {
    std::vector<uint64_t> values(place.count);
    std::memcpy(values.data(), data.data() + place.offset, place.count * sizeof(uint64_t));
    samples.push_back({.description = place.description, .values = std::move(values)});
  }
  return samples;
}

// --- exits

KvmExitMetrics::KvmExitMetrics(const KvmVcpu& vcpu, metrics::Registry& registry) : vcpu_(vcpu), registry_(registry) {
  registry_.add(*this);
}

KvmExitMetrics::~KvmExitMetrics() { registry_.remove(*this); }

metrics::Subject KvmExitMetrics::subject() const { return metrics::Subject::of_vcpu(vcpu_.config().index); }

std::vector<metrics::Sample> KvmExitMetrics::read() const {
  std::vector<metrics::Sample> samples;
  const auto add = [&samples](std::string name, std::string_view help, uint64_t value) {
    samples.push_back({.description = {.name = std::move(name), .help = std::string(help)}, .values = {value}});
  };
  const KvmExitCounts& counts = vcpu_.exit_counts();
  add("kvm.runs", "KVM_RUN calls", counts.runs.load(std::memory_order_relaxed));
  add("kvm.interrupted", "KVM_RUN calls that a signal ended", counts.interrupted.load(std::memory_order_relaxed));
  add("kvm.fallback", "instructions that KVM could not emulate", vcpu_.fallback().executed());
  for (uint32_t reason = 0; reason < KvmExitCounts::kReasons; ++reason) {
    if (kvm_exit_is_foreign(reason)) continue;
    const std::string_view name = kvm_exit_name(reason);
    if (name == "unknown" && reason + 1 != KvmExitCounts::kReasons) continue;
    add(fmt::format("kvm.exit.{}", name), "exits to user space for this reason",
        counts.by_reason[reason].load(std::memory_order_relaxed));
  }
  return samples;
}

}  // namespace kite
