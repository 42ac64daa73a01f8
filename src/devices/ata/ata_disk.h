// AtaDisk: an ATA hard disk. [ATA8-ACS]: the general feature set, 48-bit addresses, multiple mode, DMA, power
// management, SMART, general purpose logging, TRIM, native command queuing when attached by Serial ATA.
// Cylinder-head-sector addresses with INITIALIZE DEVICE PARAMETERS for older software. Blocks are of 512 bytes.
//
// Programmed I/O moves up to 64 KiB between the drive and the buffer at once; an error is reported with the address
// where that piece began.
#pragma once

#include "devices/ata/ata_device.h"

namespace kite::devices {

class AtaDisk final : public AtaDevice {
 public:
  struct Config {
    DiskConfig disk;
    uint16_t rotation_rate = 0;  // per minute; 1: no rotating medium, 0: not told
  };
  // The drive has a medium that may be written. `first_sector`: see guess_geometry().
  AtaDisk(std::string path, Config config, AtaWiring wiring, std::span<const uint8_t> first_sector = {});

  // Queued commands [ATA8-ACS] 7.20, 7.61; the lock is held. Every tag below 32 is used once at a time.
  struct Queued {
    uint8_t tag = 0;
    bool write = false, fua = false;
    uint64_t block = 0;
    uint32_t blocks = 0;
  };
  // What the taskfile asks for; nothing (and the error, recorded for READ LOG EXT) when it cannot be.
  std::optional<Queued> parse_queued(uint8_t opcode, const ata::Taskfile& regs);
  // The data must be all that is asked for.
  void run_queued(const Queued& queued, SgBuffer data);
  // An error ends queued operation until the host has read the log or reset the device.
  [[nodiscard]] bool queue_failed() const { return disk_.queue_error.valid; }
  [[nodiscard]] uint8_t queued_error() const { return disk_.queue_error.error; }
  void fail_queued(uint8_t tag, const ata::Taskfile& regs, uint8_t error);

  [[nodiscard]] const DiskGeometry& geometry() const { return geometry_; }

 protected:
  [[nodiscard]] uint16_t signature() const override { return ata::kDiskSignature; }
  [[nodiscard]] uint32_t block_bytes() const override { return ata::kSectorBytes; }
  void execute(uint8_t opcode) override;
  void reset_device(bool power_on) override;
  void buffer_drained() override;
  void buffer_filled() override;
  void io_done(const Io& io, int error) override;
  void direct_done(const Io& io, int error) override;
  uint8_t queued_done(uint8_t tag, const Io& io, int error) override;
  void save_device(StateWriter& writer) override;
  void restore_device(StateReader& reader) override;
  void accept_device() override;
  [[nodiscard]] bool possible(const State& state) const override;

 private:
  using Handler = void (AtaDisk::*)();
  struct Command;
  static const Command kCommands[];
  static constexpr uint8_t kMostMultiple = 16;
  static constexpr uint8_t kQueueDepth = 32;
  static constexpr uint32_t kBufferSectors = kBufferBytes / ata::kSectorBytes;

  // Where a command works, how the address is written.
  struct Range {
    uint64_t block = 0;
    uint32_t blocks = 0;
  };
  [[nodiscard]] bool extended() const;  // the opcode has 48-bit parameters
  [[nodiscard]] uint32_t count() const;
  [[nodiscard]] std::optional<uint64_t> address() const;
  std::optional<Range> range();  // aborts the command when it reaches outside of the disk
  void set_address(uint64_t block);
  void fail_at(uint64_t block, bool write, int error);

  // Commands.
  void nop() { abort(); }
  void ready() { finish(); }
  void read_sectors();
  void write_sectors();
  void read_multiple();
  void write_multiple();
  void read_dma();
  void write_dma();
  void verify();
  void seek();
  void recalibrate();
  void flush();
  void initialize_parameters();
  void set_multiple();
  void set_features();
  void set_transfer_mode(uint8_t mode);
  void read_native_max();
  void identify();
  void read_buffer();
  void write_buffer();
  void data_set_management();
  void trim_ranges();
  void standby();
  void idle();
  void check_power();
  void smart_command();
  void smart_read_log();
  void smart_self_test();
  void read_log();
  void begin_pio(bool write, uint32_t drq_sectors);
  void read_chunk();
  void expect_chunk(bool first);
  // Sends one or more pages that were put into the buffer.
  void offer_pages(size_t pages, bool by_dma);

  // Data structures of 512 bytes.
  using Page = std::array<uint8_t, ata::kSectorBytes>;
  [[nodiscard]] Page identify_page() const;
  void identify_features(Page& page) const;
  [[nodiscard]] Page smart_data() const;
  [[nodiscard]] Page smart_thresholds() const;
  [[nodiscard]] Page self_test_log() const;
  [[nodiscard]] Page queued_error_log() const;

  // Static configuration.
  const uint16_t rotation_rate_;
  const bool write_cache_at_start_;
  std::string serial_, model_, version_;
  DiskGeometry geometry_;

  // State, besides AtaDevice's.
  struct QueueError {  // log page 10h. [ATA8-ACS] A.7
    bool valid = false;
    uint8_t tag = 0, status = 0, error = 0, device = 0;
    uint64_t block = 0;
    uint16_t count = 0;
  };
  struct SelfTest {
    uint8_t number = 0, status = 0;
  };
  struct DiskState {
    uint32_t heads = 0, sectors = 0;  // of the present translation
    uint8_t multiple = 0;             // sectors of a DRQ block; 0: multiple mode is off
    uint8_t transfer_mode = 0;        // as SET FEATURES names it
    bool write_cache = true, look_ahead = true, revert = true;
    bool standby = false;
    bool smart = true, smart_autosave = true, auto_offline = false;
    std::array<SelfTest, 4> self_tests{};  // the latest first; number 0: none
    // The command under way: what is left from `next` on.
    uint64_t next = 0;
    uint32_t left = 0;
    QueueError queue_error;
  };
  DiskState disk_;
  DiskState restored_;
};

}  // namespace kite::devices
