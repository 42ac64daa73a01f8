// Controllers and disks of a PC: the board's own, those of -drive, and what -device and device_add ask for.
#include <algorithm>
#include <tuple>

#include "bus/pci.h"
#include "devices/ata/ata_disk.h"
#include "devices/storage/removable.h"
#include "devices/usb/usb_types.h"
#include "machine/memory_backends.h"
#include "machine/pc/pc_chassis.h"
#include "support/bits.h"
#include "support/suggest.h"

namespace kite::machine {

namespace {

namespace pci = bus::pci;

// As Open Firmware names a function, by its class. [OF PCI 2.1] 2.2.1, and what firmware expects.
std::string function_name(bus::PciDevice& function) {
  switch (function.config_read(pci::kClassCode + 1, 2)) {
    case 0x0100: return "scsi";
    case 0x0101: return "ide";
    case 0x0200: return "ethernet";
    case 0x0601: return "isa";
    case 0x0604: return "pci-bridge";
    case 0x0c03: return "usb";
    default: break;
  }
  return fmt::format("pci{:x},{:x}", function.config_read(pci::kVendorId, 2), function.config_read(pci::kDeviceId, 2));
}

}  // namespace

std::string PcChassis::pci_boot_path(bus::PciDevice& function) {
  const unsigned slot = function.devfn() >> 3, number = function.devfn() & 7u;
  const std::string own =
      fmt::format("/{}@{:x}{}", function_name(function), slot, number != 0 ? fmt::format(",{:x}", number) : "");
  bus::PciBridge* const above = function.bus()->bridge();
  return (above == nullptr ? "/pci@i0cf8" : pci_boot_path(*above)) + own;
}

DiskParts PcChassis::disk_parts(const DeviceConfig& device, const std::string& path) {
  DiskParts parts{.device = device,
                  .path = path,
                  .memory = guest_memory_,
                  .clock = context_.clock,
                  .cpu_count = context_.config.cpu_count,
                  .interrupt_events = interrupt_events(),
                  .executor = context_.executor,
                  .block_executor = context_.drives == nullptr ? nullptr : &context_.drives->executor(),
                  .bus_name = {},
                  .isa_irq = [this](uint32_t irq) { return isa_source(irq); },
                  .memory_backend = {},
                  .map_port = [this](uint16_t port, const std::shared_ptr<Region>& region) { map_port(port, region); }};
  parts.dma = dma_.get();
  parts.memory_backend = [this](const std::string& id) -> Result<std::shared_ptr<RamBlock>> {
    if (id.empty()) return std::shared_ptr<RamBlock>();
    KITE_ASSIGN(const MemoryBackend* backend, find_memory_backend(context_.config, "-device", id));
    return make_memory(*backend);
  };
  parts.bus_name = [this, id = device.id](std::string_view word, unsigned number) {
    if (!id.empty()) return fmt::format("{}.{}", id, number);
    // Numbered on from the buses of the controllers before.
    const std::string prefix = fmt::format("{}.", word);
    const auto before = std::ranges::count_if(
        disk_buses_, [&](const BusPlace& place) { return place.bus->name().starts_with(prefix); });
    return fmt::format("{}{}", prefix, static_cast<size_t>(before) + number);
  };
  return parts;
}

Result<> PcChassis::claim_drive(DeviceConfig& device, DriveNeed need) {
  if (need == DriveNeed::kNone) return {};
  if (context_.drives == nullptr) return fail("-device {}: this machine has no drives", device.type);
  return context_.drives->claim_for(device, need);
}

void PcChassis::give_back(block::Drive* drive) {
  if (context_.drives != nullptr) context_.drives->give_back(drive);
}

void PcChassis::own_drive(const DeviceConfig& device, const std::string& path) {
  if (device.drive == nullptr) return;
  // The monitor's name of a device is its id, or the path of its object without one; virtio's drive belongs to the back
  // end inside, which has no id, and a USB stick's to the unit inside.
  const std::string object = device.id.empty() ? "/machine/unattached/" + path : "/machine/peripheral/" + device.id;
  const bool inside = device.type.starts_with("virtio-blk");
  std::string qdev = inside ? object + "/virtio-backend" : device.id.empty() ? object : device.id;
  if (device.type == devices::kUsbStorage) qdev = fmt::format("{}/{}.0/legacy[0]", object, path);
  context_.drives->set_owner(*device.drive, path, std::move(qdev));
}

Result<> PcChassis::note_boot_place(const DeviceConfig& device, const std::string& path, std::string place) {
  if (place.empty()) return {};
  const auto logical = [&](const char* name) { return device.properties.integer(name); };
  if (logical("lcyls") != 0 || logical("lheads") != 0 || logical("lsecs") != 0)
    boot_order_.add_geometry(place, path, logical("lcyls"), logical("lheads"), logical("lsecs"));
  const PropertyValue* const value = device.properties.find("bootindex");
  const int64_t* const index = value == nullptr ? nullptr : std::get_if<int64_t>(value);
  if (index == nullptr || *index < 0) return {};
  return boot_order_.add(static_cast<uint64_t>(*index), std::move(place), path);
}

// --- controllers, and disks that are PCI functions

Result<std::unique_ptr<bus::PciDevice>> PcChassis::make_pci_disk(DeviceConfig device, const std::string& path) {
  const DiskMaker& maker = *find_disk_maker(device.type);
  KITE_TRY(claim_drive(device, maker.need));
  DiskParts parts = disk_parts(device, path);
  if (const auto bus = bus_for(device)) parts.pci_bus = *bus;
  auto made = maker.make(parts);
  auto* const function = made ? dynamic_cast<bus::PciDevice*>(made->device.get()) : nullptr;
  if (function == nullptr) {
    give_back(device.drive);
    return made ? fail("-device {}: it is no PCI function", device.type) : Failure(std::move(made).error());
  }
  own_drive(device, path);
  for (devices::DiskBus* bus : made->buses)
    disk_buses_.push_back({.bus = bus, .controller = function, .boot_path = {}});
  (void)made->device.release();
  return std::unique_ptr<bus::PciDevice>(function);
}

void PcChassis::forget_disk_device(bus::Device& device) {
  std::erase_if(disk_buses_, [&](const BusPlace& place) { return place.controller == &device; });
}

Result<> PcChassis::add_isa_disk(DeviceConfig device, const std::string& path) {
  const DiskMaker& maker = *find_disk_maker(device.type);
  KITE_TRY(claim_drive(device, maker.need));
  KITE_ASSIGN(MadeDevice made, maker.make(disk_parts(device, path)));
  std::string boot_path;
  for (bus::PciDevice* function : pci_->devices())
    if (function_name(*function) == "isa") boot_path = pci_boot_path(*function) + std::string(maker.boot_rest);
  for (devices::DiskBus* bus : made.buses)
    disk_buses_.push_back({.bus = bus, .controller = made.device.get(), .boot_path = boot_path});
  user_devices_.push_back(std::move(made.device));
  own_drive(device, path);
  return {};
}

Result<> PcChassis::add_board_device(std::string type, std::vector<std::pair<std::string, std::string>> values) {
  KITE_ASSIGN(PropertyMap properties,
              context_.types.resolve({.type = type, .id = "", .values = std::move(values)}, ""));
  return add_user_device({.type = std::move(type), .id = "", .properties = std::move(properties)});
}

// --- disks on buses

std::string PcChassis::controller_boot_path(const devices::DiskBus& bus) const {
  const auto place = std::ranges::find(disk_buses_, &bus, &BusPlace::bus);
  if (place == disk_buses_.end()) return {};
  auto* const function = dynamic_cast<bus::PciDevice*>(place->controller);
  return function != nullptr ? pci_boot_path(*function) : place->boot_path;
}

Result<devices::DiskBus*> PcChassis::disk_bus_for(const DeviceConfig& device, std::string_view kind) {
  const std::string name = device.properties.string("bus");
  std::vector<std::string> names;
  bool any = false;
  for (const BusPlace& place : disk_buses_) {
    if (place.bus->kind() != kind) continue;
    any = true;
    names.push_back(place.bus->name());
    // "scsi0" stands for the first bus of the controller with that id.
    if (name.empty() ? place.bus->has_room() : names.back() == name || names.back() == name + ".0") return place.bus;
  }
  if (!any) return fail("-device {}: the machine has no '{}' bus for it; add a controller first", device.type, kind);
  if (name.empty())
    return fail("-device {}: no '{}' bus has room for it; there are {}", device.type, kind, fmt::join(names, ", "));
  const std::vector<std::string_view> known(names.begin(), names.end());
  return fail("-device {}: there is no '{}' bus '{}'{}; there are {}", device.type, kind, name, suggestion(name, known),
              fmt::join(names, ", "));
}

Result<> PcChassis::add_disk_on_bus(DeviceConfig device, const std::string& path, bool running) {
  const DiskOnBus& row = *find_disk_on_bus(device.type);
  KITE_ASSIGN(devices::DiskBus * bus, disk_bus_for(device, row.bus_kind));
  if (running && !bus->hotplug())
    return fail("Bus '{}' does not support hotplugging: {} belongs on the command line", bus->name(), device.type);
  KITE_TRY(claim_drive(device, row.need));
  auto config = devices::make_disk_config(device.type, device.id, device.properties, device.drive);
  if (!config) {
    give_back(device.drive);
    return Failure(std::move(config).error());
  }
  auto made =
      bus->attach({.type = device.type, .path = path, .disk = std::move(*config), .properties = device.properties});
  if (!made) {
    give_back(device.drive);
    return Failure(std::move(made).error());
  }
  bus::Device& disk = **made;
  if (auto* const removable = dynamic_cast<devices::Removable*>(&disk); removable != nullptr)
    removable->set_tray_hook(
        [moved = context_.requests.tray_moved, drive = device.drive](bool open) { moved(drive, open); });
  disks_.push_back({.device = std::move(*made), .bus = bus, .drive = device.drive});
  own_drive(device, path);
  const std::string place = bus->boot_path(disk);
  return note_boot_place(device, path, place.empty() ? "" : controller_boot_path(*bus) + "/" + place);
}

std::vector<std::unique_ptr<bus::Device>> PcChassis::take_disk(std::string_view path) {
  std::vector<std::unique_ptr<bus::Device>> out;
  const auto at = std::ranges::find_if(disks_, [path](const DiskPlace& disk) { return disk.device->path() == path; });
  if (at == disks_.end()) return out;
  boot_order_.remove(path);
  at->bus->detach(*at->device);
  out.push_back(std::move(at->device));
  disks_.erase(at);
  return out;
}

// [SeaBIOS] and others take the geometry of IDE disks from CMOS: 0x12 whether there are two, 0x19 and 0x1a their types
// (47: described by the user, at 0x1b and 0x24), 0x39 how each of four is translated, two bits each.
void PcChassis::tell_geometry() {
  using Translation = devices::DiskGeometry::Translation;
  uint8_t present = 0, translations = 0;
  for (const DiskPlace& place : disks_) {
    const auto* const disk = dynamic_cast<const devices::AtaDisk*>(place.device.get());
    const std::string bus = place.bus->name();
    if (disk == nullptr || (bus != "ide.0" && bus != "ide.1")) continue;
    const devices::DiskGeometry& geometry = disk->geometry();
    const unsigned unit = place.bus->boot_path(*place.device).ends_with("disk@1") ? 1 : 0;
    const unsigned number = (bus == "ide.1" ? 2 : 0) + unit;
    const unsigned code =
        geometry.translation == Translation::kAuto ? 0 : static_cast<unsigned>(geometry.translation) - 1;
    translations = static_cast<uint8_t>(translations | code << (2 * number));
    if (number > 1) continue;
    present = static_cast<uint8_t>(present | (number == 0 ? 0xf0 : 0x0f));
    rtc_->set_cmos(static_cast<uint8_t>(0x19 + number), 47);
    const auto low = static_cast<uint8_t>(geometry.cylinders), high = static_cast<uint8_t>(geometry.cylinders >> 8);
    const uint8_t control = geometry.heads > 8 ? 0xc8 : 0xc0;
    const uint8_t bytes[] = {low, high, static_cast<uint8_t>(geometry.heads),  0xff, 0xff, control,
                             low, high, static_cast<uint8_t>(geometry.sectors)};
    for (size_t at = 0; at < std::size(bytes); ++at)
      rtc_->set_cmos(static_cast<uint8_t>((number == 0 ? 0x1b : 0x24) + at), bytes[at]);
  }
  rtc_->set_cmos(0x12, present);
  rtc_->set_cmos(0x39, translations);
}

// --- the board's own, and -drive

namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

// The device that -drive if= means.
struct Wanted {
  std::string type;
  Settings settings;
};
Wanted device_of(const DriveSpec& spec, bool ahci) {
  Settings settings{{"drive", spec.id}};
  const std::string unit = fmt::format("{}", spec.unit);
  switch (spec.interface) {
    case DriveInterface::kIde:
      settings.emplace_back("bus", fmt::format("ide.{}", spec.bus));
      if (!ahci) settings.emplace_back("unit", unit);
      return {spec.cdrom ? "ide-cd" : "ide-hd", std::move(settings)};
    case DriveInterface::kFloppy: settings.emplace_back("unit", unit); return {"floppy", std::move(settings)};
    default: return {"virtio-blk-pci", std::move(settings)};
  }
}

std::string option_text(const DriveSpec& spec) {
  return fmt::format("-drive if={},bus={},unit={} (id={})", drive_interface_name(spec.interface), spec.bus, spec.unit,
                     spec.id);
}

}  // namespace

Result<> PcChassis::add_drives(std::span<const DriveInterface> interfaces) {
  if (context_.drives == nullptr) return {};
  std::vector<const DriveSpec*> specs;
  for (const auto& entry : context_.drives->entries())
    if (!entry->made_for_device && std::ranges::find(interfaces, entry->spec.interface) != interfaces.end())
      specs.push_back(&entry->spec);
  std::ranges::sort(specs, {},
                    [](const DriveSpec* spec) { return std::tuple(spec->interface, spec->bus, spec->unit); });
  for (const DriveSpec* spec : specs) {
    Wanted wanted = device_of(*spec, pci_->express());
    if (auto done = add_board_device(std::move(wanted.type), std::move(wanted.settings)); !done)
      return fail("{}: {}", option_text(*spec), done.error().message);
  }
  return {};
}

bool PcChassis::has_floppy_drive() const {
  return context_.drives != nullptr && std::ranges::any_of(context_.drives->entries(), [](const auto& entry) {
           return !entry->made_for_device && entry->spec.interface == DriveInterface::kFloppy;
         });
}

Result<> PcChassis::add_board_disks() {
  KITE_TRY(add_disk_controllers());
  static constexpr DriveInterface kFirst[] = {DriveInterface::kIde, DriveInterface::kFloppy};
  return add_drives(kFirst);
}

Result<> PcChassis::add_added_disks() {
  // What if=scsi stands for on this board is an adapter that Kite does not have.
  if (context_.drives != nullptr)
    for (const auto& entry : context_.drives->entries())
      if (!entry->made_for_device && entry->spec.interface == DriveInterface::kScsi)
        return fail(
            "{}: there is no lsi53c895a here; write -device virtio-scsi-pci -drive if=none,id=d0,... -device "
            "{},drive=d0",
            option_text(entry->spec), entry->spec.cdrom ? "scsi-cd" : "scsi-hd");
  static constexpr DriveInterface kThen[] = {DriveInterface::kVirtio};
  return add_drives(kThen);
}

}  // namespace kite::machine
