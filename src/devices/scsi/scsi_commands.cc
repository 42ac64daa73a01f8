// What all logical units answer alike.
#include <algorithm>

#include "devices/scsi/scsi_bus.h"
#include "devices/scsi/scsi_device.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

// Left-aligned ASCII, filled up with spaces. [SPC-4] 4.3.1.
void put_text(std::span<uint8_t> field, const std::string& text) {
  std::ranges::fill(field, uint8_t{' '});
  std::copy_n(text.begin(), std::min(text.size(), field.size()), field.begin());
}

}  // namespace

ScsiReply ScsiDevice::test_unit_ready(const ScsiJob&) { return {}; }

ScsiReply ScsiDevice::do_nothing(const ScsiJob&) { return {}; }

ScsiReply ScsiDevice::refuse_write(const ScsiJob&) { return refuse(sense::kWriteProtected); }

ScsiReply ScsiDevice::seek(const ScsiJob& job) {
  const uint64_t block = job.cdb()[0] == scsi_op::kSeek6 ? load_be32(job.cdb()) & 0x1fffff : load_be32(job.cdb() + 2);
  return inside({.first = block, .blocks = 1}) ? ScsiReply{} : refuse(sense::kOutOfRange);
}

// Only the default self-test, which passes. [SPC-4] 6.42.
ScsiReply ScsiDevice::send_diagnostic(const ScsiJob& job) {
  constexpr uint8_t kSelfTest = 0x04;
  const bool plain = (job.cdb()[1] & ~kSelfTest & 0xf7) == 0 && load_be16(job.cdb() + 3) == 0;
  return plain ? ScsiReply{} : refuse(sense::kInvalidField);
}

// [SPC-4] 6.39: what the last command's status could not tell, else a unit attention, else why the medium is not ready.
ScsiReply ScsiDevice::request_sense(const ScsiJob& job) {
  ScsiSense sense = std::exchange(state_.held, sense::kNone);
  if (sense == sense::kNone && !state_.attentions.empty()) {
    sense = state_.attentions.front();
    state_.attentions.pop_front();
  }
  const bool descriptor = (job.cdb()[1] & 1) != 0;
  return answer(job, sense_bytes(sense, descriptor));
}

ScsiReply ScsiDevice::inquiry(const ScsiJob& job) {
  if ((job.cdb()[1] & 1) != 0) return vital_inquiry(job);
  if (job.cdb()[2] != 0) return refuse(sense::kInvalidField);
  return standard_inquiry(job);
}

// [SPC-4] 6.6.2.
ScsiReply ScsiDevice::standard_inquiry(const ScsiJob& job) {
  constexpr uint8_t kRemovable = 0x80, kHierarchicalLuns = 0x10, kFormat = 2, kQueues = 0x02;
  std::array<uint8_t, 36> data{};
  data[0] = peripheral_type();
  data[1] = config_.removable ? kRemovable : 0;
  data[2] = config_.version_code;
  data[3] = kHierarchicalLuns | kFormat;
  data[4] = data.size() - 5;
  data[7] = kQueues;
  put_text(std::span(data).subspan(8, 8), config_.vendor);
  put_text(std::span(data).subspan(16, 16), config_.product);
  put_text(std::span(data).subspan(32, 4), config_.version);
  return answer(job, data);
}

// [SPC-4] 7.8.
ScsiReply ScsiDevice::vital_inquiry(const ScsiJob& job) {
  const uint8_t page = job.cdb()[2];
  const std::optional<std::vector<uint8_t>> body = vital_page(page);
  if (!body) return refuse(sense::kInvalidField);
  std::vector<uint8_t> data{peripheral_type(), page, 0, 0};
  store_be16(&data[2], static_cast<uint16_t>(body->size()));
  data.insert(data.end(), body->begin(), body->end());
  return answer(job, data);
}

std::optional<std::vector<uint8_t>> ScsiDevice::vital_page(uint8_t page) const {
  constexpr uint8_t kSupported = 0x00, kSerial = 0x80, kIdentification = 0x83;
  const std::string& serial = config_.disk.serial;
  switch (page) {
    case kSupported: {
      std::vector<uint8_t> pages{kSupported};
      if (!serial.empty()) pages.push_back(kSerial);
      pages.push_back(kIdentification);
      pages.insert(pages.end(), vital_pages().begin(), vital_pages().end());
      return pages;
    }
    case kSerial:
      if (serial.empty()) return {};
      return std::vector<uint8_t>(serial.begin(), serial.end());
    case kIdentification: return identification();
    default: return {};
  }
}

// [SPC-4] 7.8.6: designators of the unit and of its port.
std::vector<uint8_t> ScsiDevice::identification() const {
  constexpr uint8_t kAscii = 2, kBinary = 1, kOfPort = 0x10, kSas = 0x60, kProtocolValid = 0x80;
  constexpr uint8_t kVendorSpecific = 0, kNaa = 3, kRelativePort = 4;
  std::vector<uint8_t> out;
  const auto designator = [&](uint8_t code_set, uint8_t type, std::span<const uint8_t> data) {
    out.insert(out.end(), {code_set, type, 0, static_cast<uint8_t>(data.size())});
    out.insert(out.end(), data.begin(), data.end());
  };
  const auto number = [&](uint8_t code_set, uint8_t type, uint64_t value) {
    std::array<uint8_t, 8> bytes;
    store_be64(bytes.data(), value);
    designator(code_set, type, bytes);
  };
  if (const std::string& id = config_.device_id; !id.empty())
    designator(kAscii, kVendorSpecific, {reinterpret_cast<const uint8_t*>(id.data()), id.size()});
  if (config_.disk.wwn != 0) number(kBinary, kNaa, config_.disk.wwn);
  if (config_.port_wwn != 0) number(kSas | kBinary, kProtocolValid | kOfPort | kNaa, config_.port_wwn);
  if (config_.port_index != 0) {
    const std::array<uint8_t, 4> index{0, 0, static_cast<uint8_t>(config_.port_index >> 8),
                                       static_cast<uint8_t>(config_.port_index)};
    designator(kSas | kBinary, kProtocolValid | kOfPort | kRelativePort, index);
  }
  return out;
}

// [SPC-4] 6.13, 6.14, 7.5.
ScsiReply ScsiDevice::mode_sense(const ScsiJob& job) {
  const uint8_t* cdb = job.cdb();
  const bool ten = cdb[0] == scsi_op::kModeSense10;
  const bool no_descriptor = (cdb[1] & 0x08) != 0, long_lba = ten && (cdb[1] & 0x10) != 0;
  const uint8_t page = cdb[2] & 0x3f, control = cdb[2] >> 6, subpage = cdb[3];
  if (control == kSaved) return refuse(sense::kSavingNotSupported);
  if (subpage != 0 && subpage != 0xff) return refuse(sense::kInvalidField);
  const std::vector<uint8_t> pages = mode_pages(page, control);
  if (pages.empty()) return refuse(sense::kInvalidField);
  const std::vector<uint8_t> descriptor = no_descriptor ? std::vector<uint8_t>{} : block_descriptor(long_lba);
  std::vector<uint8_t> data(ten ? 8 : 4);
  data[ten ? 2 : 1] = medium_type();
  data[ten ? 3 : 2] = device_parameter();
  if (ten) {
    data[4] = long_lba;
    store_be16(&data[6], static_cast<uint16_t>(descriptor.size()));
  } else {
    data[3] = static_cast<uint8_t>(descriptor.size());
  }
  data.insert(data.end(), descriptor.begin(), descriptor.end());
  data.insert(data.end(), pages.begin(), pages.end());
  if (ten) {
    store_be16(data.data(), static_cast<uint16_t>(data.size() - 2));
  } else {
    data[0] = static_cast<uint8_t>(data.size() - 1);
  }
  return answer(job, data);
}

// Judges a mode parameter list and works out what it makes of `next`; kNone: it may be taken. [SPC-4] 7.5.
ScsiSense ScsiDevice::judge_mode_list(const ScsiJob& job, std::span<const uint8_t> list, State& next) const {
  const bool ten = job.cdb()[0] == scsi_op::kModeSelect10;
  const size_t header = ten ? 8 : 4;
  if (list.empty()) return sense::kNone;
  if (list.size() < header) return sense::kParameterListLength;
  const bool long_lba = ten && (list[4] & 1) != 0;
  const size_t descriptor = ten ? load_be16(&list[6]) : list[3];
  if (descriptor > list.size() - header) return sense::kParameterListLength;
  if (descriptor != 0) {
    // A disk of this block length and this many blocks, all of them, or unchanged (0), is what we are.
    const std::vector<uint8_t> ours = block_descriptor(long_lba);
    const std::span<const uint8_t> theirs = list.subspan(header, descriptor);
    const ptrdiff_t counts = long_lba ? 8 : 4;
    if (theirs.size() != ours.size()) return sense::kInvalidParameter;
    const auto is = [&](uint8_t value) {
      return std::ranges::all_of(theirs.first(static_cast<size_t>(counts)),
                                 [value](uint8_t byte) { return byte == value; });
    };
    const bool same_count = is(0) || is(0xff) || std::equal(theirs.begin(), theirs.begin() + counts, ours.begin());
    const bool same_length = std::equal(ours.begin() + counts, ours.end(), theirs.begin() + counts);
    if (!same_count || !same_length) return sense::kInvalidParameter;
  }
  for (std::span<const uint8_t> rest = list.subspan(header + descriptor); !rest.empty();) {
    if (rest.size() < 2) return sense::kParameterListLength;
    const size_t size = 2u + rest[1];
    if ((rest[0] & 0xc0) != 0) return sense::kInvalidParameter;  // PS, and pages of sub-page format
    const uint8_t code = rest[0];
    const std::vector<uint8_t> current = mode_pages(code, kCurrent), changeable = mode_pages(code, kChangeable);
    if (code == kAllPages || current.empty() || current.size() != size) return sense::kInvalidParameter;
    if (size > rest.size()) return sense::kParameterListLength;
    for (size_t i = 2; i < size; ++i)
      if (((rest[i] ^ current[i]) & ~changeable[i]) != 0) return sense::kInvalidParameter;
    take_mode_page(rest.first(size), next);
    rest = rest.subspan(size);
  }
  return sense::kNone;
}

// [SPC-4] 6.11, 6.12.
Task<ScsiReply> ScsiDevice::mode_select(const ScsiJob& job) {
  constexpr uint8_t kPageFormat = 0x10, kSavePages = 0x01;
  if ((job.cdb()[1] & kSavePages) != 0) co_return refuse(sense::kInvalidField);
  const std::optional<std::vector<uint8_t>> list = parameters(job);
  if (!list) co_return refuse(sense::kParameterListLength);
  if ((job.cdb()[1] & kPageFormat) == 0 && !list->empty()) co_return refuse(sense::kInvalidField);
  bool cache_goes = false;
  {
    const std::lock_guard lock(mutex_);
    State next = state_;
    if (const ScsiSense why = judge_mode_list(job, *list, next); why != sense::kNone) co_return refuse(why);
    cache_goes = state_.write_cache && !next.write_cache;
    state_ = std::move(next);
    if (drive_ != nullptr) drive_->set_write_cache(state_.write_cache);
  }
  if (cache_goes && drive_ != nullptr && drive_->has_medium()) {
    // [SBC-3] 6.5.5: what the cache holds must not be less durable than what is written now.
    if (const auto flushed = co_await drive_flush(job); !flushed) co_return failed(flushed.error(), true);
  }
  co_return ScsiReply{.moved = list->size()};
}

// [SBC-3] 5.25, [MMC-6] 6.44.
Task<ScsiReply> ScsiDevice::start_stop(const ScsiJob& job) {
  const uint8_t how = job.cdb()[4];
  const bool load_or_eject = (how & 2) != 0, start = (how & 1) != 0;
  if ((how & 0xf0) != 0) co_return ScsiReply{};  // another power condition: all are alike
  if (!start && drive_ != nullptr && drive_->has_medium() && !read_only()) {
    // A medium that stops has everything that was written.
    if (const auto flushed = co_await drive_flush(job); !flushed) co_return failed(flushed.error(), true);
  }
  const std::lock_guard lock(mutex_);
  if (load_or_eject && config_.removable) {
    // [SPC-4] 6.24, [MMC-6] 6.16.
    if (!start && state_.locked && medium_present()) co_return refuse(sense::kRemovalPrevented);
    move_tray(!start);
  }
  state_.stopped = !start && !load_or_eject;
  co_return ScsiReply{};
}

ScsiReply ScsiDevice::prevent_allow(const ScsiJob& job) {
  state_.locked = (job.cdb()[4] & 1) != 0;
  return {};
}

Task<ScsiReply> ScsiDevice::report_luns(const ScsiJob& job) {
  co_return bus_ == nullptr ? refuse(sense::kInvalidOpcode) : bus_->report_luns(address(), job.command);
}

// [SPC-4] 6.27.
ScsiReply ScsiDevice::report_opcodes(const ScsiJob& job) {
  const uint8_t* cdb = job.cdb();
  const bool timeouts = (cdb[2] & 0x80) != 0;
  const uint8_t options = cdb[2] & 7, opcode = cdb[3];
  const uint16_t action = load_be16(cdb + 4);
  // Commands timeouts descriptor: no timeouts are known. [SPC-4] 6.27.4.
  const std::array<uint8_t, 12> no_timeouts{0, 10};
  std::vector<uint8_t> data(4);
  if (options == 0) {
    for (const ScsiOperation& row : operations()) {
      const bool has_action = row.action != ScsiOperation::kNoAction;
      const uint8_t flags = static_cast<uint8_t>(uint8_t{has_action} | (timeouts ? 2 : 0));
      data.insert(data.end(), {row.opcode, 0, 0, has_action ? row.action : uint8_t{0}, 0, flags, 0, row.cdb_bytes});
      if (timeouts) data.insert(data.end(), no_timeouts.begin(), no_timeouts.end());
    }
    store_be32(data.data(), static_cast<uint32_t>(data.size() - 4));
    return answer(job, data);
  }
  if (options > 3) return refuse(sense::kInvalidField);
  const ScsiOperation* found = nullptr;
  bool any_action = false;
  for (const ScsiOperation& row : operations()) {
    if (row.opcode != opcode) continue;
    any_action |= row.action != ScsiOperation::kNoAction;
    if (row.action == ScsiOperation::kNoAction ? options == 1 || (options == 3 && action == 0)
                                               : options != 1 && row.action == action)
      found = &row;
  }
  // Asked without a service action of what has some, or with one of what has none.
  if ((options == 1 && any_action) || (options == 2 && !any_action)) return refuse(sense::kInvalidField);
  constexpr uint8_t kNotSupported = 1, kAsTheStandardSays = 3, kTimeouts = 0x80;
  data[1] = static_cast<uint8_t>((timeouts ? kTimeouts : 0) | (found == nullptr ? kNotSupported : kAsTheStandardSays));
  if (found != nullptr) {
    store_be16(&data[2], found->cdb_bytes);
    data.insert(data.end(), found->usage.begin(), found->usage.begin() + found->cdb_bytes);
  }
  if (timeouts) data.insert(data.end(), no_timeouts.begin(), no_timeouts.end());
  return answer(job, data);
}

// [SPC-4] 6.28: ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK; QUERY TASK SET, I_T NEXUS
// RESET.
ScsiReply ScsiDevice::report_tmfs(const ScsiJob& job) {
  std::array<uint8_t, 16> data{0xd9, 0x05};
  const bool extended = (job.cdb()[2] & 0x80) != 0;
  data[3] = extended ? 12 : 0;
  return answer(job, std::span(data).first(extended ? 16 : 4));
}

// Blocks.

Task<ScsiReply> ScsiDevice::read(const ScsiJob& job) {
  constexpr uint8_t kProtect = 0xe0, kFua = 0x08;
  const uint8_t* cdb = job.cdb();
  const Range range = range_of(cdb);
  const bool six = cdb[0] == scsi_op::kRead6;
  // [SBC-3] 4.22: no protection information here.
  if (!six && (cdb[1] & kProtect) != 0) co_return refuse(sense::kInvalidField);
  if (!inside(range)) co_return refuse(sense::kOutOfRange);
  const uint64_t bytes = range.blocks * block_bytes();
  if (bytes > config_.max_io_bytes) co_return refuse(sense::kInvalidField);
  if (bytes > job.command.data_in.bytes()) co_return refuse(sense::kTargetFailure);
  if (bytes == 0) co_return ScsiReply{};
  if (!six && (cdb[1] & kFua) != 0 && !read_only()) {
    // [SBC-3] 5.9: what is newer in the cache goes to the medium first.
    if (const auto flushed = co_await drive_flush(job); !flushed) co_return failed(flushed.error(), false);
  }
  const auto done = co_await drive_read(job, range.first * block_bytes(), job.command.data_in.slice(0, bytes));
  if (!done) co_return failed(done.error(), false);
  co_return ScsiReply{.moved = bytes};
}

// [SBC-3] 5.26: of the whole medium, whatever the range.
Task<ScsiReply> ScsiDevice::synchronize_cache(const ScsiJob& job) {
  if (!inside(range_of(job.cdb()))) co_return refuse(sense::kOutOfRange);
  if (const auto flushed = co_await drive_flush(job); !flushed) co_return failed(flushed.error(), true);
  co_return ScsiReply{};
}

}  // namespace kite::devices
