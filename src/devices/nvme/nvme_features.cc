// GET FEATURES and SET FEATURES of the NVMe controller. [NVMe 1.4] 5.13, 5.21. Nothing is saved over a power cycle.
#include <algorithm>

#include "devices/nvme/nvme_controller.h"

namespace kite::devices {

using namespace nvme;

namespace {

constexpr uint16_t refuse(Status status) { return static_cast<uint16_t>(status | kDoNotRetry); }
constexpr uint32_t kChangeable = 1u << 2;  // as GET FEATURES tells what can be done with one
constexpr uint32_t kSave = 1u << 31;
constexpr uint32_t kThresholdUnder = 1u << 20;  // in bits 21:20: the threshold's kind
constexpr uint32_t kHealthEventBits = 0x1f;     // of asynchronous event configuration

bool known(unsigned feature) {
  switch (feature) {
    case kArbitration:
    case kPowerManagement:
    case kTemperatureThreshold:
    case kErrorRecovery:
    case kVolatileWriteCache:
    case kNumberOfQueues:
    case kInterruptCoalescing:
    case kInterruptVector:
    case kWriteAtomicity:
    case kAsyncEvents: return true;
    default: return false;
  }
}

}  // namespace

void NvmeController::set_write_cache(bool on) {
  state_.features.write_cache = on;
  for (NvmeNamespace* space : namespaces_)
    if (space != nullptr) space->drive().set_write_cache(on);
}

// 5.21.1.4: sensor 0 is the composite temperature, 15 all of them; others are not there.
uint16_t NvmeController::set_temperature(uint32_t value) {
  const uint32_t sensor = value >> 16 & 0xf;
  if (sensor != 0 && sensor != 0xf) return refuse(kInvalidField);
  const uint32_t kind = value & 3u << 20;
  if (kind == 0) {
    state_.features.over_temperature = value & 0xffff;
  } else if (kind == kThresholdUnder) {
    state_.features.under_temperature = value & 0xffff;
  } else {
    return refuse(kInvalidField);
  }
  constexpr uint32_t kTemperatureEvents = 1u << 1;
  if (critical_warning() != 0 && (state_.features.events & kTemperatureEvents) != 0)
    send_event(kEventHealth, kTemperatureEvent, kLogSmart);
  return kSuccess;
}

NvmeController::Outcome NvmeController::set_features(const Command& command) {
  const unsigned feature = command.cdw10 & 0xff;
  const uint32_t value = command.cdw11;
  Features& features = state_.features;
  if (!known(feature)) return {.status = refuse(kInvalidField)};
  if ((command.cdw10 & kSave) != 0) return {.status = refuse(kFeatureNotSaveable)};
  // None of these belongs to a namespace.
  if (command.nsid != 0 && command.nsid != kAllNamespaces)
    return {.status = refuse(find_namespace(command.nsid) == nullptr ? kInvalidNamespace : kFeatureNotPerNamespace)};
  switch (feature) {
    case kArbitration: features.arbitration = value; return {};
    case kPowerManagement:
      if ((value & 0x1f) != 0) return {.status = refuse(kInvalidField)};  // there is one power state
      features.power = value & 0xff;
      return {};
    case kTemperatureThreshold: return {.status = set_temperature(value)};
    case kErrorRecovery:
      if ((value & 1u << 16) != 0) return {.status = refuse(kInvalidField)};  // errors for deallocated blocks
      features.recovery = value & 0xffff;
      return {};
    case kVolatileWriteCache: set_write_cache((value & 1) != 0); return {};
    case kNumberOfQueues: {
      // 5.21.1.7: 65535 is no number of queues; not once queues were made.
      if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff) return {.status = refuse(kInvalidField)};
      const uint32_t granted = options_.queues - 1;
      return {.result = granted | granted << 16};
    }
    case kInterruptCoalescing: features.coalescing = value & 0xffff; return {};
    case kInterruptVector: {
      const uint32_t vector = value & 0xffff;
      if (vector >= options_.vectors) return {.status = refuse(kInvalidField)};
      features.not_coalesced[vector] = (value & 1u << 16) != 0;
      return {};
    }
    case kWriteAtomicity: features.atomicity = value & 1; return {};
    default: features.events = value & kHealthEventBits; return {};  // asynchronous events
  }
}

NvmeController::Outcome NvmeController::get_features(const Command& command) {
  const unsigned feature = command.cdw10 & 0xff, select = command.cdw10 >> 8 & 7;
  if (!known(feature) || select > kSelectCapabilities) return {.status = refuse(kInvalidField)};
  if (select == kSelectCapabilities) return {.result = kChangeable};
  if (command.nsid != 0 && command.nsid != kAllNamespaces && find_namespace(command.nsid) == nullptr)
    return {.status = refuse(kInvalidNamespace)};
  Features defaults;
  defaults.write_cache = default_write_cache_;
  const Features& features = select == kSelectCurrent ? state_.features : defaults;
  switch (feature) {
    case kArbitration: return {.result = features.arbitration};
    case kPowerManagement: return {.result = features.power};
    case kTemperatureThreshold: {
      const uint32_t sensor = command.cdw11 >> 16 & 0xf, kind = command.cdw11 & 3u << 20;
      if (sensor != 0 || kind > kThresholdUnder) return {.status = refuse(kInvalidField)};
      return {.result = kind == 0 ? features.over_temperature : features.under_temperature};
    }
    case kErrorRecovery: return {.result = features.recovery};
    case kVolatileWriteCache: return {.result = features.write_cache};
    case kNumberOfQueues: return {.result = (options_.queues - 1) | (options_.queues - 1) << 16};
    case kInterruptCoalescing: return {.result = features.coalescing};
    case kInterruptVector: {
      const uint32_t vector = command.cdw11 & 0xffff;
      if (vector >= options_.vectors) return {.status = refuse(kInvalidField)};
      // The admin queue's interrupts are never coalesced.
      const bool direct = features.not_coalesced[vector] || vector == 0;
      return {.result = vector | uint32_t{direct} << 16};
    }
    case kWriteAtomicity: return {.result = features.atomicity};
    default: return {.result = features.events};
  }
}

}  // namespace kite::devices
