#include "devices/mch/mch.h"

#include <algorithm>

#include "devices/mch/mch_regs.h"
#include "devices/section.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace mch_regs;

namespace {

constexpr uint8_t kCommand = 0x04, kStatus = 0x06;
constexpr uint64_t kMib = 1 << 20, kEcamBytes = 256 * kMib;
constexpr uint64_t kVgaStart = 0xa0000, kVgaSize = 0x20000;
// Over RAM and PCI; ECAM over everything that is not the processors' own.
constexpr int kWindowPriority = 1, kSmramPriority = 2, kEcamPriority = 2;

constexpr uint8_t kSmramWritable = kSmramOpen | kSmramClosed | kSmramLock | kSmramEnable;
constexpr uint8_t kEsmramWritable = kEsmramHigh | kTsegSize | kTsegEnable;

struct MchV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t confadd;
};
template <class Codec>
void visit(Codec& codec, MchV1& wire) {
  codec.field(1, wire.confadd);
}

uint64_t ecam_bytes(uint64_t pciexbar) {
  switch ((pciexbar >> kPciexbarLengthShift) & 3) {
    case 0: return 256 * kMib;
    case 1: return 128 * kMib;
    case 2: return 64 * kMib;
    default: return 0;
  }
}

}  // namespace

uint64_t Mch::Closed::io_read(uint64_t, unsigned size) { return low_mask(8 * size); }

Mch::Mch(std::string path, Config config, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x29c0, .revision = 0x00, .class_code = 0x060000}),
      static_config_(config),
      wiring_(std::move(wiring)),
      config_ports_(wiring_.bus, wiring_.reset_control),
      shadow_ram_(wiring_.system_memory, wiring_.ram, wiring_.pci),
      ecam_window_(*this, &Mch::read_ecam, &Mch::write_ecam),
      ecam_(Region::io("pcie-mmcfg", kEcamBytes, ecam_window_, {.min_size = 1, .max_size = 4})),
      vga_window_(Region::alias("vga-window", wiring_.pci, kVgaStart, kVgaSize)),
      open_smram_(Region::alias("smram-open", wiring_.ram, kVgaStart, kVgaSize)),
      open_high_smram_(Region::alias("smram-open-high", wiring_.ram, kVgaStart, kVgaSize)),
      smbase_closed_(Region::io("smbase-closed", kSmbaseSize, closed_, {.min_size = 1, .max_size = 8})),
      smram_(Region::container("smram", uint64_t{1} << 32)),
      low_smram_(Region::alias("smram-low", wiring_.ram, kVgaStart, kVgaSize)),
      high_smram_(Region::alias("smram-high", wiring_.ram, kVgaStart, kVgaSize)),
      smbase_(Region::alias("smbase", wiring_.ram, kSmbaseStart, kSmbaseSize)) {
  wiring_.system_memory.add(kVgaStart, vga_window_, kWindowPriority);
  wiring_.system_memory.add(kVgaStart, open_smram_, kSmramPriority);
  wiring_.system_memory.add(kHighSmram, open_high_smram_, kSmramPriority);
  wiring_.system_memory.add(kSmbaseStart, smbase_closed_, kSmramPriority);
  smram_->add(kVgaStart, low_smram_);
  smram_->add(kHighSmram, high_smram_);
  smram_->add(kSmbaseStart, smbase_);

  // [Q35] 5.1.3: memory and bus mastering are always on; SERR# can be chosen.
  config_.let_write16(kCommand, 0x0100);
  config_.let_write16(kExtTsegMbytes, 0xffff);
  config_.let_write32(kPciexbar, static_cast<uint32_t>(kPciexbarAddress) | 7 | kPciexbarBit27 | kPciexbarBit26);
  config_.let_write32(kPciexbar + 4, kPciexbarAddress >> 32);
  config_.writable[kPam0] = ShadowRam::kFirstWritable;
  std::fill_n(config_.writable.begin() + kPam0 + 1, ShadowRam::kRegisters - 1, ShadowRam::kWritable);
  config_.writable[kLac] = 0x81;
  config_.writable[kFSmbase] = 0xff;
  config_.clear_on_one[kEsmramc] = kEsmramError;
  // What can be written of these depends on locks, and what they hold on what the board offers.
  config_.own[kSmram] = kSmramWritable;
  config_.own[kEsmramc] = kEsmramWritable;
  config_.own[kFSmbase] = 0xff;
  const std::lock_guard lock(config_lock_);
  set_reset_values();
}

Mch::~Mch() {
  for (const auto& region : {vga_window_, open_smram_, open_high_smram_, smbase_closed_, ecam_alias_, tseg_closed_})
    if (region != nullptr) wiring_.system_memory.remove(region);
}

void Mch::set_reset_values() {
  config_.set16(kCommand, 0x0006);
  config_.set16(kStatus, 0x0090);
  config_.set16(kExtTsegMbytes, 0);
  config_.set32(kPciexbar, 0xe0000000);
  config_.set32(kPciexbar + 4, 0);
  std::fill_n(config_.bytes.begin() + kPam0, ShadowRam::kRegisters, uint8_t{0});
  config_.bytes[kLac] = 0;
  config_.bytes[kFSmbase] = 0;
  config_.bytes[kSmram] = kSmramBase;
  config_.bytes[kEsmramc] = kEsmramCache;
  config_.set16(kTom, kTomAfterReset);
  config_.set16(kTouud, 0);
  for (const uint8_t stolen : {kGbsm, kBgsm, kTsegmb}) config_.set32(stolen, 0);
  config_.set16(kTolud, kToludAfterReset);
  lock_smram(false);
  protect_smbase();
  apply();
}

void Mch::reset() {
  reset_config();
  const std::lock_guard lock(config_lock_);
  set_reset_values();
  config_ports_.set_address(0);
}

void Mch::config_written(uint16_t offset, unsigned size, uint32_t) {
  const auto touches = [=](uint16_t first, unsigned count) { return offset < first + count && offset + size > first; };
  if (touches(kExtTsegMbytes, 2)) {
    const bool asked = config_.get16(kExtTsegMbytes) == kExtTsegQuery && static_config_.extended_tseg_mbytes != 0;
    config_.set16(kExtTsegMbytes, asked ? static_config_.extended_tseg_mbytes : uint16_t{0});
  }
  if (touches(kFSmbase, 1)) smbase_written();
  if (touches(kSmram, 1) && (config_.bytes[kSmram] & kSmramLock) != 0) lock_smram(true);
  if (touches(kPciexbar, 8) || touches(kPam0, ShadowRam::kRegisters) || touches(kFSmbase, 3)) apply();
}

// [Q35] 5.1.33: D_LCK clears D_OPEN; until the next reset all that decides about SMRAM can only be read.
void Mch::lock_smram(bool locked) {
  config_.writable[kSmram] = locked ? kSmramClosed : kSmramWritable;
  config_.writable[kEsmramc] = locked ? 0 : kEsmramWritable;
  config_.let_write16(kTom, locked ? 0 : kTomBits);
  config_.let_write16(kTouud, locked ? 0 : kTouudBits);
  for (const uint8_t stolen : {kGbsm, kBgsm, kTsegmb}) config_.let_write32(stolen, locked ? 0 : kStolenBits);
  config_.let_write16(kTolud, locked ? 0 : kToludBits);
  if (locked) config_.bytes[kSmram] = static_cast<uint8_t>(config_.bytes[kSmram] & ~kSmramOpen);
}

// Asking offers, and only what was offered can be taken. Without the feature the register is scratch space, as it is on
// older machines.
void Mch::smbase_written() {
  if (!static_config_.smram_at_smbase) return;
  uint8_t& reg = config_.bytes[kFSmbase];
  const bool offered = config_.writable[kFSmbase] != 0xff;
  if (offered)
    reg = (reg & kSmbaseLocked) != 0 ? kSmbaseLocked : kSmbaseOffered;
  else
    reg = reg == kSmbaseQuery ? kSmbaseOffered : uint8_t{0};
  protect_smbase();
}

void Mch::protect_smbase() {
  const uint8_t reg = config_.bytes[kFSmbase];
  const bool scratch = !static_config_.smram_at_smbase || reg == 0;
  config_.writable[kFSmbase] = scratch ? 0xff : reg == kSmbaseOffered ? kSmbaseLocked : 0;
}

uint64_t Mch::tseg_size() const {
  if ((config_.bytes[kEsmramc] & kTsegEnable) == 0 || (config_.bytes[kSmram] & kSmramEnable) == 0) return 0;
  switch ((config_.bytes[kEsmramc] & kTsegSize) >> kTsegSizeShift) {
    case 0: return kMib;
    case 1: return 2 * kMib;
    case 2: return 8 * kMib;
    default: return static_config_.extended_tseg_mbytes * kMib;
  }
}

uint64_t Mch::tseg_bytes() {
  const std::lock_guard lock(config_lock_);
  return shown_tseg_;
}

void Mch::apply() {
  shadow_ram_.apply(std::span<const uint8_t, ShadowRam::kRegisters>(&config_.bytes[kPam0], ShadowRam::kRegisters));
  apply_ecam();
  apply_smram();
  apply_tseg(std::min(tseg_size(), static_config_.ram_below_4g - kMib));
}

void Mch::apply_ecam() {
  const uint64_t value = config_.get32(kPciexbar) | uint64_t{config_.get32(kPciexbar + 4)} << 32;
  const uint64_t bytes = (value & kPciexbarEnable) != 0 ? ecam_bytes(value) : 0;
  const uint64_t wanted = bytes != 0 ? value : 0;
  if (wanted == shown_ecam_) return;
  if (ecam_alias_ != nullptr) wiring_.system_memory.remove(ecam_alias_);
  ecam_alias_ = nullptr;
  shown_ecam_ = wanted;
  if (bytes == 0) return;
  ecam_alias_ = Region::alias("pcie-mmcfg-window", ecam_, 0, bytes);
  wiring_.system_memory.add(align_down(value & (kPciexbarAddress | kPciexbarBit27 | kPciexbarBit26), bytes),
                            ecam_alias_, kEcamPriority);
}

void Mch::apply_smram() {
  const uint8_t smram = config_.bytes[kSmram];
  const bool enabled = (smram & kSmramEnable) != 0, open = (smram & kSmramOpen) != 0;
  const bool high = (config_.bytes[kEsmramc] & kEsmramHigh) != 0;
  open_smram_->set_enabled(open && !high);
  open_high_smram_->set_enabled(open && high);
  low_smram_->set_enabled(enabled && !high);
  high_smram_->set_enabled(enabled && high);
  const bool smbase = static_config_.smram_at_smbase && config_.bytes[kFSmbase] == kSmbaseLocked;
  smbase_closed_->set_enabled(smbase);
  smbase_->set_enabled(smbase);
}

void Mch::apply_tseg(uint64_t bytes) {
  if (bytes == shown_tseg_) return;
  shown_tseg_ = bytes;
  if (tseg_closed_ != nullptr) {
    wiring_.system_memory.remove(tseg_closed_);
    smram_->remove(tseg_);
    tseg_closed_ = tseg_ = nullptr;
  }
  if (bytes == 0) return;
  const uint64_t start = static_config_.ram_below_4g - bytes;
  tseg_closed_ = Region::io("tseg-closed", bytes, closed_, {.min_size = 1, .max_size = 8});
  tseg_ = Region::alias("tseg", wiring_.ram, start, bytes);
  wiring_.system_memory.add(start, tseg_closed_, kSmramPriority);
  smram_->add(start, tseg_);
}

// [PCIe 3.0] 7.2.2: bus in 27:20, device and function in 19:12, register in 11:0.
uint64_t Mch::read_ecam(uint64_t offset, unsigned size) {
  return wiring_.bus.config_read(static_cast<uint8_t>(offset >> 20), static_cast<uint8_t>(offset >> 12),
                                 static_cast<uint16_t>(offset & 0xfff), size);
}

void Mch::write_ecam(uint64_t offset, unsigned size, uint64_t value) {
  wiring_.bus.config_write(static_cast<uint8_t>(offset >> 20), static_cast<uint8_t>(offset >> 12),
                           static_cast<uint16_t>(offset & 0xfff), size, static_cast<uint32_t>(value));
}

void Mch::save(StateWriter& writer) {
  save_section(writer, path(), MchV1{.confadd = config_ports_.address()}, [&] { save_config(writer); });
}

void Mch::restore(StateReader& reader) {
  MchV1 wire{};
  if (!restore_section(reader, path(), wire, [&] {
        if (require(reader, (wire.confadd & ~ConfigMechanism::kWritable) == 0,
                    "the configuration address has unknown bits"))
          restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  lock_smram((config_.bytes[kSmram] & kSmramLock) != 0);
  if (static_config_.smram_at_smbase && config_.bytes[kFSmbase] > kSmbaseLocked) config_.bytes[kFSmbase] = 0;
  protect_smbase();
  apply();
  config_ports_.set_address(wire.confadd);
}

}  // namespace kite::devices
