// The command engine of an AHCI port. [AHCI] 5.3, 5.5, 5.6; 6.2 for errors.
#include <algorithm>
#include <bit>
#include <cstring>

#include "devices/ahci/ahci_port.h"
#include "devices/ahci/ahci_regs.h"
#include "devices/ata/ata_disk.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace ahci;
using namespace ata;

namespace {

bool is_queued(uint8_t opcode) { return opcode == op::kReadFpdmaQueued || opcode == op::kWriteFpdmaQueued; }

// [SATA] 10.3.4
Taskfile taskfile_of(std::span<const uint8_t> fis) {
  Taskfile regs;
  regs.features = {fis[3], fis[11]};
  for (unsigned i = 0; i < 3; ++i) regs.lba[i] = {fis[4 + i], fis[8 + i]};
  regs.count = {fis[12], fis[13]};
  regs.device = fis[7];
  return regs;
}

}  // namespace

// --- fetching commands

void AhciPort::process() {
  while (!state_.running && !state_.halted && !stopping_ && (state_.cmd & kSt) != 0 && (state_.cmd & kFre) != 0 &&
         wiring_.may_master()) {
    AtaDevice* const disk = device();
    const uint32_t waiting = state_.ci & ~state_.queued;
    if (waiting == 0 || disk == nullptr || (disk->resetting() && !disk->reset_held())) return;
    // [AHCI] 5.3.13: the slots take turns.
    const uint32_t later = waiting & ~((uint32_t{2} << state_.slot) - 1);
    if (!fetch(static_cast<unsigned>(std::countr_zero(later != 0 ? later : waiting)))) return;
  }
}

Result<AhciPort::Header> AhciPort::header(unsigned slot) const {
  std::array<uint8_t, 16> bytes;
  KITE_TRY(wiring_.memory.read(state_.clb + slot * kHeaderBytes, bytes));
  return Header{.flags = load<uint16_t>(bytes.data()),
                .prdt_length = load<uint16_t>(&bytes[2]),
                .table = load<uint64_t>(&bytes[8]) & ~uint64_t{0x7f}};
}

bool AhciPort::fetch(unsigned slot) {
  state_.slot = static_cast<uint8_t>(slot);
  const auto found = header(slot);
  std::array<uint8_t, 20> fis;
  if (!found || !wiring_.memory.read(found->table, fis)) {
    halt(kHbfs);
    return false;
  }
  if (fis[0] != kFisH2d || (fis[1] & 0x0f) != 0) {  // to a port multiplier, which there is none of, or nonsense
    state_.ci &= ~(uint32_t{1} << slot);
    return true;
  }
  if ((fis[1] & kFisCommand) == 0) {
    control(slot, fis[15]);
    return true;
  }
  if (device()->reset_held()) return false;  // deaf until the reset is over
  const uint8_t opcode = fis[2];
  if (is_queued(opcode) && !device()->is_packet_device()) {
    begin_queued(slot, *found, opcode, taskfile_of(fis));
  } else {
    begin(slot, opcode, taskfile_of(fis));
  }
  return true;
}

// A software reset comes as two FISes, SRST set and cleared. [AHCI] 10.4.1
void AhciPort::control(unsigned slot, uint8_t control) {
  AtaDevice& disk = *device();
  state_.ci &= ~(uint32_t{1} << slot);
  if ((control & kSrst) != 0) {
    state_.sact = state_.queued = issued_ = 0;
    disk.assert_reset();
    set_tfd(kBsy, 0);
  } else if (disk.reset_held()) {
    disk.release_reset();
    state_.signature_due = true;
    settle();
  }
}

void AhciPort::begin(unsigned slot, uint8_t opcode, const Taskfile& regs) {
  AtaDevice& disk = *device();
  state_.running = true;
  state_.slot = static_cast<uint8_t>(slot);
  state_.entry = state_.used = state_.moved = 0;
  set_tfd(kBsy | kDrdy, 0);
  disk.write_taskfile(regs);
  // [ATA8-ACS] 7.9: the answer is the signature.
  opcode == op::kDiagnostic ? disk.run_diagnostic() : disk.command(opcode);
  pump();
}

// --- moving data

Result<std::vector<SgEntry>> AhciPort::collect(const Header& header, uint64_t bytes, uint32_t& entry,
                                               uint32_t& used) const {
  std::vector<SgEntry> list;
  while (bytes != 0 && entry < header.prdt_length) {
    std::array<uint8_t, kPrdBytes> prd;
    KITE_TRY(wiring_.memory.read(header.table + kTablePrdt + entry * kPrdBytes, prd));
    const uint32_t size = ((load<uint32_t>(&prd[12]) & 0x3fffff) | 1) + 1;  // [AHCI] 4.2.3.3: even
    const uint32_t left = size - std::min(size, used);
    const auto take = static_cast<uint32_t>(std::min<uint64_t>(bytes, left));
    if (take != 0) list.push_back({.address = (load<uint64_t>(prd.data()) & ~uint64_t{1}) + used, .bytes = take});
    bytes -= take;
    used += take;
    if (take != left) break;
    ++entry;
    used = 0;
  }
  return list;
}

void AhciPort::pump() {
  if (in_pump_) return;
  in_pump_ = true;
  while (state_.running) {
    AtaDevice* const disk = device();
    if (disk == nullptr || disk->resetting() || disk->dma_running() || disk->phase() == AtaDevice::Phase::kIo) break;
    if (disk->phase() == AtaDevice::Phase::kIdle) {
      complete(*disk);
    } else if (const auto wanted = disk->dma_wanted()) {
      move_dma(*disk, wanted->bytes, wanted->to_host);
    } else {
      move_pio(*disk);
    }
  }
  in_pump_ = false;
}

// One DRQ block: a PIO Setup FIS, then the data. [AHCI] 5.3.11, 5.3.12
void AhciPort::move_pio(AtaDevice& disk) {
  const std::span<uint8_t> block = disk.pio_block();
  const size_t bytes = block.size();
  const bool to_host = disk.phase() == AtaDevice::Phase::kPioIn, packet = disk.wants_packet();
  const uint8_t before = disk.status();
  const bool interrupt = disk.interrupt();
  disk.acknowledge();
  const auto from = header(state_.slot);
  if (!from) return halt(kHbfs);
  if (packet) {
    if (!wiring_.memory.read(from->table + kTableAcmd, block)) return halt(kHbfs);
  } else {
    auto list = collect(*from, bytes, state_.entry, state_.used);
    if (!list) return halt(kHbfs);
    auto data = SgBuffer::pin(wiring_.memory, *list, to_host ? DmaDirection::kToGuest : DmaDirection::kFromGuest);
    if (!data) return halt(kHbfs);
    const uint64_t moved = data->bytes();
    if (moved < bytes) state_.is |= kOfs;  // [AHCI] 6.1.5: the device's data ends in the void
    if (moved < bytes && !to_host) std::ranges::fill(block, uint8_t{0});
    to_host ? data->slice().copy_from(block.data()) : data->slice().copy_to(block.data());
    data->complete(moved);
    state_.moved += static_cast<uint32_t>(moved);
  }
  disk.pio_moved(bytes);
  post_pio_setup(disk, to_host, before, interrupt, bytes);
}

void AhciPort::move_dma(AtaDevice& disk, uint64_t bytes, bool to_host) {
  const auto from = header(state_.slot);
  if (!from) return halt(kHbfs);
  begun_entry_ = state_.entry;
  begun_used_ = state_.used;
  auto list = collect(*from, bytes, state_.entry, state_.used);
  if (!list) return halt(kHbfs);
  auto data = SgBuffer::pin(wiring_.memory, *list, to_host ? DmaDirection::kToGuest : DmaDirection::kFromGuest);
  if (!data) return halt(kHbfs);
  if (data->bytes() < bytes) state_.is |= kOfs;
  disk.dma(std::move(*data));
}

void AhciPort::ata_dma_ended(AtaDevice&, uint64_t moved) { state_.moved += static_cast<uint32_t>(moved); }

// --- ends

void AhciPort::complete(AtaDevice& disk) {
  const uint32_t slot_bit = uint32_t{1} << state_.slot;
  state_.running = false;
  // [AHCI] 5.4.1: PRDBC is there before the bit in PxCI goes.
  (void)wiring_.memory.store(state_.clb + state_.slot * kHeaderBytes + 4, state_.moved);
  disk.acknowledge();
  const bool failed = (disk.status() & kErr) != 0;
  post_d2h(disk, true);
  if (failed) return halt(kTfes);
  state_.ci &= ~slot_bit;
}

// [AHCI] 6.2.2: nothing is fetched any more; the bits in PxCI and PxSACT tell what was under way.
void AhciPort::halt(uint32_t interrupt) {
  state_.halted = true;
  state_.running = false;
  state_.is |= interrupt;
  if (AtaDevice* disk = device()) disk->abandon();
}

// --- queued commands

void AhciPort::begin_queued(unsigned slot, const Header& header, uint8_t opcode, const Taskfile& regs) {
  auto& disk = static_cast<AtaDisk&>(*device());
  state_.ci &= ~(uint32_t{1} << slot);
  if (!run_queued(header, disk, opcode, regs)) return;
  // The device has accepted it and lets the bus go. [SATA] 13.6.2
  set_tfd(kDrdy | kDsc, 0);
}

// False when it failed at once.
bool AhciPort::run_queued(const Header& header, AtaDisk& disk, uint8_t opcode, const Taskfile& regs) {
  const auto queued = disk.parse_queued(opcode, regs);
  if (!queued) {
    fail_queued(disk.queued_error());
    return false;
  }
  const uint64_t bytes = uint64_t{queued->blocks} * kSectorBytes;
  uint32_t entry = 0, used = 0;
  const auto list = collect(header, bytes, entry, used);
  auto data =
      list ? SgBuffer::pin(wiring_.memory, *list, queued->write ? DmaDirection::kFromGuest : DmaDirection::kToGuest)
           : Result<SgBuffer>(Failure(list.error()));
  if (!data) {
    halt(kHbfs);
    return false;
  }
  if (data->bytes() != bytes) {
    state_.is |= kOfs;
    disk.fail_queued(queued->tag, regs, kAbrt);
    fail_queued(kAbrt);
    return false;
  }
  const uint32_t bit = uint32_t{1} << queued->tag;
  state_.queued |= bit;
  issued_ |= bit;
  post_dma_setup(!queued->write, queued->tag, bytes);
  disk.run_queued(*queued, std::move(*data));
  return true;
}

// After restore(): the commands are still in the list, tag and slot being one. [AHCI] 5.6.4
void AhciPort::resume_queued() {
  AtaDevice* const disk = device();
  if (disk == nullptr || disk->is_packet_device() || disk->resetting()) return;
  for (unsigned tag = 0; tag < kSlots; ++tag) {
    const uint32_t bit = uint32_t{1} << tag;
    if ((state_.queued & ~issued_ & bit) == 0) continue;
    state_.queued &= ~bit;
    std::array<uint8_t, 20> fis;
    const auto from = header(tag);
    if (!from || !wiring_.memory.read(from->table, fis) || !is_queued(fis[2])) return halt(kHbfs);
    if (!run_queued(*from, static_cast<AtaDisk&>(*disk), fis[2], taskfile_of(fis))) return;
  }
}

void AhciPort::ata_queued_ended(AtaDevice&, uint8_t tag, uint8_t error) {
  const uint32_t bit = uint32_t{1} << tag;
  issued_ &= ~bit;
  state_.queued &= ~bit;
  if (error == 0) {
    state_.sact &= ~bit;
    post_device_bits(kDrdy | kDsc, 0, bit);
  } else {
    fail_queued(error);
  }
  process();
  wiring_.changed();
}

// [SATA] 13.6.5: one failure ends them all; the host reads the log.
void AhciPort::fail_queued(uint8_t error) {
  state_.queued = issued_ = 0;
  post_device_bits(kDrdy | kDsc | kErr, error, 0);
  halt(kTfes);
}

// --- FISes

void AhciPort::post(uint64_t place, std::span<const uint8_t> fis) {
  if ((state_.cmd & kFre) != 0) (void)wiring_.memory.write(state_.fb + place, fis);
}

namespace {

// The part that D2H and PIO Setup have in common. [SATA] 10.3.5, 10.3.11
void put_taskfile(std::span<uint8_t> fis, const AtaDevice& disk, uint8_t status) {
  const Taskfile& regs = disk.regs();
  fis[2] = status;
  fis[3] = disk.error();
  for (unsigned i = 0; i < 3; ++i) {
    fis[4 + i] = regs.lba[i].value;
    fis[8 + i] = regs.lba[i].hob;
  }
  fis[7] = regs.device;
  fis[12] = regs.count.value;
  fis[13] = regs.count.hob;
}

}  // namespace

void AhciPort::post_d2h(const AtaDevice& disk, bool interrupt) {
  std::array<uint8_t, 20> fis{};
  fis[0] = kFisD2h;
  fis[1] = interrupt ? kFisInterrupt : 0;
  put_taskfile(fis, disk, disk.status());
  set_tfd(disk.status(), disk.error());
  post(kRxD2h, fis);
  if (interrupt) state_.is |= kDhrs;
}

void AhciPort::post_pio_setup(const AtaDevice& disk, bool to_host, uint8_t before, bool interrupt, size_t bytes) {
  std::array<uint8_t, 20> fis{};
  fis[0] = kFisPioSetup;
  fis[1] = static_cast<uint8_t>((to_host ? kFisToHost : 0) | (interrupt ? kFisInterrupt : 0));
  put_taskfile(fis, disk, before);
  fis[15] = disk.phase() == AtaDevice::Phase::kIdle ? disk.status() : kBsy | kDrdy;
  store(&fis[16], static_cast<uint16_t>(bytes));
  set_tfd(fis[15], disk.error());
  post(kRxPioSetup, fis);
  if (interrupt) state_.is |= kPss;
}

// [SATA] 10.3.6: BSY and DRQ have no place in it.
void AhciPort::post_device_bits(uint8_t status, uint8_t error, uint32_t done) {
  std::array<uint8_t, 8> fis{};
  fis[0] = kFisDeviceBits;
  fis[1] = kFisInterrupt;
  fis[2] = status & 0x77;
  fis[3] = error;
  store(&fis[4], done);
  set_tfd(status, error);
  post(kRxDeviceBits, fis);
  state_.is |= kSdbs;
}

// [SATA] 10.3.8
void AhciPort::post_dma_setup(bool to_host, uint8_t tag, uint64_t bytes) {
  std::array<uint8_t, 28> fis{};
  fis[0] = kFisDmaSetup;
  fis[1] = to_host ? kFisToHost : 0;
  fis[4] = tag;
  store(&fis[20], static_cast<uint32_t>(bytes));
  post(kRxDmaSetup, fis);
}

}  // namespace kite::devices
