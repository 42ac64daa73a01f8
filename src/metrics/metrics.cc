#include "metrics/metrics.h"

#include <algorithm>
#include <utility>

namespace kite::metrics {

std::vector<uint64_t> Log2Histogram::values() const {
  std::vector<uint64_t> counts;
  counts.reserve(kBuckets);
  for (const auto& bucket : buckets_) counts.push_back(bucket.load(std::memory_order_relaxed));
  while (counts.size() > 1 && counts.back() == 0) counts.pop_back();
  return counts;
}

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kCumulative: return "cumulative";
    case Kind::kInstant: return "instant";
    case Kind::kPeak: return "peak";
    case Kind::kLinearHistogram: return "linear-histogram";
    case Kind::kLog2Histogram: return "log2-histogram";
  }
  return "instant";
}

std::string_view unit_name(Unit unit) {
  switch (unit) {
    case Unit::kNone: return "";
    case Unit::kBytes: return "bytes";
    case Unit::kSeconds: return "seconds";
    case Unit::kCycles: return "cycles";
    case Unit::kBoolean: return "boolean";
  }
  return "";
}

Registry& Registry::process() {
  static Registry registry;
  return registry;
}

void Registry::add(const Source& source) {
  const std::lock_guard lock(mutex_);
  sources_.push_back(&source);
}

void Registry::remove(const Source& source) {
  const std::lock_guard lock(mutex_);
  std::erase(sources_, &source);
}

void Registry::for_each(const std::function<void(const Source&)>& visit) const {
  const std::lock_guard lock(mutex_);
  for (const Source* source : sources_) visit(*source);
}

Group::Group(std::string path, Subject subject, Registry& registry)
    : path_(std::move(path)), subject_(subject), registry_(registry) {
  registry_.add(*this);
}

Group::~Group() { registry_.remove(*this); }

void Group::add(std::string_view name, Kind kind, const Meaning& meaning,
                std::function<std::vector<uint64_t>()> values) {
  Description description{.name = path_.empty() ? std::string(name) : path_ + "." + std::string(name),
                          .help = std::string(meaning.help),
                          .kind = kind,
                          .unit = meaning.unit,
                          .base = meaning.base,
                          .exponent = meaning.exponent};
  const std::lock_guard lock(mutex_);
  metrics_.push_back({.description = std::move(description), .values = std::move(values)});
}

void Group::add(std::string_view name, const Counter& counter, const Meaning& meaning) {
  add(name, Kind::kCumulative, meaning, [&counter] { return std::vector{counter.value()}; });
}

void Group::add(std::string_view name, const SharedCounter& counter, const Meaning& meaning) {
  add(name, Kind::kCumulative, meaning, [&counter] { return std::vector{counter.value()}; });
}

void Group::add(std::string_view name, const Peak& peak, const Meaning& meaning) {
  add(name, Kind::kPeak, meaning, [&peak] { return std::vector{peak.value()}; });
}

void Group::add(std::string_view name, const Log2Histogram& histogram, const Meaning& meaning) {
  add(name, Kind::kLog2Histogram, meaning, [&histogram] { return histogram.values(); });
}

void Group::add_gauge(std::string_view name, std::function<uint64_t()> value, const Meaning& meaning) {
  add(name, Kind::kInstant, meaning, [value = std::move(value)] { return std::vector{value()}; });
}

std::vector<Sample> Group::read() const {
  std::vector<Sample> samples;
  const std::lock_guard lock(mutex_);
  samples.reserve(metrics_.size());
  for (const Metric& metric : metrics_)
    samples.push_back({.description = metric.description, .values = metric.values()});
  return samples;
}

}  // namespace kite::metrics
