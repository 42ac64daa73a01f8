// Floppy disk controller: an 82078 in AT mode at 0x3f0-0x3f5 and 0x3f7, with two drives. [82077AA], [82078].
//
// Seeks take no time. A transfer reads all of its sectors before the host gets the first byte, and has all of the
// host's bytes before it writes the first sector; the main status register shows "busy" while the disk is at work.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/task.h"
#include "bus/device.h"
#include "devices/fdc/fdc_regs.h"
#include "devices/fdc/floppy_format.h"
#include "devices/i8237/i8237.h"
#include "devices/io_window.h"
#include "devices/storage/disk_bus.h"
#include "devices/storage/removable.h"

namespace kite::devices {

class Fdc final : public bus::Device, private DmaClient {
 public:
  static constexpr unsigned kDrives = 2;
  struct Config {
    std::string bus_name = "floppy-bus.0";
    unsigned dma_channel = 2;
    FloppyType fallback = FloppyType::k288;  // of a drive of no given type without a disk
    bool check_rate = true;                  // a disk is read only at its own data rate
  };
  struct Wiring {
    bus::IrqLine irq;
    I8237* dma = nullptr;  // outlives the controller; null: none, every transfer is the processor's
  };
  Fdc(std::string path, Config config, const Wiring& wiring);
  ~Fdc() override;

  void reset() override;
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // Ports: 6 bytes at the base, 1 byte at base + 7.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return low_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& input_region() const { return high_region_; }
  [[nodiscard]] DiskBus& drive_bus();
  // What CMOS tells of the drives: A in [7:4], B in [3:0].
  [[nodiscard]] uint8_t cmos_types();

 private:
  class FloppyDrive;
  class DriveBus;
  enum class Phase : uint8_t { kCommand, kLoading, kToHost, kFromHost, kStoring, kResult };
  // A sector by its place on the disk.
  struct Place {
    uint8_t track = 0, head = 0, sector = 1;
  };
  static constexpr size_t kMostBytes = 17;  // of a command
  struct State {
    uint8_t dor = fdc_regs::kDorNotReset | fdc_regs::kDorDma;
    uint8_t tdr = 0, dsr = 0;
    Phase phase = Phase::kCommand;
    bool resetting = false;  // a reset waits for the disk
    std::array<uint8_t, kMostBytes> command{};
    uint8_t command_bytes = 0;
    std::array<uint8_t, kMostBytes> result{};
    uint8_t result_bytes = 0, result_at = 0;
    // The transfer: its sectors, and the bytes between disk and host.
    Place first;
    uint16_t sectors = 0;
    std::vector<uint8_t> data;
    uint32_t data_at = 0;
    bool cut_short = false;  // the sectors ended before the DMA controller's count
    // What commands set.
    uint8_t specify1 = 0, specify2 = 0, last_count = 0;
    uint8_t config = fdc_regs::kImpliedSeek | fdc_regs::kFifoOff, precompensation = 0, perpendicular = 0;
    uint8_t power = 0, options = 0;
    bool locked = false;
    // Interrupts that SENSE INTERRUPT STATUS tells of.
    uint8_t reset_senses = 0;            // drives that are yet to be told of after a reset
    std::array<uint8_t, 4> seek_ends{};  // ST0 by drive; 0: none
    bool irq = false;
  };

  // fdc.cc
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_input(uint64_t offset, unsigned size);
  void write_rate(uint64_t offset, unsigned size, uint64_t value);
  void dma_ready() override;
  // Everything below holds lock_, but for the coroutines.
  [[nodiscard]] uint8_t main_status() const;
  [[nodiscard]] uint8_t status_a() const;
  void write_dor(uint8_t value);
  uint8_t read_fifo();
  void write_fifo(uint8_t value);
  void begin_reset();
  void end_reset();
  void set_irq(bool level);
  [[nodiscard]] FloppyDrive* drive(unsigned unit) const { return unit < kDrives ? drives_[unit] : nullptr; }
  [[nodiscard]] bool uses_dma() const;

  // fdc_commands.cc
  void execute();
  void give_result(std::initializer_list<uint8_t> bytes);
  void invalid();
  void sense_interrupt();
  void sense_drive_status();
  void seek_to(unsigned unit, uint8_t track);
  void recalibrate();
  void relative_seek();
  void configure();
  void dump_registers();
  void save_registers();
  void restore_registers();
  void read_id();

  // fdc_transfer.cc
  void transfer();
  void format_track();
  void begin(Place first, unsigned sectors);
  [[nodiscard]] Place next_place(const Place& place) const;
  [[nodiscard]] Place last_place(unsigned sectors) const;
  // [first, first + count) of blocks on the disk.
  struct Run {
    uint64_t block = 0;
    uint32_t count = 0;
  };
  [[nodiscard]] std::vector<Run> runs(unsigned sectors) const;
  [[nodiscard]] std::vector<Run> formatted() const;
  void load();
  void store();
  Task<void> load_sectors(uint32_t life, block::Drive& drive, std::vector<Run> runs, size_t bytes);
  Task<void> store_sectors(uint32_t life, block::Drive& drive, std::vector<Run> runs, std::vector<uint8_t> data);
  bool disk_done(uint32_t life);
  void loaded(uint32_t life, bool good, std::vector<uint8_t> data);
  void stored(uint32_t life, bool good);
  void pump();
  void host_done(bool terminal_count);
  void end_of_data();
  void finish(unsigned sectors, uint8_t st0, uint8_t st1, uint8_t st2);
  void fail_transfer(uint8_t st1, uint8_t st2);

  // fdc_saved.cc
  struct Saved;
  template <class Codec>
  friend void visit(Codec& codec, Fdc::Saved& wire);
  static bool possible(const Saved& wire);

  // Static configuration.
  const Config config_;

  // Wiring.
  const Wiring wiring_;
  IoWindow<Fdc> low_window_, high_window_;
  std::shared_ptr<Region> low_region_, high_region_;
  std::unique_ptr<DriveBus> bus_;
  std::array<FloppyDrive*, kDrives> drives_{};

  // State.
  std::mutex lock_;
  State state_;
  // Derived, or about the present run only.
  uint32_t life_ = 0;       // grows with every reset
  unsigned under_way_ = 0;  // tasks that have not ended
  bool stopped_ = false;

  TaskScope tasks_;
};

}  // namespace kite::devices
