// IdeChannel: one parallel ATA channel of a PCI IDE controller: the command and control block that both its devices
// share, the interrupt, and the bus master that moves their data. [ATA8-APT]; [BMIDE] Programming Interface for Bus
// Master IDE Controller, revision 1.0.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "bus/irq_line.h"
#include "devices/ata/ata_bus.h"
#include "devices/io_window.h"
#include "memory/guest_memory.h"

namespace kite::devices {

// The registers of one bus master. [BMIDE] 2
namespace bus_master {
inline constexpr uint64_t kCommand = 0, kStatus = 2, kTable = 4;  // table: 32 bits
inline constexpr uint64_t kSize = 8;
inline constexpr uint8_t kStart = 0x01, kToMemory = 0x08;
inline constexpr uint8_t kActive = 0x01, kError = 0x02, kInterrupt = 0x04, kCapable = 0x60;
inline constexpr uint32_t kLastEntry = 0x8000'0000;
inline constexpr uint32_t kMostEntries = 0x10000 / 8;  // a table lies within 64 KiB
}  // namespace bus_master

class IdeChannel final : private AtaHost {
 public:
  struct Wiring {
    GuestMemory& memory;
    bus::IrqLine irq;
    std::string bus_name;
    std::function<bool()> may_master;  // the function may start transactions
  };
  IdeChannel(unsigned number, Wiring wiring);

  // 8 ports, and 1 port: device control and alternate status.
  [[nodiscard]] const std::shared_ptr<Region>& command_region() const { return command_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& control_region() const { return control_region_; }
  uint64_t read_bus_master(uint64_t offset, unsigned size);
  void write_bus_master(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] AtaBus& bus() { return bus_; }

  void reset();
  void start();

  // All of it is saved; the devices save themselves.
  struct State {
    uint8_t selected = 0;  // device 0 or 1
    uint8_t control = 0;   // device control: nIEN, SRST, HOB
    uint8_t master_command = 0, master_status = 0;
    uint32_t table = 0;
    bool stopping = false;         // stopped by the guest, a transfer has not ended yet
    bool engaged = false;          // has moved data since it was started
    bool exhausted = false;        // the whole table was used
    uint32_t entry = 0, used = 0;  // where the next byte goes: place in the table, bytes into its entry
    bool irq_level = false;
  };
  [[nodiscard]] State snapshot();
  [[nodiscard]] static bool possible(const State& state);
  void restore(const State& state);

 private:
  // Ports; they take the lock.
  uint64_t read_command(uint64_t offset, unsigned size);
  void write_command(uint64_t offset, unsigned size, uint64_t value);
  size_t read_command_many(uint64_t offset, unsigned size, std::span<uint8_t> to);
  size_t write_command_many(uint64_t offset, unsigned size, std::span<const uint8_t> from);
  uint64_t read_control(uint64_t offset, unsigned size);
  void write_control(uint64_t offset, unsigned size, uint64_t value);

  // AtaHost. These and the rest hold the lock.
  void ata_changed(AtaDevice& device) override;
  void ata_dma_ended(AtaDevice& device, uint64_t moved) override;

  [[nodiscard]] AtaDevice* selected() const { return bus_.unit(state_.selected); }
  template <class Do>
  void for_devices(Do what) {
    for (unsigned i = 0; i < bus_.units(); ++i)
      if (AtaDevice* device = bus_.unit(i)) what(*device);
  }
  [[nodiscard]] bool moving();  // a transfer is under way
  uint64_t read_data(unsigned size);
  void write_data(unsigned size, uint64_t value);
  uint8_t read_register(uint64_t index);
  void write_register(uint64_t index, uint8_t value);
  void write_device_register(uint8_t value);
  void run_command(uint8_t opcode);
  void write_master_command(uint8_t value);
  [[nodiscard]] uint8_t master_byte(uint64_t offset) const;
  void write_master_byte(uint64_t offset, uint8_t value);
  // What follows from any change: transfers begin and end, the interrupt line.
  void follow();
  void run_master();
  void fail_master(AtaDevice& device);
  void settle_master();
  void drive_irq();
  // The pieces of memory for the next `bytes` of a transfer; fewer where the table ends.
  Result<std::vector<SgEntry>> collect(uint64_t bytes);

  // Wiring.
  Wiring wiring_;
  IoWindow<IdeChannel> command_ports_, control_port_;
  std::shared_ptr<Region> command_region_, control_region_;

  // State.
  std::mutex lock_;
  AtaBus bus_;
  State state_;
  // Where in the table the transfer under way began: what a saved state has, as restoring begins it again.
  uint32_t begun_entry_ = 0, begun_used_ = 0;
};

}  // namespace kite::devices
