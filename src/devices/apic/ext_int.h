// ExtInt: the 8259 pair as a processor sees it: the INT output and the interrupt acknowledge cycle.
#pragma once

#include <cstdint>

namespace kite::devices {

class ExtInt {
 public:
  virtual ~ExtInt() = default;
  // Any thread, no lock: the level of INT.
  [[nodiscard]] virtual bool pending() const = 0;
  // The INTA cycle; answers the vector, that of a spurious interrupt when the request went away. Takes the 8259's lock.
  virtual uint8_t acknowledge() = 0;
};

}  // namespace kite::devices
