#include "machine/dirty_rate.h"

#include <algorithm>
#include <bit>
#include <random>

#include "machine/guest_ram.h"

namespace kite::machine {

namespace {

constexpr int64_t kSecond = 1'000'000'000;

uint64_t pages_of(const std::vector<std::shared_ptr<RamBlock>>& blocks) {
  uint64_t pages = 0;
  for (const auto& block : blocks) pages += block->size() >> kPageShift;
  return pages;
}

}  // namespace

DirtyRate::DirtyRate(AddressSpace& memory, Clock& clock)
    : memory_(memory), clock_(clock), timer_(clock, [this] { proceed(); }) {}

DirtyRate::~DirtyRate() {
  if (phase_ != Phase::kIdle && report_.mode == Mode::kDirtyBitmap) set_logging(false);
}

Result<> DirtyRate::check(const Order& order) const {
  if (phase_ != Phase::kIdle)
    return fail("the dirty rate is being measured already; wait until query-dirty-rate says that it is measured");
  if (order.seconds < kLeastSeconds || order.seconds > kMostSeconds)
    return fail("calc-time is {} to {} seconds, not {}", kLeastSeconds, kMostSeconds, order.seconds);
  if (!order.samples) return {};
  if (order.mode != Mode::kPageSampling) return fail("sample-pages goes with mode page-sampling only; leave it out");
  if (*order.samples < kFewestSamples || *order.samples > kMostSamples)
    return fail("sample-pages is {} to {} pages per GiB, not {}", kFewestSamples, kMostSamples, *order.samples);
  return {};
}

Result<> DirtyRate::start(const Order& order) {
  KITE_TRY(check(order));
  std::vector<std::shared_ptr<RamBlock>> blocks = guest_ram(memory_);
  const bool sampling = order.mode == Mode::kPageSampling;
  for (const auto& block : blocks)
    if (!sampling && block->dirty_logging())
      return fail("the dirty log of '{}' is in use; wait for that to end, or use mode page-sampling", block->name());
  const int64_t samples = sampling ? order.samples.value_or(kUsualSamples) : 0;
  blocks_ = std::move(blocks);
  if (sampling)
    sample_.emplace(blocks_, static_cast<uint64_t>(samples), std::random_device{}());
  else
    set_logging(true);
  began_ = clock_.now();
  report_ = {.status = Status::kMeasuring,
             .mode = order.mode,
             .start = began_ / kSecond,
             .seconds = order.seconds,
             .samples = samples};
  phase_ = sampling ? Phase::kRemembering : Phase::kWaiting;
  if (sampling)
    remember();
  else
    timer_.arm_at(period_end());
  return {};
}

void DirtyRate::set_logging(bool on) {
  for (const auto& block : blocks_) block->set_dirty_logging(on);
}

int64_t DirtyRate::period_end() const { return began_ + report_.seconds * kSecond; }

void DirtyRate::proceed() {
  switch (phase_) {
    case Phase::kIdle: return;
    case Phase::kRemembering: return remember();
    case Phase::kWaiting: return period_over();
    case Phase::kComparing: return compare();
  }
}

void DirtyRate::remember() {
  if (sample_->remember(kSlice)) return timer_.arm_at(clock_.now());
  phase_ = Phase::kWaiting;
  timer_.arm_at(period_end());
}

void DirtyRate::period_over() {
  ended_ = clock_.now();
  if (sample_) {
    phase_ = Phase::kComparing;
    return compare();
  }
  uint64_t pages = 0;
  for (const auto& block : blocks_)
    for (const uint64_t word : block->collect_dirty()) pages += static_cast<unsigned>(std::popcount(word));
  set_logging(false);
  finish(pages);
}

// The last page is compared as long after its first look as the first page is.
void DirtyRate::compare() {
  if (sample_->compare(kSlice)) return timer_.arm_at(clock_.now());
  finish(sample_->size() == 0 ? 0 : pages_of(blocks_) * sample_->changed() / sample_->size());
}

void DirtyRate::finish(uint64_t pages) {
  constexpr uint64_t kPagesPerMib = uint64_t{1} << (20 - kPageShift);
  const auto elapsed = static_cast<uint64_t>(std::max<int64_t>(ended_ - began_, 1));
  report_.mib_per_second = pages * kSecond / elapsed / kPagesPerMib;
  report_.status = Status::kMeasured;
  phase_ = Phase::kIdle;
  sample_.reset();
  blocks_.clear();
}

}  // namespace kite::machine
