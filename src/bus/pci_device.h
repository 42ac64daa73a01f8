// One PCI function: configuration space, BARs, INTx, message-signalled interrupts, capabilities. [PCI 3.0], [PCIe 3.0].
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bus/device.h"
#include "bus/pci_config.h"
#include "bus/pci_regs.h"

namespace kite::bus {

class PciBridge;
class PciBus;

struct PciIds {
  uint16_t vendor = 0, device = 0;
  uint16_t subsystem_vendor = 0x1af4, subsystem = 0x1100;
  uint8_t revision = 0;
  uint32_t class_code = 0;  // 24 bits: class, subclass, programming interface
};

// Which configuration space a function has.
enum class PciHeader : uint8_t { kDevice, kBridge };
enum class PciGeneration : uint8_t { kConventional, kExpress };

// Device and port types of the Express capability. [PCIe 3.0] 7.8.2.
enum class PcieType : uint8_t { kEndpoint = 0, kRootPort = 4, kToPciBridge = 7, kIntegratedEndpoint = 9 };
struct PcieShape {
  uint8_t offset = 0xa0;  // takes 60 bytes
  PcieType type = PcieType::kEndpoint;
  uint8_t port = 0;   // link capabilities' port number
  bool slot = false;  // the port has a slot: kSlotStatus and what goes with it exist
};

// A part of a configuration space that acts by itself (MSI, MSI-X). The owner calls it with its configuration lock
// held.
class PciCapability {
 public:
  virtual ~PciCapability() = default;

 private:
  friend class PciDevice;
  virtual void config_written(uint16_t offset, unsigned size) = 0;
  // Bits to be ORed into a read; also called without the lock.
  virtual uint32_t overlay(uint16_t offset, unsigned size) = 0;
  virtual void reset() = 0;
  virtual void save(StateWriter& writer) = 0;
  // restore() reads and judges; apply() takes what was read, once everything was good.
  virtual void restore(StateReader& reader) = 0;
  virtual void apply() = 0;
};

class PciDevice : public Device {
 public:
  // Command, cache line size, latency timer and interrupt line writable, status errors write-one-to-clear. The deriving
  // constructor may change bytes and masks.
  PciDevice(std::string path, const PciIds& ids, PciHeader header = PciHeader::kDevice,
            PciGeneration generation = PciGeneration::kConventional);
  ~PciDevice() override;

  // Bus-facing; take the device's configuration lock.
  uint32_t config_read(uint16_t offset, unsigned size);
  void config_write(uint16_t offset, unsigned size, uint32_t value);
  [[nodiscard]] uint8_t devfn() const { return devfn_; }
  [[nodiscard]] PciBus* bus() const { return bus_; }
  [[nodiscard]] virtual PciBridge* as_bridge() { return nullptr; }

  // The loader of a machine without firmware assigns BARs through these. Sizes in bytes, 0: no such BAR.
  struct BarInfo {
    uint64_t size = 0;
    bool io = false;
    bool prefetchable = false;
    bool is_64 = false;
  };
  static constexpr unsigned kBars = 6;
  [[nodiscard]] BarInfo bar(unsigned index) const;
  // Where the guest has put it, whether or not decoding is on.
  [[nodiscard]] uint64_t bar_address(unsigned index);
  [[nodiscard]] uint8_t interrupt_pin() const;  // 0 none, 1 INTA..4 INTD
  // Says that the slot has functions besides function 0.
  void mark_multifunction();
  // The offset of the first capability with this id, 0: none.
  [[nodiscard]] uint8_t find_capability(uint8_t id);

  // Any thread: the function, and every bridge above it, may start transactions (bus master enable).
  [[nodiscard]] bool may_master() const;
  // Writes the message upstream; dropped (false) while may_master() is false or the bus has nowhere to send it.
  bool send_msi(uint64_t address, uint32_t data) const;

 protected:
  // Construction only: declares BAR `index` (0..5); the region is mapped where the guest puts it, while decoding is on.
  // Size 0 stands for the region's. A power of two, at least 4 for I/O and 16 for memory; a 64-bit BAR takes two
  // indices.
  void declare_bar(unsigned index, std::shared_ptr<Region> region, BarInfo info);
  // The same for the expansion ROM, at least 2 KiB. [PCI 3.0] 6.2.5.2.
  void declare_rom(std::shared_ptr<Region> region);
  void set_interrupt_pin(uint8_t pin);
  // Construction only: links a capability at `offset` (4-byte aligned, at or above 0x40) into the list, behind those
  // there are; its registers are the caller's to fill. Extended ones are for Express, the first at 0x100.
  void add_capability(uint8_t id, uint8_t offset);
  void add_extended_capability(uint16_t id, uint8_t version, uint16_t offset);
  // Construction only: a part of the deriving device's own that acts by itself; it lives as long as the device.
  void add_acting_capability(PciCapability& capability) { capabilities_.push_back(&capability); }
  // The Express capability with its identity and the registers that only keep what is written: device, link and root
  // control. Slot registers are the caller's. A link has one lane at 2.5 GT/s.
  void add_express_capability(const PcieShape& shape);
  // INTx of this function; honours the command register's interrupt disable, keeps the status bit. Any thread, with the
  // device's lock or the configuration lock held or not.
  void set_intx(bool level);
  // Called with the configuration lock held, after the standard part was done.
  virtual void config_written(uint16_t offset, unsigned size, uint32_t value) { (void)offset, (void)size, (void)value; }
  // The same when the whole configuration space counts anew: on a bus for the first time, after restore_config().
  virtual void config_loaded() {}
  // The same before it leaves its bus.
  virtual void leaving() {}
  // The writable and write-one-to-clear bits of the standard header back to 0, INTx low, capabilities that act by
  // themselves reset. The deriving reset() calls it and resets what else lies at 0x40 and above.
  void reset_config();
  // Fields 0xf000 and 0xf001 of the deriving device's section, and its capabilities' above them. restore_config()
  // rejects read-only bits that differ from this device's; it changes nothing unless everything read so far was good,
  // so the deriving restore() calls it after its own checks, as the last of the section.
  void save_config(StateWriter& writer);
  void restore_config(StateReader& reader);

  PciConfigSpace config_;
  std::mutex config_lock_;

 private:
  friend class PciBus;
  friend class MsiCapability;
  friend class MsixCapability;
  struct Bar {
    BarInfo info;
    std::shared_ptr<Region> region;
    uint8_t register_offset = 0;
    bool mapped = false;
    uint64_t address = 0;
  };
  static constexpr unsigned kRomBar = kBars;  // in bars_, behind the others
  // The following hold config_lock_.
  void update_bars();
  void unmap_bars();
  void command_changed();
  [[nodiscard]] uint64_t bar_value(unsigned index) const;
  [[nodiscard]] bool bar_target(unsigned index, uint64_t& address) const;
  void drive_intx(bool level, bool disabled);

  std::array<Bar, kBars + 1> bars_{};
  std::vector<PciCapability*> capabilities_;  // those that act by themselves
  PciBus* bus_ = nullptr;
  uint8_t devfn_ = 0;
  std::atomic<bool> bus_master_{false};  // of the command register; read without the lock
  std::mutex intx_mutex_;  // a leaf but for the buses' and the sink's: taken with a device's or the configuration lock
  bool intx_level_ = false;
  bool intx_disabled_ = false;
};

}  // namespace kite::bus
