// AhciPort: one port of an AHCI adapter: its registers, the engine that fetches commands from the list and moves their
// data, the FISes that it writes to memory. The adapter's lock guards it. [AHCI] 3.3, 5.
//
// Interrupts of single PRDs (DPS) and of DMA Setup FISes are not raised: the FIS that ends the command always is.
#pragma once

#include <cstdint>
#include <mutex>

#include "devices/ata/ata_bus.h"
#include "memory/guest_memory.h"

namespace kite::devices {

class AtaDisk;

class AhciPort final : private AtaHost {
 public:
  struct Wiring {
    GuestMemory& memory;
    std::mutex& lock;
    std::function<void()> changed;     // interrupt status or reset progress, lock held
    std::function<bool()> may_master;  // the function may start transactions
  };
  AhciPort(AtaBus::Config bus, Wiring wiring);

  [[nodiscard]] AtaBus& bus() { return bus_; }

  // All hold the lock from here on.
  [[nodiscard]] uint32_t read(uint64_t offset) const;
  void write(uint64_t offset, uint32_t value);
  [[nodiscard]] bool interrupts() const { return (state_.is & state_.ie) != 0; }
  // The adapter's reset: registers at once; busy() until the device's requests have ended.
  void reset_adapter();
  void reset_power();
  [[nodiscard]] bool busy() const;
  void start();  // the machine runs (again)

  struct State {
    uint64_t clb = 0, fb = 0;
    uint32_t is = 0, ie = 0, cmd = 0, tfd = 0, sig = 0, sctl = 0, serr = 0, sact = 0, ci = 0;
    bool signature_due = false;  // the FIS after a reset waits for PxCMD.FRE and the device
    bool halted = false;         // an error stopped the engine until PxCMD.ST is cleared
    bool running = false;        // the command of `slot` is under way
    uint8_t slot = 0;
    uint32_t entry = 0, used = 0;  // how far its PRDT was used
    uint32_t moved = 0;            // PRDBC
    uint32_t queued = 0;           // tags that the device has accepted
  };
  [[nodiscard]] State snapshot() const;
  [[nodiscard]] static bool possible(const State& state);
  void restore(const State& state);

 private:
  struct Header {
    uint16_t flags = 0, prdt_length = 0;
    uint64_t table = 0;
  };

  void ata_changed(AtaDevice& device) override;
  void ata_dma_ended(AtaDevice& device, uint64_t moved) override;
  void ata_queued_ended(AtaDevice& device, uint8_t tag, uint8_t error) override;

  [[nodiscard]] AtaDevice* device() const { return bus_.unit(0); }
  void device_changed();
  void write_cmd(uint32_t value);
  void write_sctl(uint32_t value);
  void stop_engine();
  void settle();  // what waits for the end of requests, or for a place to put it
  // Fetches commands while there are some and none is under way.
  void process();
  bool fetch(unsigned slot);  // false: the command stays where it is for now
  [[nodiscard]] Result<Header> header(unsigned slot) const;
  void control(unsigned slot, uint8_t control);
  void begin(unsigned slot, uint8_t opcode, const ata::Taskfile& regs);
  void begin_queued(unsigned slot, const Header& header, uint8_t opcode, const ata::Taskfile& regs);
  bool run_queued(const Header& header, AtaDisk& disk, uint8_t opcode, const ata::Taskfile& regs);
  void resume_queued();
  void fail_queued(uint8_t error);
  // Moves data for the command under way until it waits or ends.
  void pump();
  void move_pio(AtaDevice& device);
  void move_dma(AtaDevice& device, uint64_t bytes, bool to_host);
  void complete(AtaDevice& device);
  void halt(uint32_t interrupt);
  // The memory of the next `bytes` of a PRDT from `entry` and `used` on, which it moves.
  Result<std::vector<SgEntry>> collect(const Header& header, uint64_t bytes, uint32_t& entry, uint32_t& used) const;

  // FISes.
  void post(uint64_t place, std::span<const uint8_t> fis);
  void post_d2h(const AtaDevice& device, bool interrupt);
  void post_pio_setup(const AtaDevice& device, bool to_host, uint8_t before, bool interrupt, size_t bytes);
  void post_device_bits(uint8_t status, uint8_t error, uint32_t done);
  void post_dma_setup(bool to_host, uint8_t tag, uint64_t bytes);
  void set_tfd(uint8_t status, uint8_t error) { state_.tfd = uint32_t{error} << 8 | status; }

  // Wiring.
  Wiring wiring_;

  // State.
  AtaBus bus_;
  State state_;
  uint32_t begun_entry_ = 0, begun_used_ = 0;  // where in the PRDT the transfer under way began
  uint32_t issued_ = 0;                        // of State::queued, those that are with the drive
  bool in_pump_ = false;                       // not saved: guards against calls back
  bool stopping_ = false;                      // PxCMD.CR stays until what is under way has ended
};

}  // namespace kite::devices
