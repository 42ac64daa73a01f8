#include "devices/pci_bridges/plain_bridge.h"

#include "devices/section.h"

namespace kite::devices {

namespace {

constexpr uint8_t kExpressOffset = 0x90;

struct PlainBridgeV1 {
  static constexpr uint32_t kVersion = 1;
};
template <class Codec>
void visit(Codec&, PlainBridgeV1&) {}

bus::PciIds ids_of(PlainBridge::Model model) {
  switch (model) {
    case PlainBridge::Model::kI82801b11:
      return {.vendor = 0x8086, .device = 0x244e, .revision = 0x92, .class_code = 0x060400};
    case PlainBridge::Model::kPcieToPci:
      return {.vendor = 0x1b36, .device = 0x000e, .revision = 0x00, .class_code = 0x060400};
    case PlainBridge::Model::kPciToPci: break;
  }
  return {.vendor = 0x1b36, .device = 0x0001, .revision = 0x00, .class_code = 0x060400};
}

}  // namespace

PlainBridge::PlainBridge(std::string path, Model model, std::string bus_name)
    : PciBridge(std::move(path), ids_of(model),
                model == Model::kPcieToPci ? bus::PciGeneration::kExpress : bus::PciGeneration::kConventional,
                {.name = std::move(bus_name)}),
      model_(model) {
  if (model == Model::kPcieToPci)
    add_express_capability({.offset = kExpressOffset, .type = bus::PcieType::kToPciBridge});
}

void PlainBridge::reset() {
  reset_bridge();
  const std::lock_guard lock(config_lock_);
  for (unsigned i = kExpressOffset; i < kExpressOffset + 0x3cu; ++i)
    config_.bytes[i] = static_cast<uint8_t>(config_.bytes[i] & ~(config_.writable[i] | config_.clear_on_one[i]));
}

void PlainBridge::save(StateWriter& writer) {
  save_section(writer, path(), PlainBridgeV1{}, [&] { save_config(writer); });
}

void PlainBridge::restore(StateReader& reader) {
  PlainBridgeV1 wire{};
  restore_section(reader, path(), wire, [&] { restore_config(reader); });
}

}  // namespace kite::devices
