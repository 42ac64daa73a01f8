// AtapiCdrom: a CD/DVD-ROM drive that takes packet commands. [ATA8-ACS] 4.3 for the carrying of packets, [MMC-6] and
// storage/mmc.h for the commands, [SFF-8020i] for what older software believes.
//
// A medium that was put in while the guest ran shows as no medium once, then as a unit attention, then as ready: so
// every guest notices. There is none of power-on.
#pragma once

#include "devices/ata/ata_device.h"
#include "devices/storage/mmc.h"
#include "devices/storage/removable.h"

namespace kite::devices {

class AtapiCdrom final : public AtaDevice, public Removable {
 public:
  // `config.drive` may be null: there is never a medium.
  AtapiCdrom(std::string path, DiskConfig config, AtaWiring wiring);

  // Removable.
  [[nodiscard]] bool has_tray() const override { return true; }
  [[nodiscard]] bool tray_open() override;
  [[nodiscard]] bool locked() override;
  void request_eject() override;
  void set_tray(bool open) override;
  void medium_changed() override;

 protected:
  [[nodiscard]] uint16_t signature() const override { return ata::kPacketSignature; }
  [[nodiscard]] uint32_t block_bytes() const override { return mmc::kSectorBytes; }
  void execute(uint8_t opcode) override;
  void reset_device(bool power_on) override;
  void buffer_drained() override;
  void buffer_filled() override;
  void block_begins(size_t bytes) override;
  void io_done(const Io& io, int error) override;
  void direct_done(const Io& io, int error) override;
  void save_device(StateWriter& writer) override;
  void restore_device(StateReader& reader) override;
  void accept_device() override;
  [[nodiscard]] bool possible(const State& state) const override;

 private:
  using Handler = void (AtapiCdrom::*)();
  struct Packet {
    uint8_t opcode;
    bool needs_medium;  // and tells of a changed one
    Handler handler;
  };
  static const Packet kPackets[];
  static constexpr size_t kPacketBytes = 12;
  static constexpr uint32_t kBufferSectors = kBufferBytes / mmc::kSectorBytes;
  static constexpr uint32_t kBufferRawSectors = kBufferBytes / mmc::kRawSectorBytes;

  [[nodiscard]] mmc::Drive disc() const;
  [[nodiscard]] bool medium() const { return drive() != nullptr && drive()->has_medium(); }
  void begin_packet();
  void identify();
  void set_features();
  void refuse_disk_command();

  void run_packet();
  void done();
  void check(ScsiSense sense);
  // Sends an answer, at most `allocated` bytes of it.
  void reply(std::span<const uint8_t> bytes, size_t allocated);
  void reply(const mmc::Answer& answer, size_t allocated);
  [[nodiscard]] size_t drq_bytes() const;  // 0: the host allows none
  void send_buffer(size_t bytes);
  void read_blocks(uint64_t first, uint64_t count);
  void read_chunk();
  void move_tray(bool open);

  // Packet commands.
  void test_unit_ready() { done(); }
  void request_sense();
  void inquiry();
  void start_stop();
  void prevent_allow();
  void read_capacity();
  void read_10();
  void read_12();
  void seek();
  void read_sub_channel();
  void read_toc();
  void get_configuration();
  void event_status();
  void disc_information();
  void track_information();
  void mode_select();
  void mode_select_data();
  void mode_sense();
  void get_performance();
  void disc_structure();
  void read_cd();
  void mechanism_status();
  void set_speed() { done(); }

  // Static configuration.
  std::string serial_, model_, version_;

  // State, besides AtaDevice's.
  enum class Changed : uint8_t { kNo, kTellAbsent, kTellAttention };
  struct CdState {
    uint8_t transfer_mode = 0x45;  // ultra DMA 5
    bool standby = false;
    bool tray_open = false, locked = false;
    Changed changed = Changed::kNo;
    mmc::MediaEvent event = mmc::MediaEvent::kNone;
    ScsiSense sense;
    // The packet under way.
    std::array<uint8_t, kPacketBytes> packet{};
    bool use_dma = false;
    uint16_t byte_limit = 0;
    mmc::ReadCd parts;  // of a sector; used while `framed`
    bool framed = false;
    uint64_t next = 0;  // sectors left to read
    uint32_t left = 0;
  };
  CdState cd_;
  CdState restored_;
};

}  // namespace kite::devices
