// Board: what makes a machine of memory, buses and devices. A board is built once, reset any number of times.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "accel/irq_chip.h"
#include "accel/local_apic.h"
#include "accel/vcpu.h"
#include "async/clock.h"
#include "async/executor.h"
#include "bus/device.h"
#include "bus/pci_bus.h"
#include "chardev/chardev.h"
#include "devices/virtio/virtio_balloon.h"
#include "display/console.h"
#include "entropy/entropy_registry.h"
#include "machine/machine_config.h"
#include "machine/numa.h"
#include "memory/address_space.h"
#include "net/net_registry.h"
#include "object/object_type.h"
#include "support/result.h"
#include "x86/cpuid.h"

namespace kite::devices {
class Pflash;
class UsbBus;
}  // namespace kite::devices

namespace kite::machine {

class DriveStore;

// What the board asks of the machine. Any thread.
struct BoardRequests {
  std::function<void()> reset;                  // reset register, keyboard controller, port 92, triple fault
  std::function<void()> shutdown;               // S5
  std::function<void()> suspend;                // S3
  std::function<void()> hibernate;              // S4: the guest has saved itself, power off
  std::function<void()> wake;                   // while suspended: an event that wakes the machine
  std::function<void(int status)> exit;         // isa-debug-exit
  std::function<void()> watchdog;               // a watchdog expired: what -watchdog-action says
  std::function<void(std::string slot)> eject;  // the guest has let go of what is in this slot: Board::take_out()
  // A tray has moved, of the device that has this drive. Devices may hold locks.
  std::function<void(const block::Drive* drive, bool open)> tray_moved;
  // The guest has this much of its memory now. Devices may hold locks.
  std::function<void(uint64_t bytes)> balloon_changed;
  // The guest has opened or closed the port of virtio-serial that has this id. Devices may hold locks.
  std::function<void(std::string id, bool open)> port_changed;
};

struct BoardContext {
  const MachineConfig& config;
  const x86::CpuSpec& cpu;
  const NumaLayout& numa;
  const TypeRegistry& types;  // for the properties of the board's own devices
  AddressSpace& memory;
  AddressSpace& ports;
  Clock& clock;           // guest time
  Clock& realtime_clock;  // the host's, for the RTC
  BoardRequests requests;
  IrqChip* irq_chip = nullptr;  // the accelerator's interrupt hardware; null: the board has all of it
  uint64_t tsc_hz = 1'000'000'000;
  Executor* executor = nullptr;                       // the devices' home; null in tests that have none
  bool smm = false;                                   // vCPUs have system-management mode, and may use it
  DriveStore* drives = nullptr;                       // null in machines without disks
  display::Console* console = nullptr;                // where screen, keyboard and mouse meet people; null: nowhere
  net::NetRegistry* nets = nullptr;                   // null in machines without network
  ChardevRegistry* chardevs = nullptr;                // for devices that come later; null: they find none
  const entropy::EntropyRegistry* entropy = nullptr;  // null: the host's generator is all there is
};

class Board {
 public:
  virtual ~Board() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Every device, in the order in which they are reset and saved.
  [[nodiscard]] virtual std::vector<bus::Device*> devices() = 0;

  // The local APIC of CPU `index`, made before its vCPU, null where the accelerator has it; then the vCPU it drives.
  [[nodiscard]] virtual LocalApic* local_apic(uint32_t index) = 0;
  // The 8259 of a board whose local APICs are the accelerator's; null where it has that, too, or has neither.
  [[nodiscard]] virtual ExtInt* ext_int() { return nullptr; }
  virtual void connect_cpu(uint32_t index, Vcpu& vcpu) = 0;
  // After a reset of devices and vCPUs: what firmware would have done, and the kernel.
  virtual Result<> load_software(std::vector<std::unique_ptr<Vcpu>>& vcpus) = 0;
  virtual void power_button() = 0;
  // Suspend to RAM: before_wake(), the reset of all devices but those that keep their state, then wake(), which leaves
  // the vCPUs where they go on.
  virtual void before_wake() {}
  [[nodiscard]] virtual std::vector<bus::Device*> kept_in_sleep() { return {}; }
  virtual Result<> wake(std::vector<std::unique_ptr<Vcpu>>& vcpus) { return load_software(vcpus); }

  // --- devices that come and go; main thread ---
  // Adds a device while the machine runs or is stopped; every vCPU parked.
  virtual Result<> plug(const DeviceConfig& device) {
    return fail("{}: board {} takes no devices while it runs", device.type, name());
  }
  // Asks the guest to let go of a device; BoardRequests::eject follows once it has.
  virtual Result<> request_unplug(std::string_view id) { return fail("there is no device with the id '{}'", id); }
  // Removes what is in a slot; every vCPU parked. The devices are out of the maps once these are committed, and can
  // then be destroyed.
  [[nodiscard]] virtual std::vector<std::unique_ptr<bus::Device>> take_out(std::string_view slot) {
    (void)slot;
    return {};
  }
  // Slots whose devices were asked for and not let go: a reset takes them. Each is reported once.
  [[nodiscard]] virtual std::vector<std::string> unplugged_by_reset() { return {}; }
  // The device of this path, or null; for the monitor.
  [[nodiscard]] bus::Device* find_device(std::string_view path);
  // The memory balloon; null: there is none.
  [[nodiscard]] virtual devices::VirtioBalloon* balloon() { return nullptr; }
  // The root of the PCI hierarchy, for showing it; null: there is none.
  [[nodiscard]] virtual bus::PciBus* pci() { return nullptr; }

  // Among its devices; their files follow the machine.
  [[nodiscard]] virtual std::vector<devices::Pflash*> flash_chips() { return {}; }

  // For showing them.
  [[nodiscard]] virtual std::vector<devices::UsbBus*> usb_buses() { return {}; }

  // With BoardContext::smm: what a CPU in system-management mode sees over the rest of memory; null: no such thing.
  [[nodiscard]] virtual std::shared_ptr<Region> smram() { return nullptr; }
  virtual void fpu_error() = 0;
  // For qtest's irq_intercept_in/out and set_irq_in: the controller that a QOM path names ("ioapic"), or null.
  struct IrqTap {
    std::function<void(std::function<void(uint32_t line, bool level)>)> intercept_inputs;
    std::function<void(uint32_t line, bool level)> drive_input;
  };
  [[nodiscard]] virtual IrqTap* irq_tap(std::string_view path) = 0;
};

Result<std::unique_ptr<Board>> create_board(BoardContext context);
// "pc-i440fx-7.2", "none", with aliases; for -machine help and errors.
struct BoardInfo {
  std::string_view name;
  std::string_view alias;
  std::string_view description;
  std::string_view default_cpu;  // "" when it has none
  uint32_t max_cpus;
  bool is_default;
};
std::span<const BoardInfo> boards();
const BoardInfo* find_board(std::string_view name);

}  // namespace kite::machine
