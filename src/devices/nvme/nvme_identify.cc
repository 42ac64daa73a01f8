// What the NVMe controller tells about itself: IDENTIFY and the log pages. [NVMe 1.4] 5.14, 5.15.
#include <algorithm>
#include <string_view>

#include "devices/nvme/nvme_controller.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace nvme;

namespace {

constexpr uint16_t refuse(Status status) { return static_cast<uint16_t>(status | kDoNotRetry); }

// Offsets into the controller data structure: 5.15.2.2, figure 247.
enum Field : uint16_t {
  kVid = 0,
  kSsvid = 2,
  kSn = 4,
  kMn = 24,
  kFr = 64,
  kRab = 72,
  kIeee = 73,
  kMdts = 77,
  kCntlid = 78,
  kVer = 80,
  kOaes = 92,
  kCntrltype = 111,
  kOacs = 256,
  kAcl = 258,
  kAerl = 259,
  kFrmw = 260,
  kLpa = 261,
  kElpe = 262,
  kWctemp = 266,
  kCctemp = 268,
  kSqes = 512,
  kCqes = 513,
  kNn = 516,
  kOncs = 520,
  kVwc = 525,
  kNwpc = 531,
  kSgls = 536,
  kSubnqn = 768,
  kPsd0 = 2048,
};
constexpr uint16_t kOacsFormat = 1u << 1, kOacsDoorbells = 1u << 8;
constexpr uint8_t kLpaEffects = 1u << 1, kLpaExtended = 1u << 2;
constexpr uint16_t kOncsCompare = 1u << 0, kOncsManagement = 1u << 2, kOncsZeroes = 1u << 3, kOncsSelect = 1u << 4,
                   kOncsVerify = 1u << 7;
constexpr uint8_t kVwcPresent = 1u << 0, kVwcFlushAll = 3u << 1;
// Any alignment; bit buckets; SGLs longer than the data.
constexpr uint32_t kSglsOffered = 1u << 0 | 1u << 16 | 1u << 18;
constexpr uint8_t kIoController = 1, kFirmwareReadOnly = 1u << 0, kOneSlot = 1u << 1;
constexpr uint16_t kCriticalTemperature = 0x175;  // kelvins
constexpr std::string_view kModel = "Kite NVMe Controller", kFirmware = "1.0";

template <size_t N>
void put_text(std::array<uint8_t, N>& data, size_t at, size_t size, std::string_view text) {
  for (size_t i = 0; i < size; ++i) data[at + i] = i < text.size() ? static_cast<uint8_t>(text[i]) : ' ';
}

}  // namespace

void NvmeController::identify_controller(std::array<uint8_t, 4096>& data) const {
  data.fill(0);
  store<uint16_t>(&data[kVid], 0x1b36);
  store<uint16_t>(&data[kSsvid], 0x1af4);
  put_text(data, kSn, 20, options_.serial);
  put_text(data, kMn, 40, kModel);
  put_text(data, kFr, 8, kFirmware);
  data[kRab] = 6;
  data[kIeee + 2] = 0x52;
  data[kIeee + 1] = 0x54;
  data[kMdts] = static_cast<uint8_t>(options_.mdts);
  store(&data[kVer], kVersion14);
  data[kCntrltype] = kIoController;
  store<uint16_t>(&data[kOacs], kOacsFormat | kOacsDoorbells);
  data[kAcl] = 3;
  data[kAerl] = kEventRequests - 1;
  data[kFrmw] = kFirmwareReadOnly | kOneSlot;
  data[kLpa] = kLpaEffects | kLpaExtended;
  data[kElpe] = kErrorEntries - 1;
  store<uint16_t>(&data[kWctemp], kDefaultOverTemperature);
  store<uint16_t>(&data[kCctemp], kCriticalTemperature);
  data[kSqes] = kSqEntryShift << 4 | kSqEntryShift;
  data[kCqes] = kCqEntryShift << 4 | kCqEntryShift;
  store<uint32_t>(&data[kNn], NvmeNamespace::kMostNamespaces);
  store<uint16_t>(&data[kOncs], kOncsCompare | kOncsManagement | kOncsZeroes | kOncsSelect | kOncsVerify);
  data[kVwc] = kVwcPresent | kVwcFlushAll;
  store(&data[kSgls], kSglsOffered);
  // 7.9: a name that is unique; the serial number makes it so.
  const std::string name = "nqn.2026-11.org.kite:" + options_.serial;
  std::ranges::copy(name, data.begin() + kSubnqn);
  // One power state: 25 W.
  store<uint16_t>(&data[kPsd0], 2500);
}

NvmeController::Outcome NvmeController::identify(const Command& command) {
  std::array<uint8_t, kIdentifyBytes> data{};
  const uint32_t nsid = command.nsid;
  const bool valid = nsid != 0 && (nsid <= NvmeNamespace::kMostNamespaces || nsid == kAllNamespaces);
  const NvmeNamespace* const space = find_namespace(nsid);
  switch (command.cdw10 & 0xff) {
    case kCnsNamespace:
    case kCnsAllocatedNamespace:
      if (!valid) return {.status = refuse(kInvalidNamespace)};
      // 5.15.2.1: an inactive one reads as zeroes; all of them name what they have in common.
      if (space != nullptr) space->identify(data);
      if (nsid == kAllNamespaces) data[25] = NvmeNamespace::kFormats - 1, data[130] = 9, data[134] = 12;
      break;
    case kCnsController: identify_controller(data); break;
    case kCnsActiveNamespaces:
    case kCnsAllocatedNamespaces: {
      if (nsid >= 0xfffffffe) return {.status = refuse(kInvalidNamespace)};
      size_t at = 0;
      for (uint32_t next = nsid + 1; next < namespaces_.size() && at < data.size(); ++next) {
        if (namespaces_[next] == nullptr) continue;
        store(&data[at], next);
        at += sizeof next;
      }
      break;
    }
    case kCnsDescriptors:
      if (space == nullptr) return {.status = refuse(kInvalidNamespace)};
      space->describe(data);
      break;
    case kCnsAttachedControllers:
    case kCnsControllers:
      // Controller 0 is the only one; the list starts at the id in dword 10.
      if ((command.cdw10 & 0xff) == kCnsAttachedControllers && space == nullptr)
        return {.status = refuse(kInvalidNamespace)};
      if (command.cdw10 >> 16 == 0) data[0] = 1;
      break;
    default: return {.status = refuse(kInvalidField)};
  }
  return {.status = give(command, data)};
}

// --- log pages

std::vector<uint8_t> NvmeController::error_log() const {
  constexpr size_t kEntryBytes = 64;
  std::vector<uint8_t> log(kErrorEntries * kEntryBytes);
  // The newest first.
  for (size_t i = 0; i < kErrorEntries && i < state_.error_count; ++i) {
    const ErrorEntry& entry = state_.errors[(state_.error_count - 1 - i) % kErrorEntries];
    uint8_t* const at = &log[i * kEntryBytes];
    store(at, entry.count);
    store(at + 8, entry.sq);
    store(at + 10, entry.cid);
    store(at + 12, entry.status);
    store<uint16_t>(at + 14, 0xffff);  // which byte of the command is to blame: not told
    store(at + 16, entry.lba);
    store(at + 24, entry.nsid);
  }
  return log;
}

uint8_t NvmeController::critical_warning() const {
  const Features& features = state_.features;
  constexpr uint8_t kTemperatureWarning = 1u << 1;
  return kTemperature >= features.over_temperature || kTemperature <= features.under_temperature ? kTemperatureWarning
                                                                                                 : 0;
}

// 5.14.1.2. Data units are thousands of 512 bytes, rounded up.
std::vector<uint8_t> NvmeController::health_log(uint32_t nsid) const {
  std::vector<uint8_t> log(512);
  uint64_t read_bytes = 0, written_bytes = 0, reads = 0, writes = 0;
  for (const NvmeNamespace* space : namespaces_) {
    if (space == nullptr || (nsid != kAllNamespaces && nsid != 0 && space->nsid() != nsid)) continue;
    const block::DriveStats& read = space->drive().stats(block::DriveOperation::kRead);
    const block::DriveStats& write = space->drive().stats(block::DriveOperation::kWrite);
    read_bytes += read.bytes.value();
    reads += read.operations.value();
    written_bytes += write.bytes.value();
    writes += write.operations.value();
  }
  const auto units = [](uint64_t bytes) { return (bytes + 511'999) / 512'000; };
  log[0] = critical_warning();
  store(&log[1], kTemperature);
  log[3] = 100;  // available spare, in percent
  log[4] = 10;   // below which a warning would come
  store(&log[32], units(read_bytes));
  store(&log[48], units(written_bytes));
  store(&log[64], reads);
  store(&log[80], writes);
  store(&log[176], state_.error_count);
  return log;
}

NvmeController::Outcome NvmeController::get_log_page(const Command& command) {
  const unsigned page = command.cdw10 & 0xff;
  const bool retain = (command.cdw10 >> 15 & 1) != 0;
  const uint64_t bytes = ((command.cdw10 >> 16 | uint64_t{command.cdw11 & 0xffff} << 16) + 1) * 4;
  const uint64_t offset = command.cdw12 | uint64_t{command.cdw13} << 32;
  std::vector<uint8_t> log;
  uint8_t type = 0xff;  // of the events that reading it lets through again
  switch (page) {
    case kLogError:
      log = error_log();
      type = kEventError;
      break;
    case kLogSmart:
      // LPA: not for single namespaces, so only for the controller.
      if (command.nsid != 0 && command.nsid != kAllNamespaces) return {.status = refuse(kInvalidField)};
      log = health_log(command.nsid);
      type = kEventHealth;
      break;
    case kLogFirmware:
      log.resize(512);
      log[0] = 1;
      std::ranges::fill_n(log.begin() + 8, 8, uint8_t{' '});
      std::ranges::copy(kFirmware, log.begin() + 8);
      break;
    case kLogChangedNamespaces: log.resize(4096); break;  // namespaces do not come and go
    case kLogEffects: {
      constexpr uint32_t kSupported = 1u << 0, kChangesContent = 1u << 1, kSubmission = 1u << 16;
      log.resize(4096);
      const auto set = [&log](size_t base, uint8_t opcode, uint32_t effects) {
        store(&log[base + 4 * opcode], effects);
      };
      for (const uint8_t opcode : {kDeleteSq, kCreateSq, kGetLogPage, kDeleteCq, kCreateCq, kIdentify, kAbort,
                                   kSetFeatures, kGetFeatures, kAsyncEventRequest, kDoorbellBufferConfig})
        set(0, opcode, kSupported);
      set(0, kFormatNvm, kSupported | kChangesContent | kSubmission);
      for (const uint8_t opcode : {kRead, kCompare, kVerify}) set(1024, opcode, kSupported);
      for (const uint8_t opcode : {kFlush, kWrite, kWriteZeroes, kDatasetManagement})
        set(1024, opcode, kSupported | kChangesContent);
      break;
    }
    default: return {.status = refuse(kInvalidLogPage)};
  }
  if (offset % 4 != 0 || offset > log.size()) return {.status = refuse(kInvalidField)};
  // What is asked for beyond the end stays as it is.
  const auto part = std::span<const uint8_t>(log).subspan(offset);
  const uint16_t status = give(command, part.first(std::min<uint64_t>(part.size(), bytes)));
  if (status == kSuccess && !retain && type != 0xff) {
    state_.masked_events = static_cast<uint8_t>(state_.masked_events & ~(1u << type));
    deliver_events();
  }
  return {.status = status};
}

}  // namespace kite::devices
