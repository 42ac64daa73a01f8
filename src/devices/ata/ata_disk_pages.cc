// The 512-byte data structures of an ATA disk: IDENTIFY DEVICE, SMART, logs.
#include <algorithm>
#include <bit>
#include <numeric>

#include "devices/ata/ata_disk.h"
#include "devices/ata/ata_pages.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace ata;

namespace {

constexpr uint64_t kMost28 = 0x0fff'ffff;
constexpr uint64_t kMostChsBlocks = 16383 * 16 * 63;

// SMART attributes; all at their best, so that no threshold is crossed. [ATA8-ACS] 7.52.6 leaves their meaning to the
// maker.
struct Attribute {
  uint8_t id;
  uint16_t flags;  // bit 0: failure is predicted from it, bit 1: updated while the disk works
  uint8_t value, threshold;
  uint64_t raw;
};
constexpr Attribute kAttributes[] = {
    {1, 0x000b, 100, 6, 0},    // read errors
    {3, 0x0003, 100, 0, 16},   // time to spin up
    {4, 0x0002, 100, 20, 1},   // starts
    {5, 0x0003, 100, 36, 0},   // sectors put elsewhere
    {9, 0x0003, 100, 0, 1},    // hours under power
    {12, 0x0003, 100, 0, 1},   // power cycles
    {194, 0x0002, 100, 0, 0},  // temperature, not measured
};

}  // namespace

// [ATA8-ACS] 7.16
AtaDisk::Page AtaDisk::identify_page() const {
  Page page{};
  const auto word = [&page](unsigned index, uint64_t value) { put_word(page, index, value); };
  const uint64_t total = blocks();
  const uint64_t track = uint64_t{disk_.heads} * disk_.sectors;
  const uint64_t cylinders = std::min<uint64_t>(std::min(total, kMostChsBlocks) / track, 65535);
  const uint64_t chs_blocks = cylinders * track;
  word(0, 0x0040);  // a fixed device
  word(1, geometry_.cylinders);
  word(3, geometry_.heads);
  word(4, uint64_t{kSectorBytes} * geometry_.sectors);  // these two retired; the oldest software wants them
  word(5, kSectorBytes);
  word(6, geometry_.sectors);
  put_text(page, 10, 20, serial_);
  word(20, 3);    // retired: a buffer with read look-ahead
  word(21, 128);  // retired: its size in blocks
  word(22, 4);    // retired: ECC bytes
  put_text(page, 23, 8, version_);
  put_text(page, 27, 40, model_);
  word(47, 0x8000 | kMostMultiple);
  word(48, 1);       // retired: 32-bit accesses of the data register
  word(49, 0x2f00);  // standby timers, IORDY, IORDY can be disabled, LBA, DMA
  word(50, 0x4000);
  word(51, 0x0200);
  word(53, 0x0007);
  word(54, cylinders);
  word(55, disk_.heads);
  word(56, disk_.sectors);
  word(57, chs_blocks & 0xffff);
  word(58, chs_blocks >> 16);
  word(59, disk_.multiple == 0 ? 0 : 0x0100u | disk_.multiple);
  const uint64_t total_28 = std::min(total, kMost28);
  word(60, total_28 & 0xffff);
  word(61, total_28 >> 16);
  identify_features(page);
  for (unsigned i = 0; i < 4; ++i) word(100 + i, total >> 16 * i & 0xffff);
  if (config_.physical_block_bytes > kSectorBytes)
    word(106, 0x6000u | static_cast<unsigned>(std::countr_zero(config_.physical_block_bytes / kSectorBytes)));
  for (unsigned i = 0; i < 4 && config_.wwn != 0; ++i) word(108 + i, config_.wwn >> (48 - 16 * i) & 0xffff);
  word(217, rotation_rate_);
  word(222, wiring_.serial ? 0x103f : 0);
  page[510] = 0xa5;
  set_checksum(page);
  return page;
}

// Words 63 to 93 and what belongs to them: what can be switched, and whether it is.
void AtaDisk::identify_features(Page& page) const {
  const auto word = [&page](unsigned index, uint64_t value) { put_word(page, index, value); };
  const unsigned mode = disk_.transfer_mode, selected = 0x0100u << (mode & 7);
  const unsigned most_udma = wiring_.serial ? 0x7f : 0x3f;
  word(63, 0x07 | (mode >> 3 == 4 ? selected : 0));
  word(64, 0x0003);
  for (unsigned i = 65; i <= 68; ++i) word(i, 120);  // ns a cycle
  if (wiring_.serial) {
    word(75, kQueueDepth - 1);
    word(76, 0x010e);  // generations 1 to 3, queued commands
    word(77, 0x0006);  // runs at generation 3
  }
  word(80, 0x01f0);  // ATA/ATAPI-4 to ATA8-ACS
  const unsigned cache = (disk_.write_cache ? 0x20u : 0) | (disk_.look_ahead ? 0x40u : 0);
  const unsigned wwn = config_.wwn != 0 ? 0x0100 : 0;
  word(82, 0x7069);        // NOP, READ and WRITE BUFFER, look-ahead, write cache, power management, SMART
  word(83, 0x7400);        // both FLUSH CACHE, 48-bit addresses
  word(84, 0x4063 | wwn);  // FUA, general purpose logging, SMART self test and error log
  word(85, 0x7008 | cache | (disk_.smart ? 1u : 0));
  word(86, 0x3400);
  word(87, 0x4063 | wwn);
  word(88, most_udma | (mode >> 3 == 8 ? selected : 0));
  // How the reset went: this device has passed, an 80-conductor cable. [ATA8-ACS] 7.16.7.48
  if (!wiring_.serial) word(93, (wiring_.unit & 1) == 0 ? 0x600b : 0x6b00);
  word(119, 0x4008);  // READ LOG DMA EXT
  word(120, 0x4008);
  if (config_.discard_granularity != 0) {
    word(105, kBufferSectors);
    word(169, 0x0001);
  }
}

void AtaDisk::offer_pages(size_t pages, bool by_dma) {
  by_dma ? begin_buffer_dma(pages * kSectorBytes, true) : begin_pio_in(pages * kSectorBytes, kSectorBytes);
}

void AtaDisk::identify() {
  std::ranges::copy(identify_page(), buffer().begin());
  offer_pages(1, false);
}

void AtaDisk::read_buffer() { offer_pages(1, false); }
void AtaDisk::write_buffer() { begin_pio_out(kSectorBytes, kSectorBytes, false); }

// --- SMART

AtaDisk::Page AtaDisk::smart_data() const {
  Page page{};
  store<uint16_t>(page.data(), 1);
  uint8_t* at = page.data() + 2;
  for (const Attribute& attribute : kAttributes) {
    at[0] = attribute.id;
    store(at + 1, attribute.flags);
    at[3] = at[4] = attribute.value;
    store_le(at + 5, 6, attribute.raw);
    at += 12;
  }
  page[362] = disk_.auto_offline ? 0x82 : 0x02;  // off-line collection has completed
  page[363] = disk_.self_tests[0].status;        // [ATA8-ACS] table 67
  store<uint16_t>(&page[364], 1);                // seconds of an off-line collection
  page[367] = 0x19;                              // collection, self tests
  store<uint16_t>(&page[368], 0x0003);           // attributes are saved
  page[370] = 1;                                 // errors are logged
  page[372] = page[373] = 1;                     // minutes of a short and a long self test
  set_checksum(page);
  return page;
}

AtaDisk::Page AtaDisk::smart_thresholds() const {
  Page page{};
  store<uint16_t>(page.data(), 1);
  uint8_t* at = page.data() + 2;
  for (const Attribute& attribute : kAttributes) {
    at[0] = attribute.id;
    at[1] = attribute.threshold;
    at += 12;
  }
  set_checksum(page);
  return page;
}

// [ATA8-ACS] A.14
AtaDisk::Page AtaDisk::self_test_log() const {
  Page page{};
  store<uint16_t>(page.data(), 1);
  uint8_t entries = 0;
  // Entries are filled in a ring; the index is that of the latest.
  for (size_t i = disk_.self_tests.size(); i-- > 0;) {
    if (disk_.self_tests[i].number == 0) continue;
    uint8_t* const entry = &page[2 + 24 * size_t{entries++}];
    entry[0] = disk_.self_tests[i].number;
    entry[1] = disk_.self_tests[i].status;
  }
  page[508] = entries;
  set_checksum(page);
  return page;
}

// [ATA8-ACS] 7.52
void AtaDisk::smart_command() {
  Taskfile& regs = state_.regs;
  const uint8_t subcommand = regs.features.value;
  const unsigned key = regs.lba[1].value | unsigned{regs.lba[2].value} << 8;
  if (key != smart::kKey || (!disk_.smart && subcommand != smart::kEnable)) return abort();
  const auto send = [this](const Page& page) {
    std::ranges::copy(page, buffer().begin());
    offer_pages(1, false);
  };
  switch (subcommand) {
    case smart::kReadData: return send(smart_data());
    case smart::kReadThresholds: return send(smart_thresholds());
    case smart::kReadLog: return smart_read_log();
    case smart::kExecuteOffline: return smart_self_test();
    case smart::kAutosave: disk_.smart_autosave = regs.count.value != 0; break;
    case smart::kAutoOffline: disk_.auto_offline = regs.count.value != 0; break;
    case smart::kSaveAttributes: break;
    case smart::kEnable: disk_.smart = true; break;
    case smart::kDisable: disk_.smart = false; break;
    case smart::kReturnStatus: break;  // the key stays as it is: no threshold exceeded
    default: return abort();
  }
  finish();
}

void AtaDisk::smart_read_log() {
  if (state_.regs.count.value != 1) return abort();
  Page page{};
  switch (state_.regs.lba[0].value) {
    case log_page::kDirectory:
      store<uint16_t>(page.data(), 1);
      page[2 * log_page::kSummaryErrors] = page[2 * log_page::kSelfTest] = 1;
      break;
    case log_page::kSummaryErrors:  // none
      page[0] = 1;
      set_checksum(page);
      break;
    case log_page::kSelfTest: page = self_test_log(); break;
    default: return abort();
  }
  std::ranges::copy(page, buffer().begin());
  offer_pages(1, false);
}

// Self tests have nothing to find and end at once. [ATA8-ACS] 7.52.5
void AtaDisk::smart_self_test() {
  const uint8_t test = state_.regs.lba[0].value;
  switch (test) {
    case 0x00: return finish();  // off-line collection
    case 0x7f: return finish();  // abort a self test
    case 0x01:
    case 0x02:
    case 0x81:
    case 0x82:
      std::ranges::rotate(disk_.self_tests, disk_.self_tests.end() - 1);
      disk_.self_tests[0] = {.number = test, .status = 0};
      return finish();
    default: abort();
  }
}

// --- general purpose logs. [ATA8-ACS] 7.27, annex A

AtaDisk::Page AtaDisk::queued_error_log() const {
  Page page{};
  const QueueError& error = disk_.queue_error;
  constexpr uint8_t kNotQueued = 0x80;
  page[0] = error.valid ? error.tag : kNotQueued;
  page[2] = error.status;
  page[3] = error.error;
  for (unsigned i = 0; i < 3; ++i) {
    page[4 + i] = static_cast<uint8_t>(error.block >> 8 * i);
    page[8 + i] = static_cast<uint8_t>(error.block >> 8 * (i + 3));
  }
  page[7] = error.device;
  store(&page[12], error.count);
  set_checksum(page);
  return page;
}

void AtaDisk::read_log() {
  const Taskfile& regs = state_.regs;
  const uint8_t address = regs.lba[0].value;
  const unsigned first = regs.lba[1].value | unsigned{regs.lba[1].hob} << 8;
  if (first != 0 || count() != 1) return abort();  // every log here has one page
  Page page{};
  switch (address) {
    case log_page::kDirectory:
      store<uint16_t>(page.data(), 1);
      if (wiring_.serial) page[2 * log_page::kQueuedError] = 1;
      break;
    case log_page::kQueuedError:
      if (!wiring_.serial) return abort();
      page = queued_error_log();
      disk_.queue_error = {};
      break;
    default: return abort();
  }
  std::ranges::copy(page, buffer().begin());
  offer_pages(1, state_.opcode == op::kReadLogDmaExt);
}

}  // namespace kite::devices
