// MSI and MSI-X: the capabilities by which a function interrupts with messages. [PCI 3.0] 6.8. Members of the deriving
// device, constructed after its PciDevice part; the device calls notify(), everything else happens by itself.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bus/pci_device.h"
#include "memory/region.h"

namespace kite::bus {

class MsiCapability final : public PciCapability {
 public:
  struct Shape {
    uint8_t offset = 0x50;  // in the configuration space; takes bytes()
    uint8_t vectors = 1;    // 1, 2, 4, .. 32
    bool maskable = true;   // per-vector masking
  };
  MsiCapability(PciDevice& owner, const Shape& shape);
  [[nodiscard]] uint8_t bytes() const { return shape_.maskable ? 24 : 14; }

  // Any thread, with the device's lock or its configuration lock held or not.
  [[nodiscard]] bool enabled();
  // Sends the message of `vector`, or remembers it while it is masked. Nothing while MSI is off. Vectors beyond those
  // that software granted share the granted ones.
  void notify(unsigned vector);

 private:
  void config_written(uint16_t offset, unsigned size) override;
  uint32_t overlay(uint16_t offset, unsigned size) override;
  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;
  void apply() override;
  void load();  // from the configuration space; owner's configuration lock held
  void send(unsigned vector);

  // Static configuration and wiring.
  const Shape shape_;
  PciDevice& owner_;

  // State.
  std::mutex lock_;  // a leaf but for the sink's
  uint32_t pending_ = 0;
  uint32_t restored_pending_ = 0;
  // Derived from the configuration space.
  bool enabled_ = false;
  unsigned granted_ = 1;
  uint64_t address_ = 0;
  uint32_t data_ = 0, mask_ = 0;
};

class MsixCapability final : public PciCapability, private IoHandler {
 public:
  struct Shape {
    uint8_t offset = 0x70;  // in the configuration space; takes 12 bytes
    uint16_t vectors = 1;   // 1..2048
    uint8_t bar = 0;        // whose region holds table and pending bits
    uint32_t table = 0;     // offset in the BAR, a multiple of 8
    uint32_t pending = 0x800;
  };
  MsixCapability(PciDevice& owner, const Shape& shape);
  ~MsixCapability() override;
  // To be placed in the BAR's region, at Shape::table and Shape::pending.
  [[nodiscard]] const std::shared_ptr<Region>& table_region() const { return table_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& pending_region() const { return pending_region_; }

  // As MsiCapability's. A vector beyond the table is ignored.
  [[nodiscard]] bool enabled();
  void notify(unsigned vector);

 private:
  struct Entry {
    uint64_t address = 0;
    uint32_t data = 0;
    bool masked = true;
  };
  class PendingBits;
  void config_written(uint16_t offset, unsigned size) override;
  uint32_t overlay(uint16_t, unsigned) override { return 0; }
  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;
  void apply() override;
  uint64_t io_read(uint64_t offset, unsigned size) override;
  void io_write(uint64_t offset, unsigned size, uint64_t value) override;
  void load();
  // The following hold lock_.
  void fire_unmasked(unsigned vector);
  [[nodiscard]] bool deliverable(unsigned vector) const {
    return enabled_ && !function_masked_ && !entries_[vector].masked;
  }

  // Static configuration and wiring.
  const Shape shape_;
  PciDevice& owner_;
  std::unique_ptr<PendingBits> pending_bits_;
  std::shared_ptr<Region> table_region_, pending_region_;

  // State.
  std::mutex lock_;  // a leaf but for the sink's
  std::vector<Entry> entries_, restored_entries_;
  std::vector<uint8_t> pending_, restored_pending_;  // a byte a vector
  // Derived from the configuration space.
  bool enabled_ = false, function_masked_ = false;
};

}  // namespace kite::bus
