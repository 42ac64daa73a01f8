// The message that travels between interrupt controllers: an IPI, a redirection table entry, a message-signalled
// interrupt. [SDM 3A 11.6, 11.11]
#pragma once

#include <cstdint>

namespace kite::devices {

// r- ICR 10:8, LVT 10:8, redirection entry 10:8, MSI data 10:8
enum class DeliveryMode : uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kReserved = 3,
  kNmi = 4,
  kInit = 5,
  kStartup = 6,
  kExtInt = 7,
};

struct ApicMessage {
  uint32_t destination = 0;
  bool wide = false;     // the destination has 32 bits (sent in x2APIC mode), not 8
  bool logical = false;  // destination mode
  DeliveryMode mode = DeliveryMode::kFixed;
  uint8_t vector = 0;
  bool level = false;  // trigger mode
};

// The same as a device writes it.
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
};
MsiMessage msi_of(const ApicMessage& message);

}  // namespace kite::devices
