// Saved state of the NVMe controller. Requests under way are saved as commands and issued again.
#include <algorithm>

#include "devices/nvme/nvme_controller.h"
#include "devices/section.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace nvme;

struct NvmeController::Saved {
  static constexpr uint32_t kVersion = 1;
  static constexpr size_t kQueues = kMostQueues + 1;
  std::array<uint32_t, 4> registers;  // CC, CSTS, AQA, interrupt mask
  std::array<uint64_t, 6> addresses;  // ASQ, ACQ, CMBMSC, shadow doorbells, event indexes, PMRMSC
  bool resetting, persistent_enabled;
  // A row for each queue.
  std::array<std::array<uint64_t, 8>, kQueues> sqs;  // exists, deleting, cq, delete cid, size, head, tail, base
  std::array<std::array<uint64_t, 8>, kQueues> cqs;  // exists, interrupts, phase, vector, size, head, tail, base
  std::array<uint32_t, 6> features;                  // arbitration, power, recovery, coalescing, atomicity, events
  std::array<uint16_t, 2> temperatures;
  std::array<bool, kQueues> not_coalesced;
  bool write_cache;
  std::vector<uint8_t> event_requests, events;
  uint8_t masked_events;
  std::array<std::array<uint64_t, 6>, kErrorEntries> errors;  // count, sq, cid, status, lba, nsid
  uint64_t error_count;
  std::vector<uint8_t> waiting;   // 2 bytes of queue, 16 of completion
  std::vector<uint8_t> requests;  // 2 bytes of queue, 64 of command
  uint8_t own_format;             // of the controller's own namespace
  std::vector<uint8_t> cmb, persistent;
};

template <class Codec>
void visit(Codec& codec, NvmeController::Saved& wire) {
  codec.field(1, wire.registers);
  codec.field(2, wire.addresses);
  codec.field(3, wire.resetting);
  codec.field(4, wire.sqs);
  codec.field(5, wire.cqs);
  codec.field(6, wire.features);
  codec.field(7, wire.temperatures);
  codec.field(8, wire.not_coalesced);
  codec.field(9, wire.write_cache);
  codec.field(10, wire.event_requests);
  codec.field(11, wire.events);
  codec.field(12, wire.masked_events);
  codec.field(13, wire.errors);
  codec.field(14, wire.error_count);
  codec.field(15, wire.waiting);
  codec.field(16, wire.requests);
  codec.field(17, wire.own_format);
  codec.field(18, wire.cmb);
  codec.field(19, wire.persistent_enabled);
  codec.field(20, wire.persistent);
}

namespace {

constexpr size_t kWaitingBytes = 2 + sizeof(Completion), kRequestBytes = 2 + sizeof(Command);

template <class T>
void append(std::vector<uint8_t>& bytes, const T& value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof value);
  store(&bytes[at], value);
}

template <class T>
std::vector<uint8_t> pack(const std::vector<T>& values) {
  std::vector<uint8_t> bytes;
  for (const T& value : values) append(bytes, value);
  return bytes;
}

template <class T>
std::vector<T> unpack(const std::vector<uint8_t>& bytes) {
  std::vector<T> values;
  for (size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) values.push_back(load<T>(&bytes[at]));
  return values;
}

}  // namespace

NvmeController::Saved NvmeController::taken_apart() {
  Saved wire{};
  const auto& [cc, csts, aqa, interrupt_mask, asq, acq, cmbmsc, pmrmsc, persistent_enabled, resetting, sqs, cqs,
               shadow_doorbells, event_indexes, features, event_requests, events, masked_events, errors, error_count] =
      state_;
  wire.registers = {cc, csts, aqa, interrupt_mask};
  wire.addresses = {asq, acq, cmbmsc, shadow_doorbells, event_indexes, pmrmsc};
  wire.persistent_enabled = persistent_enabled;
  wire.resetting = resetting;
  for (uint16_t number = 0; number < sqs.size(); ++number) {
    const auto& [exists, deleting, cq, delete_cid, size, head, tail, base, in_flight] = sqs[number];
    wire.sqs[number] = {exists, deleting, cq, delete_cid, size, head, tail, base};
  }
  for (uint16_t number = 0; number < cqs.size(); ++number) {
    const auto& [exists, interrupts, phase, vector, size, head, tail, base, waiting] = cqs[number];
    wire.cqs[number] = {exists, interrupts, phase, vector, size, head, tail, base};
    for (const Completion& entry : waiting) {
      append(wire.waiting, number);
      append(wire.waiting, entry);
    }
  }
  const auto& [arbitration, power, recovery, coalescing, atomicity, event_bits, over, under, not_coalesced,
               write_cache] = features;
  wire.features = {arbitration, power, recovery, coalescing, atomicity, event_bits};
  wire.temperatures = {over, under};
  wire.not_coalesced = not_coalesced;
  wire.write_cache = write_cache;
  wire.event_requests = pack(event_requests);
  wire.events = pack(events);
  wire.masked_events = masked_events;
  for (size_t i = 0; i < errors.size(); ++i) {
    const auto& [count, sq, cid, status, lba, nsid] = errors[i];
    wire.errors[i] = {count, sq, cid, status, lba, nsid};
  }
  wire.error_count = error_count;
  for (const Request& request : requests_) {
    if (request.life != life_) continue;
    append(wire.requests, request.sq);
    append(wire.requests, request.command);
  }
  wire.own_format = static_cast<uint8_t>(own_namespace_ != nullptr ? own_namespace_->format() : 0);
  if (cmb_ != nullptr) wire.cmb.assign(cmb_->host(), cmb_->host() + options_.cmb_bytes);
  if (options_.persistent != nullptr)
    wire.persistent.assign(options_.persistent->host(), options_.persistent->host() + options_.persistent->size());
  return wire;
}

void NvmeController::save(StateWriter& writer) {
  Saved wire{};
  {
    const std::lock_guard lock(lock_);
    wire = taken_apart();
  }
  save_section(writer, path(), std::move(wire), [&] { save_config(writer); });
}

bool NvmeController::put_queues(StateReader& reader, const Saved& wire, State& state) const {
  const auto sane = [&](const std::array<uint64_t, 8>& row, uint64_t third, uint64_t fourth, bool exists) {
    const auto& [flag0, flag1, field2, field3, size, head, tail, base] = row;
    const bool limits = flag0 <= 1 && flag1 <= 1 && field2 <= third && field3 <= fourth;
    if (!exists) return limits && size == 0 && head == 0 && tail == 0 && base == 0;
    return limits && size >= 2 && size <= 4096 && head < size && tail < size;
  };
  for (size_t i = 0; i < wire.cqs.size(); ++i) {
    const auto& row = wire.cqs[i];
    if (!require(reader, sane(row, 1, options_.vectors - 1, row[0] != 0), "a completion queue is impossible"))
      return false;
    state.cqs[i] = {.exists = row[0] != 0,
                    .interrupts = row[1] != 0,
                    .phase = row[2] != 0,
                    .vector = static_cast<uint16_t>(row[3]),
                    .size = static_cast<uint32_t>(row[4]),
                    .head = static_cast<uint32_t>(row[5]),
                    .tail = static_cast<uint32_t>(row[6]),
                    .base = row[7],
                    .waiting = {}};
  }
  for (size_t i = 0; i < wire.sqs.size(); ++i) {
    const auto& row = wire.sqs[i];
    const bool possible = sane(row, kMostQueues, 0xffff, row[0] != 0) && (row[0] == 0 || state.cqs[row[2]].exists);
    if (!require(reader, possible, "a submission queue is impossible")) return false;
    state.sqs[i] = {.exists = row[0] != 0,
                    .deleting = row[1] != 0,
                    .cq = static_cast<uint16_t>(row[2]),
                    .delete_cid = static_cast<uint16_t>(row[3]),
                    .size = static_cast<uint32_t>(row[4]),
                    .head = static_cast<uint32_t>(row[5]),
                    .tail = static_cast<uint32_t>(row[6]),
                    .base = row[7]};
  }
  const bool ready = (wire.registers[1] & kCstsReady) != 0;
  return require(reader, !ready || (state.sqs[0].exists && state.cqs[0].exists && state.sqs[0].cq == 0),
                 "a controller that is ready without admin queues");
}

bool NvmeController::put_requests(StateReader& reader, const Saved& wire, State& state,
                                  std::list<Request>& requests) const {
  if (!require(reader, wire.waiting.size() % kWaitingBytes == 0 && wire.requests.size() % kRequestBytes == 0,
               "a list of requests ends in the middle of one"))
    return false;
  for (size_t at = 0; at < wire.waiting.size(); at += kWaitingBytes) {
    const auto queue = load<uint16_t>(&wire.waiting[at]);
    if (!require(reader, queue < state.cqs.size() && state.cqs[queue].exists, "a completion waits for no queue"))
      return false;
    state.cqs[queue].waiting.push_back(load<Completion>(&wire.waiting[at + 2]));
  }
  for (size_t at = 0; at < wire.requests.size(); at += kRequestBytes) {
    const auto queue = load<uint16_t>(&wire.requests[at]);
    const bool possible =
        queue < state.sqs.size() && state.sqs[queue].exists && state.sqs[queue].in_flight < state.sqs[queue].size;
    if (!require(reader, possible, "a request is of no queue, or there are too many")) return false;
    ++state.sqs[queue].in_flight;
    requests.push_back({.sq = queue, .command = load<Command>(&wire.requests[at + 2])});
  }
  const bool deletions = std::ranges::all_of(
      state.sqs, [](const SubmissionQueue& queue) { return !queue.deleting || queue.in_flight != 0; });
  return require(reader, deletions, "a queue's deletion waits for nothing");
}

bool NvmeController::put_together(StateReader& reader, const Saved& wire, State& state,
                                  std::list<Request>& requests) const {
  const auto [cc, csts, aqa, mask] = wire.registers;
  constexpr uint32_t kCstsBits = kCstsReady | kCstsFatal | 3u << kCstsShst;
  const bool registers = (cc & ~kCcBits) == 0 && (csts & ~kCstsBits) == 0 && (aqa & ~0x0fff0fffu) == 0 &&
                         (csts >> kCstsShst & 3) != 3 && (cc >> kCcMps & 0xf) <= 0xf;
  const bool page = (csts & kCstsReady) == 0 || (cc >> kCcMps & 0xf) <= kLargestPageShift || wire.resetting;
  if (!require(reader, registers && page, "a register holds what it cannot") ||
      !require(reader, wire.event_requests.size() <= kEventRequests * 2 && wire.event_requests.size() % 2 == 0,
               "there are too many requests for events") ||
      !require(reader, wire.events.size() <= kMostEvents * 4 && wire.events.size() % 4 == 0,
               "there are too many events") ||
      !require(reader, wire.own_format < NvmeNamespace::kFormats, "a namespace format that does not exist") ||
      !require(reader, wire.cmb.size() == options_.cmb_bytes, "the controller memory buffer has another size here") ||
      !require(reader,
               wire.persistent.size() == (options_.persistent == nullptr ? 0 : options_.persistent->size()) &&
                   (!wire.persistent_enabled || options_.persistent != nullptr),
               "the persistent memory region has another size here") ||
      !put_queues(reader, wire, state) || !put_requests(reader, wire, state, requests))
    return false;
  state.cc = cc;
  state.csts = csts;
  state.aqa = aqa;
  state.interrupt_mask = mask;
  state.asq = wire.addresses[0];
  state.acq = wire.addresses[1];
  state.cmbmsc = wire.addresses[2];
  state.shadow_doorbells = wire.addresses[3];
  state.event_indexes = wire.addresses[4];
  state.pmrmsc = wire.addresses[5];
  state.persistent_enabled = wire.persistent_enabled;
  state.resetting = wire.resetting;
  state.features = {.arbitration = wire.features[0],
                    .power = wire.features[1],
                    .recovery = wire.features[2],
                    .coalescing = wire.features[3],
                    .atomicity = wire.features[4],
                    .events = wire.features[5],
                    .over_temperature = wire.temperatures[0],
                    .under_temperature = wire.temperatures[1],
                    .not_coalesced = wire.not_coalesced,
                    .write_cache = wire.write_cache};
  state.event_requests = unpack<uint16_t>(wire.event_requests);
  state.events = unpack<uint32_t>(wire.events);
  state.masked_events = wire.masked_events;
  for (size_t i = 0; i < wire.errors.size(); ++i) {
    const auto& row = wire.errors[i];
    state.errors[i] = {.count = row[0],
                       .sq = static_cast<uint16_t>(row[1]),
                       .cid = static_cast<uint16_t>(row[2]),
                       .status = static_cast<uint16_t>(row[3]),
                       .lba = row[4],
                       .nsid = static_cast<uint32_t>(row[5])};
  }
  state.error_count = wire.error_count;
  return true;
}

void NvmeController::restore(StateReader& reader) {
  Saved wire{};
  State state;
  std::list<Request> requests;
  if (!restore_section(reader, path(), wire, [&] {
        if (put_together(reader, wire, state, requests)) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(lock_);
  ++life_;
  for (Request& request : requests) request.life = life_;
  state_ = std::move(state);
  requests_.splice(requests_.end(), requests);
  ready_ = ~uint64_t{0};
  cmbmsc_.store(state_.cmbmsc, std::memory_order_release);
  const unsigned shift = std::min<unsigned>(state_.cc >> kCcMps & 0xf, kLargestPageShift);
  page_bytes_.store(uint64_t{4096} << shift, std::memory_order_release);
  if (own_namespace_ != nullptr) own_namespace_->set_format(wire.own_format);
  if (cmb_ != nullptr) std::ranges::copy(wire.cmb, cmb_->host());
  if (options_.persistent != nullptr) std::ranges::copy(wire.persistent, options_.persistent->host());
  persistent_changed();
  set_write_cache(state_.features.write_cache);
}

}  // namespace kite::devices
