#include "devices/i440fx/i440fx.h"

#include <fmt/format.h>

#include "devices/i440fx/i440fx_regs.h"
#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {

using namespace i440fx_regs;

namespace {

constexpr uint8_t kCommand = 0x04, kStatus = 0x06;

struct I440fxV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t confadd;
};
template <class Codec>
void visit(Codec& codec, I440fxV1& wire) {
  codec.field(1, wire.confadd);
}

// One byte of configuration space: its value after a reset and the bits a guest may change.
struct Register {
  uint8_t offset, reset, writable;
};
constexpr Register kRegisters[] = {
    {kPmccfg, 0x00, 0xff},   {kPmccfg + 1, 0x00, 0x84}, {kDeturbo, 0x00, 0xff},  {kDbc, 0x80, 0xff},
    {kAxc, 0x00, 0x83},      {kDrt, 0x00, 0xff},        {kDrt + 1, 0x00, 0xff},  {kDramc, 0x01, 0x3f},
    {kDramt, 0x10, 0x7f},    {kPam0, 0x00, 0x30},       {kPam0 + 1, 0x00, 0x33}, {kPam0 + 2, 0x00, 0x33},
    {kPam0 + 3, 0x00, 0x33}, {kPam0 + 4, 0x00, 0x33},   {kPam0 + 5, 0x00, 0x33}, {kPam0 + 6, 0x00, 0x33},
    {kDrb0, 0x01, 0xff},     {kDrb0 + 1, 0x01, 0xff},   {kDrb0 + 2, 0x01, 0xff}, {kDrb0 + 3, 0x01, 0xff},
    {kDrb0 + 4, 0x01, 0xff}, {kDrb0 + 5, 0x01, 0xff},   {kDrb0 + 6, 0x01, 0xff}, {kDrb0 + 7, 0x01, 0xff},
    {kFdhc, 0x00, 0xc0},     {kMtt, 0x00, 0xf8},        {kClt, 0x10, 0x1f},      {kErrcmd, 0x00, 0x73},
    {kTrc, 0x00, 0x0f},
};

constexpr uint8_t kSmramWritable = kSmramOpen | kSmramClosed | kSmramLock | kSmramEnable;
constexpr uint8_t kSmramLockedWritable = kSmramClosed | kSmramEnable;

// The windows below 1 MiB.
constexpr uint64_t kVgaStart = 0xa0000, kVgaSize = 0x20000;
constexpr uint64_t kShadowStart = 0xc0000, kShadowSize = 0x40000;
constexpr uint64_t kPciInSplitView = 0x100000;

constexpr uint64_t kResetControl = 1;  // offset of port 0xcf9 in the configuration ports

// [440FX] table 6: PAM0 has one nibble for the BIOS area, the others two each for 16 KiB from 0xc0000 up.
struct Segment {
  uint64_t start, size;
  uint8_t reg;
  unsigned shift;
};
constexpr Segment segment(unsigned index) {
  if (index == 12) return {.start = 0xf0000, .size = 0x10000, .reg = kPam0, .shift = 4};
  return {.start = kShadowStart + index * 0x4000,
          .size = 0x4000,
          .reg = static_cast<uint8_t>(kPam0 + 1 + index / 2),
          .shift = index % 2 * 4};
}

// The register that an access to port 0xcfc + `offset` reaches. [PCI 3.0] 3.2.2.3.2 reserves CONFADD 1:0; software that
// puts the register's own address there and reads 0xcfc is common enough that boards OR them in.
uint8_t config_offset(uint32_t confadd, uint64_t offset) { return static_cast<uint8_t>(confadd | (offset & 3)); }

}  // namespace

I440fx::I440fx(std::string path, Config config, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x1237, .revision = 0x02, .class_code = 0x060000}),
      static_config_(config),
      wiring_(std::move(wiring)),
      config_ports_(*this, &I440fx::read_config_port, &I440fx::write_config_port),
      config_ports_region_(Region::io("pci-config", 8, config_ports_, {.min_size = 1, .max_size = 4})),
      split_(*this, &I440fx::read_split, &I440fx::write_split),
      split_region_(Region::io("pam-split", kShadowSize, split_, {.min_size = 1, .max_size = 8, .unaligned = true})),
      split_view_("pam-split", 2 * kPciInSplitView) {
  for (const Register& reg : kRegisters) config_.writable[reg.offset] = reg.writable;
  // [440FX] 3.2.2: memory and bus mastering are always on, parity and SERR# can be chosen.
  config_.writable[kCommand] = 0x40;
  config_.writable[kCommand + 1] = 0x01;
  config_.clear_on_one[kErrsts] = 0x11;
  config_.own[kSmram] = kSmramWritable;  // what can be written depends on the lock
  build_windows();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

I440fx::~I440fx() {
  wiring_.system_memory.remove(vga_window_);
  for (const Shadow& shadow : shadows_)
    for (const auto& window : {shadow.pci, shadow.ram, shadow.split}) wiring_.system_memory.remove(window);
}

void I440fx::build_windows() {
  constexpr int kPriority = 1;
  vga_window_ = Region::alias("vga-window", wiring_.pci, kVgaStart, kVgaSize);
  wiring_.system_memory.add(kVgaStart, vga_window_, kPriority);
  for (unsigned i = 0; i < kSegments; ++i) {
    const auto [start, size, reg, shift] = segment(i);
    Shadow& shadow = shadows_[i];
    shadow.pci = Region::alias(fmt::format("pam-pci-{:x}", start), wiring_.pci, start, size);
    shadow.ram = Region::alias(fmt::format("pam-ram-{:x}", start), wiring_.ram, start, size);
    shadow.split = Region::alias(fmt::format("pam-split-{:x}", start), split_region_, start - kShadowStart, size);
    for (const auto& window : {shadow.pci, shadow.ram, shadow.split})
      wiring_.system_memory.add(start, window, kPriority);
  }
  split_view_.root().add(kShadowStart, Region::alias("dram", wiring_.ram, kShadowStart, kShadowSize));
  split_view_.root().add(kPciInSplitView + kShadowStart, Region::alias("pci", wiring_.pci, kShadowStart, kShadowSize));
}

void I440fx::set_reset_values() {
  for (const Register& reg : kRegisters) config_.bytes[reg.offset] = reg.reset;
  // [440FX] 3.2.11: WPE is what the boards of several processors strap.
  if (static_config_.cpu_count > 1) config_.set16(kPmccfg, kPmccfgWpe);
  config_.set16(kCommand, 0x0006);
  config_.set16(kStatus, 0x0280);
  config_.bytes[kErrsts] = 0;
  config_.bytes[kSmram] = kSmramBase;
  lock_smram(false);
  apply_pam();
}

void I440fx::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
  const std::lock_guard state_lock(lock_);
  state_ = State{};
}

void I440fx::config_written(uint16_t offset, unsigned size, uint32_t) {
  const auto touches = [=](uint8_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(kPam0, 7)) apply_pam();
  if (touches(kSmram, 1) && (config_.bytes[kSmram] & kSmramLock) != 0) lock_smram(true);
}

// [440FX] 3.2.23: D_LCK clears D_OPEN, and both can only be read until the next reset.
void I440fx::lock_smram(bool locked) {
  config_.writable[kSmram] = locked ? kSmramLockedWritable : kSmramWritable;
  if (locked) config_.bytes[kSmram] = static_cast<uint8_t>(config_.bytes[kSmram] & ~kSmramOpen);
}

void I440fx::apply_pam() {
  for (unsigned i = 0; i < kSegments; ++i) {
    const auto [start, size, reg, shift] = segment(i);
    const unsigned attributes = config_.bytes[reg] >> shift;
    const bool reads = (attributes & kPamReadEnable) != 0;
    const bool writes = (attributes & kPamWriteEnable) != 0;
    shadows_[i].ram->set_read_only(!writes);
    shadows_[i].ram->set_enabled(reads);
    shadows_[i].split->set_enabled(!reads && writes);
    shadows_[i].pci->set_enabled(!reads && !writes);
  }
}

void I440fx::refresh_split_view() {
  const std::lock_guard lock(split_view_lock_);
  if (split_view_.stale()) split_view_.commit();
}

uint64_t I440fx::read_split(uint64_t offset, unsigned size) {
  refresh_split_view();
  uint64_t value = 0;
  split_view_.read(kPciInSplitView + kShadowStart + offset, size, value);
  return value;
}

void I440fx::write_split(uint64_t offset, unsigned size, uint64_t value) {
  refresh_split_view();
  split_view_.write(kShadowStart + offset, size, value);
}

// [440FX] 3.1: the address register answers only dword accesses; others are ordinary I/O, forwarded to PCI, where the
// reset control register at 0xcf9 is all that listens, on its byte lane.
uint64_t I440fx::read_forwarded(uint64_t offset, unsigned size) {
  if (offset > kResetControl || offset + size <= kResetControl) return low_mask(8 * size);
  const auto shift = static_cast<unsigned>(8 * (kResetControl - offset));
  return (low_mask(8 * size) & ~(uint64_t{0xff} << shift)) | wiring_.reset_control.io_read(0, 1) << shift;
}

void I440fx::write_forwarded(uint64_t offset, unsigned size, uint64_t value) {
  if (offset > kResetControl || offset + size <= kResetControl) return;
  wiring_.reset_control.io_write(0, 1, (value >> (8 * (kResetControl - offset))) & 0xff);
}

uint64_t I440fx::read_config_port(uint64_t offset, unsigned size) {
  if (offset < kConfdata - kConfadd && size != 4) return read_forwarded(offset, size);
  const uint32_t address = confadd();
  if (offset < kConfdata - kConfadd) return address;
  if ((address & kConfaddEnable) == 0) return low_mask(8 * size);
  return wiring_.bus.config_read(static_cast<uint8_t>(address >> 16), static_cast<uint8_t>(address >> 8),
                                 config_offset(address, offset), size);
}

void I440fx::write_config_port(uint64_t offset, unsigned size, uint64_t value) {
  if (offset < kConfdata - kConfadd) {
    if (size != 4) return write_forwarded(offset, size, value);
    const std::lock_guard lock(lock_);
    state_.confadd = static_cast<uint32_t>(value) & kConfaddWritable;
    return;
  }
  const uint32_t address = confadd();
  if ((address & kConfaddEnable) == 0) return;
  wiring_.bus.config_write(static_cast<uint8_t>(address >> 16), static_cast<uint8_t>(address >> 8),
                           config_offset(address, offset), size, static_cast<uint32_t>(value));
}

uint32_t I440fx::confadd() {
  const std::lock_guard lock(lock_);
  return state_.confadd;
}

void I440fx::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    return state_;
  }();
  const auto& [confadd] = state;
  save_section(writer, path(), I440fxV1{.confadd = confadd}, [&] { save_config(writer); });
}

void I440fx::restore(StateReader& reader) {
  I440fxV1 wire{};
  if (!restore_section(reader, path(), wire, [&] {
        if (require(reader, (wire.confadd & ~kConfaddWritable) == 0, "the configuration address has unknown bits"))
          restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  lock_smram((config_.bytes[kSmram] & kSmramLock) != 0);
  apply_pam();
  const std::lock_guard state_lock(lock_);
  state_ = State{.confadd = wire.confadd};
}

}  // namespace kite::devices
