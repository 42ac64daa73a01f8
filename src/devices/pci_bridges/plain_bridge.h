// Bridges to a conventional PCI bus with nothing of their own but the windows:
//   i82801b11-bridge  8086:244e, the DMI-to-PCI bridge of the ICH9
//   pci-bridge        1b36:0001, from PCI to PCI
//   pcie-pci-bridge   1b36:000e, from PCI Express to PCI
// [PCI bridge 1.2]; [ICH9] chapter 11 (of the 82801's subtractive decoding there is nothing: it decodes its windows).
#pragma once

#include <string>

#include "bus/pci.h"

namespace kite::devices {

class PlainBridge final : public bus::PciBridge {
 public:
  enum class Model : uint8_t { kI82801b11, kPciToPci, kPcieToPci };
  PlainBridge(std::string path, Model model, std::string bus_name);

  // Functions may come to its bus, and go from it, while the machine runs; a guest finds them when it looks.
  [[nodiscard]] bool takes_functions() const { return model_ != Model::kI82801b11; }

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  const Model model_;
};

}  // namespace kite::devices
