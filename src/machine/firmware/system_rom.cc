#include "machine/firmware/system_rom.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "boot/image_bytes.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::machine {

namespace {

constexpr uint64_t kFourGib = uint64_t{1} << 32, kMib = uint64_t{1} << 20;
constexpr uint64_t kMostRom = 16 * kMib, kMostFlash = 8 * kMib;
constexpr uint64_t kIsaWindow = 128 << 10;
constexpr const char* kDefaultImage = "bios-256k.bin";

constexpr const char* kFirmwareDirectories[] = {"/usr/share/seabios", "/usr/share/ovmf",       "/usr/share/OVMF",
                                                "/usr/share/qemu",    "/usr/local/share/qemu", "/usr/lib/ipxe/qemu"};

}  // namespace

Result<std::string> find_firmware(const std::string& name, const std::vector<std::string>& directories) {
  if (name.find('/') != std::string::npos || ::access(name.c_str(), R_OK) == 0) return name;
  std::vector<std::string> places = directories;
  places.insert(places.end(), std::begin(kFirmwareDirectories), std::end(kFirmwareDirectories));
  for (const std::string& place : places)
    if (const std::string path = place + "/" + name; ::access(path.c_str(), R_OK) == 0) return path;
  return fail(
      "there is no firmware file '{}' in {}; install Debian's package seabios, ovmf or ipxe-qemu, give the "
      "file's whole path, or a directory with -L",
      name, fmt::join(places, ", "));
}

SystemRom::Use SystemRom::use_of(const MachineConfig& config) {
  const FirmwareConfig& firmware = config.firmware;
  const bool named = !firmware.bios.empty() || firmware.flash[0].has_value();
  if (named) return Use::kRequired;
  const bool has_card = std::ranges::any_of(
      config.devices, [](const DeviceConfig& device) { return device.type == "VGA" || device.type == "virtio-vga"; });
  if (!config.kernel_path.empty() && !has_card) return Use::kNone;
  const bool guest_runs = std::ranges::find(config.accelerators, "qtest") == config.accelerators.end();
  return guest_runs ? Use::kRequired : Use::kIfThere;
}

SystemRom::SystemRom(const Wiring& wiring) : wiring_(wiring) {}

SystemRom::~SystemRom() {
  if (rom_) wiring_.system_memory.remove(rom_);
  for (const auto& chip : chips_) wiring_.system_memory.remove(chip->region());
  if (isa_window_) wiring_.isa_memory.remove(isa_window_);
}

Result<std::unique_ptr<SystemRom>> SystemRom::create(const Wiring& wiring) {
  std::unique_ptr<SystemRom> rom(new SystemRom(wiring));
  const FirmwareConfig& config = wiring.config;
  if (!config.flash[0] && config.flash[1])
    return fail("-drive if=pflash,unit=1 without unit=0: the firmware itself is in unit 0; give that too");
  if (wiring.use == Use::kNone) return rom;
  if (config.flash[0]) {
    KITE_TRY(rom->add_chips());
    return rom;
  }
  auto path = find_firmware(config.bios.empty() ? kDefaultImage : config.bios, config.directories);
  if (!path && wiring.use == Use::kIfThere) return rom;
  if (!path) return Failure(std::move(path).error());
  KITE_TRY(rom->load_image(*path));
  return rom;
}

Result<> SystemRom::load_image(const std::string& path) {
  KITE_ASSIGN(const boot::FileBytes image, boot::read_image(path, "firmware", kMostRom));
  if (image.empty() || image.size() % (64 << 10) != 0)
    return fail("the firmware '{}' has {} bytes; a ROM image has a multiple of 64 KiB", path, image.size());
  KITE_ASSIGN(auto block, RamBlock::create("pc.bios", image.size()));
  std::memcpy(block->host(), image.data(), image.size());
  rom_ = Region::rom("pc.bios", block);
  bytes_ = image.size();
  wiring_.system_memory.add(kFourGib - bytes_, rom_);
  show_below_1m(block);
  return {};
}

Result<> SystemRom::add_chips() {
  for (size_t unit = 0; unit < wiring_.config.flash.size(); ++unit) {
    const auto& flash = wiring_.config.flash[unit];
    if (!flash) continue;
    const auto open = wiring_.incoming ? devices::FlashFile::open_unclaimed : devices::FlashFile::open;
    KITE_ASSIGN(auto file, open(flash->path, flash->read_only, devices::pflash_regs::kBlockBytes, kMostFlash - bytes_));
    KITE_ASSIGN(auto chip, devices::Pflash::create(fmt::format("pflash{}", unit), *file));
    bytes_ += file->size();
    wiring_.system_memory.add(kFourGib - bytes_, wiring_.secure_flash ? chip->rom() : chip->region());
    if (unit == 0) show_below_1m(chip->array());
    files_.push_back(std::move(file));
    chips_.push_back(std::move(chip));
  }
  return {};
}

Result<> SystemRom::show_in(const std::shared_ptr<Region>& smram) const {
  if (!wiring_.secure_flash || chips_.empty()) return {};
  if (smram == nullptr)
    return fail(
        "cfi.pflash01.secure=on: nobody could write the flash chips, as there is no system management mode; use "
        "-machine smm=on and an accelerator that has it, or leave secure out");
  uint64_t place = kFourGib;
  for (const auto& chip : chips_) {
    place -= chip->region()->size();
    smram->add(place, chip->region());
  }
  return {};
}

void SystemRom::show_below_1m(const std::shared_ptr<RamBlock>& block) {
  const uint64_t shown = std::min(block->size(), kIsaWindow);
  isa_rom_ = Region::rom("isa-bios", block);
  isa_window_ = Region::alias("isa-bios", isa_rom_, block->size() - shown, shown);
  wiring_.isa_memory.add(kMib - shown, isa_window_);
}

std::vector<devices::Pflash*> SystemRom::chips() const {
  std::vector<devices::Pflash*> all;
  for (const auto& chip : chips_) all.push_back(chip.get());
  return all;
}

}  // namespace kite::machine
