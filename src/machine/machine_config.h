// MachineConfig: what main/ makes of the command line and Machine::create() builds. Plain data; every value is checked
// where it is used, with an error that names the option.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "accel/jit/jit_options.h"
#include "boot/smbios.h"
#include "object/object_type.h"
#include "x86/topology.h"

namespace kite {
class Chardev;
}
namespace kite::block {
class Drive;
}

namespace kite::machine {

struct RtcConfig {
  enum class Base : uint8_t { kUtc, kLocaltime, kDate };
  enum class ClockSource : uint8_t { kHost, kVirtual };  // -rtc clock=host|vm
  Base base = Base::kUtc;
  int64_t date_seconds = 0;  // kDate: seconds since 1970, read as UTC
  ClockSource clock = ClockSource::kHost;
  bool replay_missed = false;  // driftfix=slew
};

struct BootConfig {
  std::string order = "cad";
  std::string once;            // instead of `order` until the first reset; "" for none
  bool strict = false;         // only what has a bootindex is tried
  bool check_floppies = true;  // -no-fd-bootchk: false
  bool menu = false;
  int64_t splash_time_ms = -1;     // -1: not given
  int64_t reboot_timeout_ms = -1;  // -1: not given
};

// One flash chip of the firmware: -drive if=pflash.
struct FlashConfig {
  std::string path;
  bool read_only = false;
};

// What firmware the machine starts with, and what it is told besides the machine itself.
struct FirmwareConfig {
  std::string bios;                      // -bios: a file, or a name searched in the directories; "" for the default
  std::vector<std::string> directories;  // -L: searched before the usual ones
  std::array<std::optional<FlashConfig>, 2> flash;                  // unit 0 ends at 4 GiB, unit 1 lies below it
  std::vector<std::pair<std::string, std::vector<uint8_t>>> files;  // -fw_cfg: name and contents
  std::vector<std::vector<uint8_t>> acpi_tables;                    // -acpitable: whole tables, checksums in place
  boot::SmbiosConfig smbios;                                        // -smbios
};

// What happens when a watchdog expires: -watchdog-action.
enum class WatchdogAction : uint8_t { kReset, kShutdown, kPoweroff, kPause, kInjectNmi, kNone };

// What -accel kvm may be told.
struct KvmConfig {
  enum class Irqchip : uint8_t { kDefault, kOn, kSplit, kOff };  // kernel-irqchip=
  Irqchip kernel_irqchip = Irqchip::kDefault;
  uint32_t dirty_ring_entries = 0;  // dirty-ring-size=: a power of two; 0: dirty bitmaps
};

// One -device, resolved against its type.
struct DeviceConfig {
  std::string type;
  std::string id;
  PropertyMap properties;
  Chardev* chardev = nullptr;     // what its "chardev" property names
  block::Drive* drive = nullptr;  // what its "drive" property names; filled in when the board makes the device
  bool hotplugged = false;        // added while the machine lives
};

// -object memory-backend-ram and -file: memory that the board or a device asks for by its id.
struct MemoryBackend {
  std::string id;
  uint64_t bytes = 0;
  std::string path = {};     // of the file that it is, or of the directory for one without a name; "" for none
  bool share = false;        // what is written reaches the file
  bool preallocate = false;  // all of it is taken from the host at once
};

// -numa, as given; lay_out_numa() checks it.
struct NumaConfig {
  struct Node {
    std::vector<std::pair<uint32_t, uint32_t>> cpus;  // indices, from and including
    std::optional<uint64_t> bytes;                    // mem=
    std::string memory;                               // memdev=: an -object's id
  };
  // -numa cpu: those at this place; what is not given is any.
  struct Cpus {
    uint32_t node = 0;
    std::optional<uint32_t> socket = {}, die = {}, core = {}, thread = {};
  };
  struct Distance {
    uint32_t from = 0, to = 0;
    uint8_t value = 0;
  };
  std::map<uint32_t, Node> nodes;
  std::vector<Cpus> cpus;
  std::vector<Distance> distances;
};

struct MachineConfig {
  std::string board = "pc";  // a name or an alias of boards()
  std::string name;          // -name, for the process and the monitor
  JitOptions jit;
  std::vector<std::string> accelerators = {"auto"};  // tried in order
  KvmConfig kvm;
  std::string cpu_model;  // "" for the board's default
  uint64_t ram_bytes = 128ull << 20;
  uint32_t cpu_count = 1;
  uint32_t max_cpus = 1;
  x86::CpuTopology topology;  // of max_cpus
  NumaConfig numa;
  std::string kernel_path, initrd_path, command_line;
  std::vector<Chardev*> serial_ports;  // -serial, in order; null: the port is not there ("none")
  std::vector<DeviceConfig> devices;
  std::vector<MemoryBackend> memory_backends;
  std::string main_memory;      // -machine memory-backend=: the id of the one that is RAM; "": the board makes it
  bool dump_guest_core = true;  // -machine dump-guest-core=on|off
  bool hpet = true;             // -machine hpet=on|off
  bool acpi = true;             // -machine acpi=on|off: the guest is given ACPI tables
  bool usb = false;             // -usb, -machine usb=on|off: the board has its own USB controllers
  bool smm = true;              // -machine smm=on|off: system-management mode, where the accelerator has it
  RtcConfig rtc;
  BootConfig boot;
  FirmwareConfig firmware;
  std::array<uint8_t, 16> uuid{};
  bool graphic = true;        // false with -nographic (told to the guest through fw_cfg)
  bool start_paused = false;  // -S
  bool incoming = false;      // -incoming: its state comes from elsewhere before it runs
  bool no_reboot = false;
  bool no_shutdown = false;
  WatchdogAction watchdog_action = WatchdogAction::kReset;
};

}  // namespace kite::machine
