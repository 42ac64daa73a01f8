// AtaDevice: a disk or CD-ROM drive behind an ATA interface, without knowledge of how it is attached: registers, the
// phases of a command, the buffer that programmed I/O goes through, requests to the drive. The transport (an IDE
// channel, an AHCI port) writes registers, moves the data that a phase asks for, and hears of progress through AtaHost.
//
// The transport's lock guards everything. Requests to the drive run without it and take it when they end. A reset while
// one is under way shows BSY until it has ended; its data then counts no more.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "async/task.h"
#include "bus/device.h"
#include "devices/ata/ata_regs.h"
#include "devices/storage/disk.h"
#include "devices/storage/sg_buffer.h"

namespace kite::devices {

class AtaDevice;

// The transport, as a device sees it. All with the transport's lock held.
class AtaHost {
 public:
  virtual ~AtaHost() = default;
  // Progress that no call of the transport's own brought about: a request to the drive ended, the machine runs again.
  virtual void ata_changed(AtaDevice& device) = 0;
  // The transfer of AtaDevice::dma() has ended: `moved` bytes; before the phase changes and before ata_changed().
  virtual void ata_dma_ended(AtaDevice& device, uint64_t moved) = 0;
  // A queued command has ended; `error` is the error register, 0 for none.
  virtual void ata_queued_ended(AtaDevice& device, uint8_t tag, uint8_t error) { (void)device, (void)tag, (void)error; }
};

struct AtaWiring {
  AtaHost& host;
  std::mutex& lock;
  bool serial = false;  // Serial ATA: queued commands, no transfer modes that matter
  unsigned unit = 0;    // for the serial number when none is given
};

class AtaDevice : public bus::Device {
 public:
  enum class Phase : uint8_t {
    kIdle,    // no command
    kIo,      // BSY: a request to the drive, described by State::io
    kPioIn,   // DRQ: the host reads the buffer
    kPioOut,  // DRQ: the host fills the buffer
    kDma,     // the host moves dma_wanted() bytes
  };
  static constexpr uint32_t kBufferBytes = 64 * 1024;

  AtaDevice(std::string path, DiskConfig config, AtaWiring wiring);
  ~AtaDevice() override;

  // --- the transport's side; all hold the lock

  // The registers. Writes while BSY are lost ([ATA8-APT] 6.2); command() starts what they say.
  void write_features(uint8_t value) { write_register(state_.regs.features, value); }
  void write_count(uint8_t value) { write_register(state_.regs.count, value); }
  void write_lba(unsigned index, uint8_t value) { write_register(state_.regs.lba[index], value); }
  void write_device(uint8_t value);
  void write_taskfile(const ata::Taskfile& regs) { state_.regs = regs; }
  void command(uint8_t opcode);
  [[nodiscard]] const ata::Taskfile& regs() const { return state_.regs; }
  [[nodiscard]] uint8_t status() const;
  [[nodiscard]] uint8_t error() const { return state_.error; }
  [[nodiscard]] Phase phase() const { return state_.phase; }
  // INTRQ. Reading the status register acknowledges.
  [[nodiscard]] bool interrupt() const { return state_.interrupt; }
  void acknowledge() { state_.interrupt = false; }
  [[nodiscard]] bool is_packet_device() const { return signature() == ata::kPacketSignature; }
  // The bytes of kPioOut are the 12 of a packet, not data.
  [[nodiscard]] bool wants_packet() const { return state_.phase == Phase::kPioOut && state_.packet_phase; }

  // kPioIn, kPioOut: what is left of the present DRQ block. After data was taken from its front, or put there, `bytes`
  // of it, pio_moved() goes on; the phase may then be any.
  [[nodiscard]] std::span<uint8_t> pio_block();
  void pio_moved(size_t bytes);

  // kDma without a transfer under way: the bytes to be moved, and where to.
  struct DmaWanted {
    bool to_host = false;
    uint64_t bytes = 0;
  };
  [[nodiscard]] std::optional<DmaWanted> dma_wanted() const;
  // Moves buffer.bytes(), at most what is wanted. Less ends the command, silently: the host had no more room or data.
  void dma(SgBuffer buffer);
  [[nodiscard]] bool dma_running() const { return state_.phase == Phase::kDma && issued_; }
  void fail_dma();  // the host could not
  void drop_dma();  // what goes to the host goes nowhere; what should come from it is an error

  // Software reset: BSY from assert on, until release and the end of what is under way. device_reset() is what the
  // commands DEVICE RESET and EXECUTE DEVICE DIAGNOSTIC do.
  void assert_reset();
  void release_reset();
  void run_diagnostic();
  // Forgets the command under way and queued ones; io_running() until their requests have ended.
  void abandon() { forget_requests(); }
  [[nodiscard]] bool resetting() const { return state_.reset_held || state_.reset_pending; }
  [[nodiscard]] bool reset_held() const { return state_.reset_held; }
  [[nodiscard]] bool io_running() const { return running_ != 0; }

  // --- the board's side; takes the lock
  void reset() override;
  void start() override;
  void save(StateWriter& writer) final;
  void restore(StateReader& reader) final;
  // Cancels what waits in the drive and waits for the rest. Not on the drive's executor; no lock held.
  void finish_requests();
  [[nodiscard]] const DiskConfig& config() const { return config_; }

 protected:
  enum class IoKind : uint8_t { kNone, kRead, kWrite, kVerify, kFlush, kTrim };
  struct Io {
    IoKind kind = IoKind::kNone;
    uint64_t block = 0;  // of block_bytes()
    uint32_t blocks = 0;
  };

  // What the deriving device is.
  [[nodiscard]] virtual uint16_t signature() const = 0;
  [[nodiscard]] virtual uint32_t block_bytes() const = 0;
  virtual void execute(uint8_t opcode) = 0;
  virtual void reset_device(bool power_on) = 0;  // state of the deriving class
  // The buffer of begin_pio_in() was read, of begin_pio_out() filled (by DMA as well).
  virtual void buffer_drained() = 0;
  virtual void buffer_filled() = 0;
  // A DRQ block of `bytes` begins.
  virtual void block_begins(size_t bytes) { (void)bytes; }
  // A request of start_io() has ended.
  virtual void io_done(const Io& io, int error) = 0;
  // A direct transfer has ended with all its blocks, or with `error`.
  virtual void direct_done(const Io& io, int error) = 0;
  // Fields 100 and up of the section. restore_device() reads and judges; accept_device() takes what was read over.
  virtual void save_device(StateWriter& writer) = 0;
  virtual void restore_device(StateReader& reader) = 0;
  virtual void accept_device() = 0;

  // How commands go on and end.
  void finish();                                                             // no error, with an interrupt
  void finish_silently();                                                    // the same without
  void abort(uint8_t error = ata::kAbrt);                                    // ERR
  void begin_pio_in(size_t bytes, size_t drq_block, bool interrupt = true);  // of the buffer
  void begin_pio_out(size_t bytes, size_t drq_block, bool interrupt);
  void begin_buffer_dma(size_t bytes, bool to_host);
  void begin_direct_dma(uint64_t block, uint32_t blocks, bool to_host, bool fua);
  void start_io(const Io& io);  // kIo: to or from the buffer's front
  [[nodiscard]] std::vector<uint8_t>& buffer() { return state_.buffer; }
  [[nodiscard]] block::Drive* drive() const { return config_.drive; }
  [[nodiscard]] uint64_t blocks() const { return drive() == nullptr ? 0 : drive()->length() / block_bytes(); }
  // A request beside the command (queued commands): its end calls AtaHost::ata_queued_ended() after queued_done().
  void start_queued(uint8_t tag, const Io& io, bool fua, SgBuffer data);
  virtual uint8_t queued_done(uint8_t tag, const Io& io, int error) {
    (void)tag, (void)io;
    return error == 0 ? uint8_t{0} : ata::kAbrt;
  }
  void set_signature();

  struct State {
    ata::Taskfile regs;
    uint8_t status = 0, error = 0;  // status without what the phase makes of it
    bool interrupt = false;
    uint8_t opcode = 0;
    Phase phase = Phase::kIdle;
    bool packet_phase = false;
    bool reset_held = false, reset_pending = false;
    std::vector<uint8_t> buffer = std::vector<uint8_t>(kBufferBytes);
    uint32_t at = 0, block_end = 0, end = 0, drq_block = 0;  // in the buffer: at <= block_end <= end
    Io io;                                                   // of kIo and of a direct kDma
    bool dma_direct = false, dma_to_host = false, fua = false;
  };
  // Whether a restored state, together with what restore_device() has read, could be this device's.
  [[nodiscard]] virtual bool possible(const State& state) const = 0;

  State state_;
  const DiskConfig config_;
  const AtaWiring wiring_;

 private:
  struct Request {
    Io io;
    bool fua = false;
    bool direct = false;         // with `data`; else the buffer
    std::optional<uint8_t> tag;  // queued
    SgBuffer data;
    uint64_t life = 0;
  };
  void write_register(ata::Register& reg, uint8_t value);
  void spawn(Request request);
  Task<void> run(Request request);
  Task<block::IoResult<>> perform(const Request& request);
  Task<block::IoResult<>> verify(const Request& request);
  Task<block::IoResult<>> trim(const Request& request);
  void ended(const Request& request, uint64_t bytes, int error);
  void move_buffer(SgBuffer& data);
  void next_block();
  void finish_reset();

  void forget_requests();

  uint64_t life_ = 0;     // counts resets: requests of an earlier life count no more
  unsigned running_ = 0;  // requests under way, of any life
  bool issued_ = false;   // one of them is for the present command
  TaskScope scope_;
};

}  // namespace kite::devices
