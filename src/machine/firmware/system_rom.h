// SystemRom: the firmware below 4 GiB, which the first instruction after a reset comes from. A ROM image from a file
// (-bios, or SeaBIOS) or one or two flash chips (-drive if=pflash); its last 128 KiB also show at the end of the first
// MiB of PCI memory, where the host bridge's PAM registers let them through.
//
// Both PC boards use it:
//   KITE_ASSIGN(system_rom_, SystemRom::create({.config = config.firmware, .system_memory = ..., .isa_memory = ...,
//                                               .use = SystemRom::use_of(config, accelerator executes)}));
//   chips(): among the board's devices; starts(): whether the machine starts with the firmware.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bus/device.h"
#include "devices/pflash/pflash.h"
#include "machine/machine_config.h"
#include "memory/region.h"
#include "support/result.h"

namespace kite::machine {

class SystemRom {
 public:
  enum class Use : uint8_t {
    kNone,      // a kernel is started directly: no firmware is wanted
    kIfThere,   // tests without a CPU: the default image when it is installed
    kRequired,  // the machine starts with it
  };
  struct Wiring {
    const FirmwareConfig& config;
    Region& system_memory;  // the chips end at 4 GiB of it
    Region& isa_memory;     // PCI memory: the last 128 KiB end at 1 MiB of it
    Use use = Use::kRequired;
    bool secure_flash = false;  // the chips are ROM but in system management mode: show_in()
    bool incoming = false;      // the chips' files are another process's until they are claimed
  };
  // The use that the command line asks for: firmware unless a kernel is given; with a kernel only when firmware is
  // named (-bios, -drive if=pflash) or a VGA card wants to be set up; it then starts the kernel through an option ROM.
  [[nodiscard]] static Use use_of(const MachineConfig& config);

  // Fails when the image cannot be read or has a size that cannot be mapped.
  static Result<std::unique_ptr<SystemRom>> create(const Wiring& wiring);
  ~SystemRom();
  SystemRom(const SystemRom&) = delete;
  SystemRom& operator=(const SystemRom&) = delete;

  // Whether there is firmware, so that the board leaves the chipset to it.
  [[nodiscard]] bool starts() const { return bytes_ != 0; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }  // mapped below 4 GiB, all chips together
  [[nodiscard]] std::vector<devices::Pflash*> chips() const;
  // With Wiring::secure_flash: the chips, in what a CPU in system management mode sees over the rest of memory. Fails
  // when `smram` is null: there is no such mode.
  Result<> show_in(const std::shared_ptr<Region>& smram) const;

 private:
  explicit SystemRom(const Wiring& wiring);
  Result<> load_image(const std::string& path);
  Result<> add_chips();
  void show_below_1m(const std::shared_ptr<RamBlock>& block);

  Wiring wiring_;
  uint64_t bytes_ = 0;
  std::shared_ptr<Region> rom_, isa_rom_, isa_window_;
  std::vector<std::unique_ptr<devices::FlashFile>> files_;
  std::vector<std::unique_ptr<devices::Pflash>> chips_;  // the first ends at 4 GiB, each other one below it
};

// Where a firmware file is: `name` itself when it has a slash or exists here, else in `directories`, else where
// distributions put firmware. The error lists the places.
Result<std::string> find_firmware(const std::string& name, const std::vector<std::string>& directories);

}  // namespace kite::machine
