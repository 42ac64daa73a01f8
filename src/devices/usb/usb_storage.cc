#include "devices/usb/usb_storage.h"

#include <fmt/format.h>

#include <algorithm>

#include "devices/section.h"
#include "devices/usb/usb_storage_regs.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace usb_storage;

namespace {

constexpr uint16_t kVendor = 0x46f4, kProduct = 0x0001;  // of emulated devices; guests have rules for them
constexpr uint8_t kMostBurst = 15;

// [BOT] 4.1.1: at least twelve digits, and no other device's.
std::string serial_of(const std::string& path, const DiskConfig& disk) {
  if (!disk.serial.empty()) return disk.serial;
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char letter : path) hash = (hash ^ static_cast<uint8_t>(letter)) * 0x100000001b3;
  return fmt::format("{:016X}", hash);
}

}  // namespace

UsbStorage::UsbStorage(const std::string& path, const Config& config, Clock& clock)
    : UsbDevice(path, "USB Storage", descriptors(serial_of(path, config.disk))),
      clock_(clock),
      scsi_(path + ".0", {.channels = 1, .targets = 1, .luns = 1}, false, nullptr),
      tell_timer_(clock, [this] {
        bool in = false, out = false;
        {
          const std::lock_guard lock(lock_);
          in = std::exchange(tell_in_, false);
          out = std::exchange(tell_out_, false);
        }
        if (out) endpoint_ready(kOutEndpoint);
        if (in) endpoint_ready(kInEndpoint);
      }) {
  ScsiUnitConfig unit = usual_scsi_unit(config.disk, config.cdrom);
  unit.removable |= config.removable;
  unit.max_io_bytes = kMostData;
  unit_ = scsi_.add_unit(path + "/scsi", std::move(unit), config.cdrom);
}

UsbStorage::~UsbStorage() {
  {
    const std::lock_guard lock(lock_);
    forget_command();
  }
  scsi_.detach(*unit_);
  scope_.wait_idle();
}

// [BOT] 4; [USB 3.1] 9.6.7: a companion behind each endpoint.
UsbDescriptors UsbStorage::descriptors(std::string serial) {
  const auto configuration = [](uint16_t packet, bool super) {
    const std::vector<uint8_t> companion =
        super ? std::vector<uint8_t>{6, usb::kEndpointCompanion, kMostBurst, 0, 0, 0} : std::vector<uint8_t>{};
    return usb_configuration({.class_code = kClass,
                              .subclass = kScsiTransparent,
                              .protocol = kBulkOnly,
                              .endpoints = 2,
                              .attributes = usb::kAttributesOne | usb::kSelfPowered},
                             usb_bytes({usb_endpoint(kInEndpoint, usb::kBulk, packet, 0), companion,
                                        usb_endpoint(kOutEndpoint, usb::kBulk, packet, 0), companion}));
  };
  return {.device = usb_device_descriptor(kVendor, kProduct, 3),
          .full = configuration(64, false),
          .high = configuration(512, false),
          .super = configuration(1024, true),
          .strings = {"Kite", "USB Storage", std::move(serial)}};
}

// --- life

void UsbStorage::reset() {
  UsbDevice::reset();
  unit_->reset();
}

// A command that was restored begins, and the host hears of what happened while the machine stood still.
void UsbStorage::start() {
  const std::lock_guard lock(lock_);
  launch();
  waits_in_ = waits_out_ = true;
  tell();
}

void UsbStorage::forget_command() {
  ++life_;
  if (busy_) unit_->abort_all();
  state_ = State{};
}

// --- requests of the class. [BOT] 3

std::optional<std::vector<uint8_t>> UsbStorage::class_in(const usb::Setup& setup) {
  if (setup.recipient() != usb::kToInterface || setup.index != 0 || setup.value != 0) return std::nullopt;
  if (setup.request != kGetMaxLun || setup.length != 1) return std::nullopt;
  return std::vector<uint8_t>{0};
}

// 3.1: halts stay as they are.
bool UsbStorage::class_out(const usb::Setup& setup, std::span<const uint8_t>) {
  if (setup.recipient() != usb::kToInterface || setup.index != 0 || setup.value != 0) return false;
  if (setup.request != kReset || setup.length != 0) return false;
  forget_command();
  tell();
  return true;
}

// --- the host's side of the pipes

bool UsbStorage::has_endpoint(uint8_t endpoint) const { return endpoint == kInEndpoint || endpoint == kOutEndpoint; }

// A wrapper waits until the unit is done with what was given up: nothing late may overtake what comes now.
bool UsbStorage::takes_out() const {
  return state_.phase == Phase::kDataOut || (state_.phase == Phase::kCommand && !busy_);
}

UsbAnswer UsbStorage::data_out(uint8_t, std::span<const uint8_t> from) {
  if (state_.phase == Phase::kBroken) return break_down(kOutEndpoint);
  if (!takes_out()) {
    waits_out_ = true;
    return {.outcome = UsbOutcome::kNak};
  }
  return state_.phase == Phase::kDataOut ? take_data(from) : take_wrapper(from);
}

UsbAnswer UsbStorage::data_in(uint8_t, std::span<uint8_t> to) {
  if (state_.phase == Phase::kBroken) return break_down(kInEndpoint);
  if (!gives_in()) {
    waits_in_ = true;
    return {.outcome = UsbOutcome::kNak};
  }
  return state_.phase == Phase::kDataIn ? give_data(to) : give_status(to);
}

// [BOT] 6.6.1: both ways are halted until the host has reset the device; a halt that is cleared before comes back.
UsbAnswer UsbStorage::break_down(uint8_t endpoint) {
  halt(endpoint);
  if (state_.phase != Phase::kBroken) {
    forget_command();
    state_.phase = Phase::kBroken;
    halt(kInEndpoint);
    tell();
  }
  return {.outcome = UsbOutcome::kStall};
}

UsbAnswer UsbStorage::take_wrapper(std::span<const uint8_t> from) {
  // [BOT] 6.2.1: what is a wrapper.
  if (from.size() != kCbwBytes || load<uint32_t>(from.data()) != kCbwSignature) {
    log::guest_error("{}: {} bytes are no command block wrapper", path(), from.size());
    return break_down(kOutEndpoint);
  }
  const uint8_t flags = from[kCbwFlags], lun = from[kCbwLun], block_length = from[kCbwBlockLength];
  // 6.2.2: what has a meaning. What a device makes of the rest is its own: the same.
  if ((flags & ~kToHost) != 0 || lun != 0 || block_length == 0 || block_length > kMostBlockBytes) {
    log::guest_error("{}: a command block wrapper has flags {:#x}, LUN {} and {} bytes", path(), flags, lun,
                     block_length);
    return break_down(kOutEndpoint);
  }
  state_ = State{.tag = load<uint32_t>(&from[kCbwTag]), .length = load<uint32_t>(&from[kCbwLength])};
  state_.to_host = (flags & kToHost) != 0;
  std::copy_n(from.begin() + kCbwBlock, block_length, state_.cdb.begin());
  begin_data_stage();
  return {.outcome = UsbOutcome::kDone, .moved = from.size()};
}

// [BOT] 6.7: host and command disagree about the data so that nothing can be done: cases 2, 3, 8, 10 and 13. That a
// command has more for the host than that wants (7) shows when it has run.
bool UsbStorage::disagrees() const {
  const ScsiTransfer wanted = unit_->transfer_of(state_.cdb);
  const bool data = state_.length != 0;
  switch (wanted.direction) {
    case ScsiDirection::kNone: return false;
    case ScsiDirection::kToGuest: return !data || !state_.to_host;
    case ScsiDirection::kFromGuest: return !data || state_.to_host || wanted.bytes > state_.length;
  }
  return false;
}

void UsbStorage::begin_data_stage() {
  const bool from_host = state_.length != 0 && !state_.to_host;
  if (from_host) {
    state_.phase = Phase::kDataOut;
  } else if (disagrees()) {
    state_.status = kPhaseError;
    state_.residue = state_.length;
    state_.phase = state_.length != 0 ? Phase::kDataIn : Phase::kStatus;
  } else {
    run_command();
  }
  tell();
}

UsbAnswer UsbStorage::take_data(std::span<const uint8_t> from) {
  // What comes behind the data is a wrapper, and this is none.
  if (from.size() > state_.length - state_.moved) return break_down(kOutEndpoint);
  const bool disagree = disagrees();
  const uint64_t wanted = disagree ? 0 : std::min(unit_->transfer_of(state_.cdb).bytes, kMostData);
  const size_t part = std::min<uint64_t>(from.size(), wanted - std::min<uint64_t>(wanted, state_.data->size()));
  state_.data->insert(state_.data->end(), from.begin(), from.begin() + static_cast<ptrdiff_t>(part));
  state_.moved += static_cast<uint32_t>(from.size());
  if (state_.moved == state_.length) {
    if (disagree) {
      state_.status = kPhaseError;
      state_.residue = state_.length;
      state_.phase = Phase::kStatus;
    } else {
      run_command();
    }
    tell();
  }
  return {.outcome = UsbOutcome::kDone, .moved = from.size()};
}

UsbAnswer UsbStorage::give_data(std::span<uint8_t> to) {
  const std::vector<uint8_t>& data = *state_.data;
  const size_t count = std::min<size_t>(to.size(), state_.length - state_.moved);
  const size_t ours = std::min(count, data.size() - std::min<size_t>(data.size(), state_.moved));
  std::copy_n(data.begin() + static_cast<ptrdiff_t>(std::min<size_t>(data.size(), state_.moved)), ours, to.begin());
  std::ranges::fill(to.subspan(ours, count - ours), uint8_t{0});
  state_.moved += static_cast<uint32_t>(count);
  if (state_.moved == state_.length) {
    state_.phase = Phase::kStatus;
    state_.data = std::make_shared<std::vector<uint8_t>>();
  }
  return {.outcome = UsbOutcome::kDone, .moved = count};
}

UsbAnswer UsbStorage::give_status(std::span<uint8_t> to) {
  if (to.size() < kCswBytes) return {.outcome = UsbOutcome::kBabble};
  store(&to[0], kCswSignature);
  store(&to[kCswTag], state_.tag);
  store(&to[kCswResidue], state_.residue);
  to[kCswStatus] = state_.status;
  state_ = State{};
  tell();
  return {.outcome = UsbOutcome::kDone, .moved = kCswBytes};
}

// --- the unit

void UsbStorage::run_command() {
  state_.phase = Phase::kRunning;
  const ScsiTransfer wanted = unit_->transfer_of(state_.cdb);
  // The rest of the data has been dropped.
  if (wanted.direction == ScsiDirection::kFromGuest && wanted.bytes > kMostData)
    return end_command(refuse(sense::kInvalidField));
  launch();
}

void UsbStorage::launch() {
  if (state_.phase != Phase::kRunning || busy_) return;
  busy_ = true;
  scope_.spawn(execute(scsi_.acquire({}), life_, state_.cdb, state_.data));
}

// It begins on the drive's executor, so that whoever spawns it may hold the lock.
Task<void> UsbStorage::execute(ScsiUse unit, uint64_t life, Cdb cdb, Data data) {
  co_await unit->config().disk.drive->executor().schedule();
  if (!meant(life)) {
    unit.reset();
    co_return landed(life, {}, std::move(data));
  }
  const ScsiTransfer wanted = unit->transfer_of(cdb);
  if (wanted.direction == ScsiDirection::kToGuest)
    data = std::make_shared<std::vector<uint8_t>>(std::min(wanted.bytes, kMostData));
  ScsiCommand command{.cdb = cdb, .data_in = {}, .data_out = {}};
  (wanted.direction == ScsiDirection::kToGuest ? command.data_in : command.data_out) = block::IoSlice(std::span(*data));
  const ScsiReply reply = co_await unit->execute(command);
  unit.reset();
  landed(life, reply, std::move(data));
}

bool UsbStorage::meant(uint64_t life) {
  const std::lock_guard lock(lock_);
  return life == life_;
}

void UsbStorage::landed(uint64_t life, const ScsiReply& reply, Data data) {
  const std::lock_guard lock(lock_);
  busy_ = false;
  if (life == life_) {
    state_.data = std::move(data);
    end_command(reply);
  } else {
    launch();
  }
  tell();
}

// [BOT] 5.2, 6.7.
void UsbStorage::end_command(const ScsiReply& reply) {
  const bool good = reply.status == ScsiStatus::kGood, in = state_.length != 0 && state_.to_host;
  if (reply.status == ScsiStatus::kCheckCondition) unit_->hold_sense(reply.sense);
  const uint64_t used = good ? reply.moved : 0;
  state_.data->resize(good && in ? used : 0);
  state_.status = in && used > state_.length ? kPhaseError : good ? kPassed : kFailed;
  state_.residue = static_cast<uint32_t>(state_.length - std::min<uint64_t>(used, state_.length));
  state_.phase = in ? Phase::kDataIn : Phase::kStatus;
}

// The host hears of what it was told to wait for.
void UsbStorage::tell() {
  const bool broken = state_.phase == Phase::kBroken;
  tell_in_ |= (gives_in() || broken) && std::exchange(waits_in_, false);
  tell_out_ |= (takes_out() || broken) && std::exchange(waits_out_, false);
  if (tell_in_ || tell_out_) tell_timer_.arm_at(clock_.now());
}

// --- saved state

void UsbStorage::save(StateWriter& writer) {
  UsbDevice::save(writer);
  unit_->save(writer);
}

void UsbStorage::restore(StateReader& reader) {
  UsbDevice::restore(reader);
  unit_->restore(reader);
}

void UsbStorage::save_function(StateWriter& writer) {
  const auto& [phase, tag, length, to_host, cdb, moved, data, residue, status] = state_;
  writer.field(10, static_cast<uint8_t>(phase));
  writer.field(11, tag);
  writer.field(12, length);
  writer.field(13, to_host);
  writer.field(14, cdb);
  writer.field(15, moved);
  writer.field(16, *data);  // what a command reads comes here when it has ended
  writer.field(17, residue);
  writer.field(18, status);
}

bool UsbStorage::possible(const State& state) {
  const bool under_way = state.moved < state.length;
  if (state.phase > Phase::kBroken || state.status > kPhaseError || state.data->size() > kMostData) return false;
  if (state.moved > state.length || state.residue > state.length) return false;
  if (state.phase == Phase::kDataOut) return !state.to_host && under_way && state.data->size() <= state.moved;
  if (state.phase == Phase::kDataIn) return state.to_host && under_way;
  return true;
}

void UsbStorage::restore_function(StateReader& reader) {
  restored_ = State{};
  uint8_t phase = 0;
  reader.field(10, phase);
  reader.field(11, restored_.tag);
  reader.field(12, restored_.length);
  reader.field(13, restored_.to_host);
  reader.field(14, restored_.cdb);
  reader.field(15, restored_.moved);
  reader.field(16, *restored_.data);
  reader.field(17, restored_.residue);
  reader.field(18, restored_.status);
  restored_.phase = static_cast<Phase>(phase);
  if (reader.ok()) require(reader, possible(restored_), "the command under way is impossible");
}

void UsbStorage::apply_function() {
  forget_command();
  state_ = std::exchange(restored_, State{});
}

// --- a medium that comes and goes

UsbStorageWithTray::UsbStorageWithTray(const std::string& path, const Config& config, Clock& clock)
    : UsbStorage(path, config, clock), tray_(dynamic_cast<Removable&>(unit())) {}

}  // namespace kite::devices
