#include "devices/virtio/virtio_balloon.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "devices/section.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace virtio_balloon;

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr uint64_t kPagesAtOnce = 4096, kBytesAtOnce = uint64_t{256} << 20;
constexpr int64_t kLongestInterval = UINT32_MAX;

VirtioDevice::Shape shape_of(const VirtioBalloon::Config& config) {
  uint64_t features = kStats;
  if (config.deflate_on_oom) features |= kDeflateOnOom;
  if (config.page_poison) features |= kPagePoison;
  if (config.reporting) features |= kReporting;
  return {.type = kType,
          .name = config.name,
          .queues = static_cast<uint16_t>(config.reporting ? kReportingQueue + 1 : kReportingQueue),
          .queue_size = 128,
          .config_bytes = config.page_poison ? uint32_t{kConfigBytes} : uint32_t{kHintCommandAt},
          .features = features};
}

}  // namespace

VirtioBalloon::VirtioBalloon(Config config, Wiring wiring, GuestMemory& memory, Executor& home, const Options& options)
    : VirtioDevice(home, memory, shape_of(config), options), config_(std::move(config)), wiring_(std::move(wiring)) {
  stats_.fill(kUnknown);
  poll_timer_ = std::make_unique<Timer>(wiring_.clock, [this] { poll(); });
}

VirtioBalloon::~VirtioBalloon() {
  poll_timer_.reset();
  retire();
}

// --- what the host wants and the guest has

void VirtioBalloon::set_target(uint64_t bytes) {
  const uint64_t pages = (config_.ram_bytes - std::min(bytes, config_.ram_bytes)) / kPageBytes;
  {
    const std::lock_guard guard(lock());
    state_.wanted = static_cast<uint32_t>(std::min<uint64_t>(pages, UINT32_MAX));
  }
  config_changed();
}

uint64_t VirtioBalloon::actual() {
  const std::lock_guard guard(lock());
  return config_.ram_bytes - std::min(config_.ram_bytes, state_.actual * kPageBytes);
}

void VirtioBalloon::set_actual(uint32_t pages) {
  if (std::exchange(state_.actual, pages) == pages) return;
  wiring_.changed(config_.ram_bytes - std::min(config_.ram_bytes, pages * kPageBytes));
}

void VirtioBalloon::read_config(std::span<uint8_t> config) {
  store(&config[kWantedAt], state_.wanted);
  store(&config[kActualAt], state_.actual);
  if (config_.page_poison) store(&config[kPoisonAt], state_.poison);
}

void VirtioBalloon::config_written(uint32_t offset, std::span<const uint8_t> bytes) {
  if (offset >= kActualAt && offset + bytes.size() <= kActualAt + sizeof state_.actual) {
    std::ranges::copy(bytes, state_.actual_written.begin() + (offset - kActualAt));
    // 5.5.6.2: legacy drivers write it byte by byte, and it counts with the last one.
    if (offset + bytes.size() == kActualAt + sizeof state_.actual)
      set_actual(load<uint32_t>(state_.actual_written.data()));
  }
  // 5.5.6.5.1: it is set before DRIVER_OK and stays.
  if (config_.page_poison && offset == kPoisonAt && bytes.size() == sizeof state_.poison)
    state_.poison = load<uint32_t>(bytes.data());
}

void VirtioBalloon::driver_ready() { first_stats_ = true; }

// The memory is the guest's again, all of it; what the host wants stays.
void VirtioBalloon::device_reset() {
  set_actual(0);
  state_ = State{.wanted = state_.wanted};
}

void VirtioBalloon::cancel_requests() {
  drop_old(inflating_);
  drop_old(reporting_);
  if (stats_chain_ != nullptr && !current(*stats_chain_)) finish(std::move(stats_chain_), 0);
}

void VirtioBalloon::queue_reset(uint16_t) { cancel_requests(); }

void VirtioBalloon::drop_old(Work& work) {
  if (work.chain == nullptr || current(*work.chain)) return;
  finish(std::move(work.chain), 0);
  work.done = 0;
}

void VirtioBalloon::refuse(Chain chain, std::string_view why) {
  break_device(why);
  finish(std::move(chain), 0);
}

// --- pages

void VirtioBalloon::serve(uint16_t queue) {
  switch (queue) {
    case kInflateQueue: return work_off(queue, inflating_, &VirtioBalloon::take_pages, kPagesAtOnce);
    case kDeflateQueue: return serve_deflate();
    case kStatsQueue: return serve_stats();
    default: return work_off(queue, reporting_, &VirtioBalloon::take_report, kBytesAtOnce);
  }
}

void VirtioBalloon::work_off(uint16_t queue, Work& work, Step step, uint64_t most) {
  drop_old(work);
  while (most != 0) {
    if (work.chain == nullptr) work = {.chain = next(queue)};
    if (work.chain == nullptr) return;
    most -= std::min(most, (this->*step)(work, most));
  }
  kick(queue);
}

uint64_t VirtioBalloon::take_pages(Work& work, uint64_t most) {
  const uint64_t count = std::min(most, (work.chain->out_bytes - work.done) / kNumberBytes);
  numbers_.resize(count);
  const auto bytes = std::span(reinterpret_cast<uint8_t*>(numbers_.data()), count * kNumberBytes);
  if (!work.chain->read(memory(), work.done, bytes)) {
    refuse(std::move(work.chain), "a list of pages is not in RAM");
    return 1;
  }
  discard_pages(numbers_);
  work.done += bytes.size();
  if (work.chain->out_bytes - work.done < kNumberBytes) finish(std::move(work.chain), 0);
  return std::max<uint64_t>(count, 1);
}

void VirtioBalloon::discard_pages(std::span<uint32_t> numbers) {
  std::ranges::sort(numbers);
  for (size_t at = 0; at < numbers.size();) {
    const size_t start = at++;
    while (at < numbers.size() && numbers[at] - numbers[at - 1] <= 1) ++at;
    const uint64_t bytes = (uint64_t{numbers[at - 1]} - numbers[start] + 1) * kPageBytes;
    if (memory().discard(uint64_t{numbers[start]} * kPageBytes, bytes) != bytes)
      log::guest_error("{}: of pages {:#x} to {:#x}, not all are RAM that can be given back", config_.name,
                       numbers[start], numbers[at - 1]);
  }
}

// What a driver takes out of the balloon is there when it is touched.
void VirtioBalloon::serve_deflate() {
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = next(kDeflateQueue);
    if (chain == nullptr) return;
    finish(std::move(chain), 0);
  }
  kick(kDeflateQueue);
}

// 5.5.6.6.2: with PAGE_POISON, what is reported keeps the driver's value; what is given back reads as zero.
bool VirtioBalloon::may_discard_reported() {
  const std::lock_guard guard(lock());
  return !agreed(kPagePoison) || state_.poison == 0;
}

// 5.5.6.6: the descriptors are the pages themselves.
uint64_t VirtioBalloon::take_report(Work& work, uint64_t most) {
  uint64_t skipped = 0;
  for (const SgEntry& entry : work.chain->in) {
    if (work.done - skipped >= entry.bytes) {
      skipped += entry.bytes;
      continue;
    }
    const uint64_t at = work.done - skipped, bytes = std::min(most, entry.bytes - at);
    if (may_discard_reported()) memory().discard(entry.address + at, bytes);
    work.done += bytes;
    if (work.done < work.chain->in_bytes) return bytes;
    break;
  }
  finish(std::move(work.chain), 0);
  return kPageBytes;
}

// --- statistics

void VirtioBalloon::serve_stats() {
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = next(kStatsQueue);
    if (chain == nullptr) return;
    // 5.5.6.3.1: at most one is available; of two, the later one is kept.
    if (stats_chain_ != nullptr) finish(std::move(stats_chain_), 0);
    stats_chain_ = std::move(chain);
    take_stats(*stats_chain_);
  }
  kick(kStatsQueue);
}

void VirtioBalloon::take_stats(const VirtioChain& chain) {
  // 5.5.6.3.3
  const bool garbage = first_stats_.exchange(false) && !agreed(virtio::kVersion1);
  constexpr uint64_t kMostEntries = 64;
  std::vector<uint8_t> entries(std::min(chain.out_bytes / kStatBytes, kMostEntries) * kStatBytes);
  if (!chain.read(memory(), 0, entries)) return break_device("statistics are not in RAM");
  arm_poll(interval_);
  if (garbage || entries.empty()) return;
  stats_.fill(kUnknown);
  for (size_t at = 0; at < entries.size(); at += kStatBytes)
    if (const auto tag = load<uint16_t>(&entries[at]); tag < kStatCount) stats_[tag] = load<uint64_t>(&entries[at + 2]);
  last_update_ = wiring_.realtime.now() / kSecond;
}

void VirtioBalloon::arm_poll(int64_t seconds) {
  if (interval_ == 0)
    poll_timer_->disarm();
  else
    poll_timer_->arm_at(wiring_.clock.now() + seconds * kSecond);
}

// Hands the buffer back, which asks for statistics. Without one, a driver's first one comes of itself.
void VirtioBalloon::poll() {
  if (interval_ == 0) return;
  {
    const std::lock_guard guard(lock());
    if (!running()) return arm_poll(interval_);
  }
  if (stats_chain_ != nullptr) finish(std::move(stats_chain_), 0);
}

Result<> VirtioBalloon::set_interval(int64_t seconds) {
  if (seconds < 0 || seconds > kLongestInterval)
    return fail("the interval is a number of seconds, from 0 (off) to {}", kLongestInterval);
  interval_ = seconds;
  arm_poll(0);
  return {};
}

std::vector<LiveProperty> VirtioBalloon::live_properties() {
  using nlohmann::json;
  return {{.name = "guest-stats",
           .type = "guest statistics",
           .description = "what the guest last said about its memory; 18446744073709551615: nothing",
           .get =
               [this] {
                 json stats;
                 for (size_t i = 0; i < kStatCount; ++i) stats[kStatNames[i]] = stats_[i];
                 return json{{"stats", std::move(stats)}, {"last-update", last_update_}};
               }},
          {.name = "guest-stats-polling-interval",
           .type = "int",
           .description = "how often the guest is asked about its memory, in seconds; 0: it is not",
           .get = [this] { return json(interval_); },
           .set = [this](const json& value) -> Result<> {
             if (!value.is_number_integer()) return fail("the interval is a number of seconds");
             return set_interval(value.get<int64_t>());
           }}};
}

// --- state

namespace {

constexpr uint16_t kFieldWanted = 1, kFieldActual = 2, kFieldPoison = 3, kFieldWritten = 4;

}  // namespace

void VirtioBalloon::save_type(StateWriter& writer) {
  const auto& [wanted, actual, poison, actual_written] = state_;
  writer.field(kFieldWanted, wanted);
  writer.field(kFieldActual, actual);
  writer.field(kFieldPoison, poison);
  writer.field(kFieldWritten, load<uint32_t>(actual_written.data()));
}

void VirtioBalloon::restore_type(StateReader& reader) {
  auto& [wanted, actual, poison, actual_written] = (restored_ = {});
  uint32_t written = 0;
  reader.field(kFieldWanted, wanted);
  reader.field(kFieldActual, actual);
  reader.field(kFieldPoison, poison);
  reader.field(kFieldWritten, written);
  store(actual_written.data(), written);
}

void VirtioBalloon::apply_type() {
  set_actual(restored_.actual);
  state_ = restored_;
}

}  // namespace kite::devices
