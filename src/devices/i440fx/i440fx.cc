#include "devices/i440fx/i440fx.h"

#include "devices/i440fx/i440fx_regs.h"
#include "devices/section.h"

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

constexpr uint64_t kVgaStart = 0xa0000, kVgaSize = 0x20000;

}  // namespace

I440fx::I440fx(std::string path, Config config, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x1237, .revision = 0x02, .class_code = 0x060000}),
      static_config_(config),
      wiring_(std::move(wiring)),
      config_ports_(wiring_.bus, wiring_.reset_control),
      shadow_ram_(wiring_.system_memory, wiring_.ram, wiring_.pci),
      vga_window_(Region::alias("vga-window", wiring_.pci, kVgaStart, kVgaSize)),
      open_smram_(Region::alias("smram-open", wiring_.ram, kVgaStart, kVgaSize)),
      smram_(Region::container("smram", uint64_t{1} << 32)),
      closed_smram_(Region::alias("smram-low", wiring_.ram, kVgaStart, kVgaSize)) {
  for (const Register& reg : kRegisters) config_.writable[reg.offset] = reg.writable;
  // [440FX] 3.2.2: memory and bus mastering are always on, parity and SERR# can be chosen.
  config_.writable[kCommand] = 0x40;
  config_.writable[kCommand + 1] = 0x01;
  config_.clear_on_one[kErrsts] = 0x11;
  config_.own[kSmram] = kSmramWritable;  // what can be written depends on the lock
  constexpr int kPriority = 1;
  wiring_.system_memory.add(kVgaStart, vga_window_, kPriority);
  wiring_.system_memory.add(kVgaStart, open_smram_, kPriority + 1);
  smram_->add(kVgaStart, closed_smram_);
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

I440fx::~I440fx() {
  for (const auto& region : {vga_window_, open_smram_}) wiring_.system_memory.remove(region);
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
  apply_smram();
  apply_pam();
}

void I440fx::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
  config_ports_.set_address(0);
}

void I440fx::config_written(uint16_t offset, unsigned size, uint32_t) {
  const auto touches = [=](uint8_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(kPam0, 7)) apply_pam();
  if (!touches(kSmram, 1)) return;
  if ((config_.bytes[kSmram] & kSmramLock) != 0) lock_smram(true);
  apply_smram();
}

// [440FX] 3.2.23: D_LCK clears D_OPEN, and both can only be read until the next reset.
void I440fx::lock_smram(bool locked) {
  config_.writable[kSmram] = locked ? kSmramLockedWritable : kSmramWritable;
  if (locked) config_.bytes[kSmram] = static_cast<uint8_t>(config_.bytes[kSmram] & ~kSmramOpen);
}

// [440FX] 3.2.23, table 3: G_SMRAME makes SMRAM of the RAM there; D_OPEN shows it outside of the mode. D_CLS, which
// sends data accesses in the mode to PCI, is kept without effect: the CPUs have one view for code and data.
void I440fx::apply_smram() {
  const bool enabled = static_config_.smm && (config_.bytes[kSmram] & kSmramEnable) != 0;
  open_smram_->set_enabled(enabled && (config_.bytes[kSmram] & kSmramOpen) != 0);
  closed_smram_->set_enabled(enabled);
}

void I440fx::apply_pam() {
  shadow_ram_.apply(std::span<const uint8_t, ShadowRam::kRegisters>(&config_.bytes[kPam0], ShadowRam::kRegisters));
}

void I440fx::save(StateWriter& writer) {
  save_section(writer, path(), I440fxV1{.confadd = config_ports_.address()}, [&] { save_config(writer); });
}

void I440fx::restore(StateReader& reader) {
  I440fxV1 wire{};
  if (!restore_section(reader, path(), wire, [&] {
        if (require(reader, (wire.confadd & ~ConfigMechanism::kWritable) == 0,
                    "the configuration address has unknown bits"))
          restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  lock_smram((config_.bytes[kSmram] & kSmramLock) != 0);
  apply_smram();
  apply_pam();
  config_ports_.set_address(wire.confadd);
}

}  // namespace kite::devices
