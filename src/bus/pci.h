// PCI: configuration space, BARs, INTx routing. [PCI 3.0]; configuration mechanism 1 lives in the host bridge
// (devices/i440fx), which calls PciBus::config_read/write.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bus/device.h"
#include "bus/pci_regs.h"

namespace kite::bus {

class PciBus;

struct PciIds {
  uint16_t vendor = 0, device = 0;
  uint16_t subsystem_vendor = 0x1af4, subsystem = 0x1100;
  uint8_t revision = 0;
  uint32_t class_code = 0;  // 24 bits: class, subclass, programming interface
};

// The 256 bytes of a function's configuration space with their masks. Pure chip: knows no bus. `size` is 1, 2 or 4 at
// any offset; what would reach beyond byte 255 reads all ones and is not written.
struct PciConfigSpace {
  std::array<uint8_t, 256> bytes{};
  std::array<uint8_t, 256> writable{};
  std::array<uint8_t, 256> clear_on_one{};
  std::array<uint8_t, 256> own{};  // bits that the device changes by itself: a restored state may hold any value
  [[nodiscard]] uint32_t read(uint8_t offset, unsigned size) const;
  void write(uint8_t offset, unsigned size, uint32_t value);
  void set16(uint8_t offset, uint16_t value);
  void set32(uint8_t offset, uint32_t value);
  [[nodiscard]] uint16_t get16(uint8_t offset) const;
  [[nodiscard]] uint32_t get32(uint8_t offset) const;
};

class PciDevice : public Device {
 public:
  // Standard header type 0: command, cache line size, latency timer, interrupt line writable, status errors
  // write-one-to-clear. The deriving constructor may change bytes and masks.
  PciDevice(std::string path, const PciIds& ids);

  // Bus-facing; take the device's configuration lock.
  uint32_t config_read(uint8_t offset, unsigned size);
  void config_write(uint8_t offset, unsigned size, uint32_t value);
  [[nodiscard]] uint8_t devfn() const { return devfn_; }
  [[nodiscard]] PciBus* bus() const { return bus_; }

  // The loader of a machine without firmware assigns BARs through these. Sizes in bytes, 0: no such BAR.
  struct BarInfo {
    uint64_t size = 0;
    bool io = false;
    bool prefetchable = false;
    bool is_64 = false;
  };
  [[nodiscard]] BarInfo bar(unsigned index) const;
  [[nodiscard]] uint8_t interrupt_pin() const;  // 0 none, 1 INTA..4 INTD

 protected:
  // Construction only: declares BAR `index` (0..5); the region is mapped where the guest puts it, while decoding is on.
  // Size 0 stands for the region's. A power of two, at least 4 for I/O and 16 for memory; a 64-bit BAR takes two
  // indices.
  void declare_bar(unsigned index, std::shared_ptr<Region> region, BarInfo info);
  void set_interrupt_pin(uint8_t pin);
  // INTx of this function; honours the command register's interrupt disable, keeps the status bit. Any thread, with the
  // device's lock or the configuration lock held or not.
  void set_intx(bool level);
  // Called with the configuration lock held, after the standard part was done.
  virtual void config_written(uint8_t offset, unsigned size, uint32_t value) { (void)offset, (void)size, (void)value; }
  // The writable and write-one-to-clear bits of the standard header back to 0, INTx low. The deriving reset() calls it
  // and resets what lies at 0x40 and above.
  void reset_config();
  // Fields 0xf000 and 0xf001 of the deriving device's section. restore_config() rejects read-only bits that differ from
  // this device's; it changes nothing unless everything read so far was good, so the deriving restore() calls it after
  // its own checks, as the last of the section.
  void save_config(StateWriter& writer);
  void restore_config(StateReader& reader);

  PciConfigSpace config_;
  std::mutex config_lock_;

 private:
  friend class PciBus;
  struct Bar {
    BarInfo info;
    std::shared_ptr<Region> region;
    bool mapped = false;
    uint64_t address = 0;
  };
  void update_bars();
  [[nodiscard]] bool bar_target(unsigned index, uint64_t& address) const;
  void drive_intx(bool level, bool disabled);

  std::array<Bar, 6> bars_{};
  PciBus* bus_ = nullptr;
  uint8_t devfn_ = 0;
  std::mutex intx_mutex_;  // a leaf but for the bus's and the sink's: taken with a device's or the configuration lock
  bool intx_level_ = false;
  bool intx_disabled_ = false;
};

class PciBus {
 public:
  // BARs land in `memory` and `ports` (containers, which outlive the bus); pirq_of() names the line of `intx`
  // (PIRQA..D) that an INTx pin drives; shared lines are ORed here.
  PciBus(Region& memory, Region& ports, IrqSink& intx);

  // Pin 1..4 of a slot on this bus: 0 PIRQA .. 3 PIRQD. The pins rotate from slot to slot, as 440FX boards are wired.
  [[nodiscard]] static unsigned pirq_of(uint8_t slot, uint8_t pin) { return (slot + pin + 2u) & 3u; }

  // Before the machine runs. The device outlives the bus.
  Result<> attach(PciDevice& device, uint8_t slot, uint8_t function);
  [[nodiscard]] PciDevice* find(uint8_t devfn) const;
  [[nodiscard]] std::vector<PciDevice*> devices() const;  // by devfn
  [[nodiscard]] Result<uint8_t> free_slot() const;

  // All ones where there is no device.
  uint32_t config_read(uint8_t bus, uint8_t devfn, uint8_t offset, unsigned size);
  void config_write(uint8_t bus, uint8_t devfn, uint8_t offset, unsigned size, uint32_t value);

 private:
  friend class PciDevice;
  void set_intx(uint8_t devfn, uint8_t pin, bool level);
  void mark_multifunction(uint8_t slot);

  Region& memory_;
  Region& ports_;
  IrqSink& intx_;
  std::array<PciDevice*, 256> devices_{};
  std::mutex intx_lock_;
  std::array<std::array<uint64_t, 4>, 4> asserted_{};  // per PIRQ: one bit a function
};

}  // namespace kite::bus
