// The NVMe controller as a PCI function: registers, doorbells, reset and shutdown.
#include "devices/nvme/nvme_controller.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "devices/nvme/namespace_bus.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::devices {

using namespace nvme;

namespace {

constexpr uint64_t kWindowBytes = 0x2000, kMsixTable = 0x2000, kMsixPending = 0x3000, kBarBytes = 0x4000;
constexpr uint8_t kMsixOffset = 0x40, kExpressOffset = 0x80;
constexpr unsigned kCmbBar = 2, kPersistentBar = 4;
constexpr uint64_t kTimeout = 15;  // CAP.TO: 7.5 s, in units of 500 ms
// CMBSZ: data of reads and writes, lists, completion and submission queues; in units of 1 MiB.
constexpr uint32_t kCmbUses = 0x1f, kCmbUnitMib = 2u << 8;
constexpr size_t kMostSerial = 20;

bus::PciIds ids() { return {.vendor = 0x1b36, .device = 0x0010, .revision = 2, .class_code = 0x010802}; }

bus::PciGeneration generation(const NvmeController::Config& config) {
  return config.express ? bus::PciGeneration::kExpress : bus::PciGeneration::kConventional;
}

}  // namespace

Result<std::unique_ptr<NvmeController>> NvmeController::create(std::string path, Config config, GuestMemory& memory) {
  if (config.serial.empty() || config.serial.size() > kMostSerial)
    return fail("-device nvme: serial={}: give a serial number of 1 to {} characters", config.serial, kMostSerial);
  const uint64_t cmb_bytes = config.cmb_bytes;
  std::unique_ptr<NvmeController> made(new NvmeController(std::move(path), std::move(config), memory));
  if (cmb_bytes != 0) {
    KITE_ASSIGN(made->cmb_, RamBlock::create(made->path() + ".cmb", cmb_bytes));
    made->declare_bar(kCmbBar, Region::ram_device("nvme-cmb", made->cmb_),
                      {.size = cmb_bytes, .prefetchable = true, .is_64 = true});
  }
  if (const auto& block = made->options_.persistent; block != nullptr) {
    made->persistent_region_ = Region::ram_device("nvme-pmr", block);
    made->persistent_region_->set_enabled(false);
    auto container = Region::container("nvme-pmr-bar", block->size());
    container->add(0, made->persistent_region_);
    made->declare_bar(kPersistentBar, std::move(container),
                      {.size = block->size(), .prefetchable = true, .is_64 = true});
  }
  return made;
}

NvmeController::NvmeController(std::string path, Config config, GuestMemory& memory)
    : PciDevice(std::move(path), ids(), bus::PciHeader::kDevice, generation(config)),
      options_(std::move(config)),
      memory_(memory),
      window_(*this, &NvmeController::read, &NvmeController::write),
      bus_(std::make_unique<NamespaceBus>(*this)),
      msix_(*this, {.offset = kMsixOffset,
                    .vectors = static_cast<uint16_t>(options_.vectors),
                    .bar = 0,
                    .table = kMsixTable,
                    .pending = kMsixPending}) {
  auto registers = Region::container("nvme", kBarBytes);
  registers->add(0, Region::io("nvme-registers", kWindowBytes, window_, {.min_size = 1, .max_size = 8}));
  registers->add(kMsixTable, msix_.table_region());
  registers->add(kMsixPending, msix_.pending_region());
  declare_bar(0, std::move(registers), {.size = kBarBytes, .is_64 = true});
  set_interrupt_pin(1);
  if (options_.express) add_express_capability({.offset = kExpressOffset, .type = *options_.express});
}

NvmeController::~NvmeController() {
  bus_->quiesce();
  own_namespace_.reset();
}

Result<> NvmeController::add_own_namespace(const DiskConfig& disk, const NvmeNamespace::Identity& identity) {
  KITE_ASSIGN(own_namespace_, NvmeNamespace::create("nvme", path() + ".1", disk, identity));
  return bus_->add(*own_namespace_);
}

DiskBus& NvmeController::bus_of_namespaces() { return *bus_; }

NvmeNamespace* NvmeController::find_namespace(uint32_t nsid) const {
  return nsid < namespaces_.size() ? namespaces_[nsid] : nullptr;
}

// --- registers

uint64_t NvmeController::capabilities() const {
  return (kMostEntries - 1) | uint64_t{1} << kCapCqr | kTimeout << kCapTo | uint64_t{1} << kCapCss |
         uint64_t{kLargestPageShift} << kCapMpsMax | uint64_t{persistent_region_ != nullptr} << kCapPmrs |
         uint64_t{cmb_ != nullptr} << kCapCmbs;
}

uint64_t NvmeController::register_at(uint64_t offset) const {
  const bool cmb = (state_.cmbmsc & kCmbCapabilities) != 0;
  switch (offset) {
    case CAP: return capabilities();
    case VS: return kVersion14 | uint64_t{state_.interrupt_mask} << 32;  // INTMS
    case INTMC: return state_.interrupt_mask | uint64_t{state_.cc} << 32;
    case CSTS & ~7u: return uint64_t{state_.csts} << 32;
    case AQA & ~7u: return uint64_t{state_.aqa} << 32;
    case ASQ: return state_.asq;
    case ACQ: return state_.acq;
    case CMBLOC: {
      // [NVMe 1.4] 3.1.12: both read 0 until CMBMSC.CRE is set.
      const uint64_t size = kCmbUses | kCmbUnitMib | (options_.cmb_bytes >> 20) << 12;
      return cmb ? kCmbBar | size << 32 : 0;
    }
    case CMBMSC: return state_.cmbmsc;
    case PMRCAP:
      if (persistent_region_ == nullptr) return 0;
      return kPmrRead | kPmrWrite | kPersistentBar << kPmrBarShift | kPmrReadStatusFlushes | kPmrMemorySpace |
             uint64_t{state_.persistent_enabled ? kPmrEnable : 0} << 32;  // PMRCTL
    case PMRSTS: return persistent_region_ == nullptr || state_.persistent_enabled ? 0 : kPmrNotReady;
    case PMRMSCL & ~7u: return state_.pmrmsc << 32;
    case PMRMSCU: return state_.pmrmsc >> 32;
    default: return 0;  // reserved, or what is not offered
  }
}

uint64_t NvmeController::read(uint64_t offset, unsigned size) {
  if (offset >= kDoorbells) return 0;  // [NVMe 1.4] 3.1.24: reads of doorbells are not defined
  const std::lock_guard lock(lock_);
  return register_at(offset & ~uint64_t{7}) >> (offset % 8 * 8) & low_mask(size * 8);
}

void NvmeController::write(uint64_t offset, unsigned size, uint64_t value) {
  // [NVMe 1.4] 3.1: accesses are 32 or 64 bits wide.
  if (size < 4) {
    log::guest_error("nvme: {}: a write of {} bytes at {:#x} is ignored", path(), size, offset);
    return;
  }
  std::unique_lock lock(lock_);
  for (unsigned at = 0; at < size; at += 4) {
    const auto part = static_cast<uint32_t>(value >> (at * 8));
    if (offset + at >= kDoorbells) {
      write_doorbell(offset + at - kDoorbells, part);
    } else {
      write_register(offset + at, part);
    }
  }
  begin_pending(std::move(lock));
}

void NvmeController::begin_pending(std::unique_lock<std::mutex> lock) {
  std::vector<RequestRef> begun;
  begun.swap(pending_);
  const bool works = std::exchange(work_here_, false);
  lock.unlock();
  for (const RequestRef request : begun) start_request(request);
  if (works) work();
}

void NvmeController::write_register(uint64_t offset, uint32_t value) {
  const auto low = [value](uint64_t old) { return (old & ~uint64_t{UINT32_MAX}) | value; };
  const auto high = [value](uint64_t old) { return (old & UINT32_MAX) | uint64_t{value} << 32; };
  // [NVMe 1.4] 3.1.8-3.1.10: not while the controller is enabled.
  const bool fixed = (state_.cc & kCcEnable) != 0;
  switch (offset) {
    case INTMS: state_.interrupt_mask |= value; return update_pin();
    case INTMC: state_.interrupt_mask &= ~value; return update_pin();
    case CC: return write_configuration(value & kCcBits);
    case AQA:
      if (!fixed) state_.aqa = value & 0x0fff0fff;
      return;
    case ASQ:
      if (!fixed) state_.asq = low(state_.asq) & ~uint64_t{0xfff};
      return;
    case ASQ + 4:
      if (!fixed) state_.asq = high(state_.asq);
      return;
    case ACQ:
      if (!fixed) state_.acq = low(state_.acq) & ~uint64_t{0xfff};
      return;
    case ACQ + 4:
      if (!fixed) state_.acq = high(state_.acq);
      return;
    case PMRCTL:
      state_.persistent_enabled = persistent_region_ != nullptr && (value & kPmrEnable) != 0;
      return persistent_changed();
    case PMRMSCL:
    case PMRMSCU:
      if (persistent_region_ == nullptr) return;
      state_.pmrmsc = (offset == PMRMSCL ? low(state_.pmrmsc) : high(state_.pmrmsc)) & (kCmbAddress | kCmbMemorySpace);
      return persistent_changed();
    case CMBMSC:
    case CMBMSC + 4:
      if (cmb_ == nullptr) return;
      state_.cmbmsc = offset == CMBMSC ? low(state_.cmbmsc) : high(state_.cmbmsc);
      state_.cmbmsc &= kCmbAddress | kCmbCapabilities | kCmbMemorySpace;
      cmbmsc_.store(state_.cmbmsc, std::memory_order_release);
      return;
    default: return;
  }
}

// [NVMe 1.4] 3.1.20: the region is there while it is enabled. Its content outlasts everything but the process.
void NvmeController::persistent_changed() {
  if (persistent_region_ == nullptr) return;
  persistent_region_->set_enabled(state_.persistent_enabled);
  pmrmsc_.store(state_.persistent_enabled ? state_.pmrmsc : 0, std::memory_order_release);
}

void NvmeController::write_configuration(uint32_t value) {
  constexpr uint32_t kShn = 3u << kCcShn;
  const uint32_t before = state_.cc;
  const bool was_on = (before & kCcEnable) != 0, on = (value & kCcEnable) != 0;
  // [NVMe 1.4] 3.1.5: the other fields are set up before the controller is enabled.
  const uint32_t changeable = was_on ? kShn | kCcEnable : UINT32_MAX;
  state_.cc = (before & ~changeable) | (value & changeable);
  if (on && !was_on && !state_.resetting) enable();
  if (!on && was_on) begin_reset();
  if ((value & kShn) != 0 && (before & kShn) == 0) begin_shutdown();
}

void NvmeController::fatal(std::string_view what) {
  log::guest_error("nvme: {}: {}: fatal status", path(), what);
  state_.csts |= kCstsFatal;  // [NVMe 1.4] 9.5
}

void NvmeController::enable() {
  const uint64_t page = uint64_t{4096} << (state_.cc >> kCcMps & 0xf);
  const uint32_t sq_entries = (state_.aqa & 0xfff) + 1, cq_entries = (state_.aqa >> 16) + 1;
  const auto wrong_size = [this](unsigned at, unsigned right) {
    const uint32_t size = state_.cc >> at & 0xf;
    return size != 0 && size != right;
  };
  if ((state_.cc >> kCcMps & 0xf) > kLargestPageShift) return fatal("CC.MPS is above CAP.MPSMAX");
  if ((state_.cc >> kCcCss & 7) != 0) return fatal("CC.CSS selects a command set that is not there");
  if ((state_.cc >> kCcAms & 7) != 0) return fatal("CC.AMS selects an arbitration that is not there");
  if (wrong_size(kCcIosqes, kSqEntryShift) || wrong_size(kCcIocqes, kCqEntryShift))
    return fatal("CC has sizes of queue entries that are not offered");
  if (sq_entries < 2 || cq_entries < 2) return fatal("AQA has a queue of one entry");
  if (!is_aligned(state_.asq, page) || !is_aligned(state_.acq, page)) return fatal("ASQ or ACQ is not page-aligned");
  page_bytes_.store(page, std::memory_order_release);
  state_.sqs[0] = {.exists = true, .size = sq_entries, .base = state_.asq};
  state_.cqs[0] = {.exists = true, .interrupts = true, .size = cq_entries, .base = state_.acq, .waiting = {}};
  state_.csts |= kCstsReady;
}

void NvmeController::begin_reset() {
  state_.resetting = true;
  ready_ = 0;
  for (NvmeNamespace* space : namespaces_)
    if (space != nullptr && !requests_.empty()) space->drive().cancel();
  if (quiet()) finish_reset();
}

// [NVMe 1.4] 7.3.2: what a controller level reset leaves.
void NvmeController::finish_reset() {
  State fresh;
  fresh.cc = state_.cc;
  fresh.aqa = state_.aqa;
  fresh.asq = state_.asq;
  fresh.acq = state_.acq;
  fresh.cmbmsc = state_.cmbmsc;
  fresh.pmrmsc = state_.pmrmsc;
  fresh.persistent_enabled = state_.persistent_enabled;
  fresh.error_count = state_.error_count;
  fresh.errors = state_.errors;
  state_ = std::move(fresh);
  set_write_cache(default_write_cache_);
  update_pin();
  if ((state_.cc & kCcEnable) != 0) enable();
}

// [NVMe 1.4] 7.6.2
void NvmeController::begin_shutdown() {
  state_.csts = (state_.csts & ~(3u << kCstsShst)) | kShutdownOccurring << kCstsShst;
  if (home_ == nullptr) {
    state_.csts = (state_.csts & ~(3u << kCstsShst)) | kShutdownComplete << kCstsShst;
    return;
  }
  tasks_.spawn(shut_down(life_));
}

Task<void> NvmeController::shut_down(uint32_t life) {
  co_await home_->schedule();
  co_await flush_all();
  const std::lock_guard lock(lock_);
  if (life != life_ || (state_.csts >> kCstsShst & 3) != kShutdownOccurring) co_return;
  state_.csts = (state_.csts & ~(3u << kCstsShst)) | kShutdownComplete << kCstsShst;
}

void NvmeController::config_written(uint16_t offset, unsigned, uint32_t) {
  // MSI-X was switched: pins are silent while it is on. The pin is looked at again by whatever happens next.
  if (offset >= kMsixOffset && offset < kMsixOffset + 4 && msix_.enabled()) set_intx(false);
  if (offset < bus::pci::kHeaderEnd) config_loaded();
}

void NvmeController::config_loaded() {
  const auto bar = [this](unsigned index) {
    const auto at = static_cast<uint16_t>(bus::pci::kBar0 + 4 * index);
    return align_down(config_.get32(at) | uint64_t{config_.get32(static_cast<uint16_t>(at + 4))} << 32, 16);
  };
  cmb_address_.store(bar(kCmbBar), std::memory_order_release);
  persistent_address_.store(bar(kPersistentBar), std::memory_order_release);
}

void NvmeController::update_pin() {
  if (msix_.enabled()) return;
  const bool level = std::ranges::any_of(state_.cqs, [this](const CompletionQueue& queue) {
    return queue.exists && queue.interrupts && queue.head != queue.tail && queue.vector < 32 &&
           (state_.interrupt_mask >> queue.vector & 1) == 0;
  });
  set_intx(level);
}

// --- doorbells

void NvmeController::write_doorbell(uint64_t offset, uint32_t value) {
  if (!running()) return;
  const auto queue = static_cast<unsigned>(offset / 8);
  const bool completion = offset % 8 != 0;
  const bool exists = queue <= kMostQueues && (completion ? state_.cqs[queue].exists : state_.sqs[queue].exists);
  // [NVMe 1.4] 5.2.1: such writes are ignored, and told of.
  if (!exists) {
    log::guest_error("nvme: {}: doorbell at {:#x} has no queue", path(), kDoorbells + offset);
    return send_event(kEventError, kInvalidDoorbell, kLogError);
  }
  if (completion) return completion_doorbell(queue, value);
  submission_doorbell(queue, value);
}

void NvmeController::submission_doorbell(unsigned queue, uint32_t tail) {
  SubmissionQueue& sq = state_.sqs[queue];
  if (tail >= sq.size) {
    log::guest_error("nvme: {}: tail {} of a submission queue of {} entries", path(), tail, sq.size);
    return send_event(kEventError, kInvalidDoorbellValue, kLogError);
  }
  sq.tail = tail;
  if (queue == 0) return run_admin();
  ready_ |= bit(queue - 1);
  kick();
}

void NvmeController::completion_doorbell(unsigned queue, uint32_t head) {
  CompletionQueue& cq = state_.cqs[queue];
  const uint32_t used = (cq.tail + cq.size - cq.head) % cq.size;
  if (head >= cq.size || (head + cq.size - cq.head) % cq.size > used) {
    log::guest_error("nvme: {}: head {} of a completion queue of {} entries", path(), head, cq.size);
    return send_event(kEventError, kInvalidDoorbellValue, kLogError);
  }
  cq.head = head;
  drain_waiting(queue);
  update_pin();
}

// --- lifecycle

void NvmeController::reset() {
  reset_config();
  {
    const std::lock_guard lock(lock_);
    ++life_;
    state_ = State{};
    cmbmsc_.store(0, std::memory_order_release);
    persistent_changed();
    ready_ = 0;
    pending_.clear();
    std::erase_if(requests_, [](const Request& request) { return !request.begun; });
    for (NvmeNamespace* space : namespaces_)
      if (space != nullptr && !requests_.empty()) space->drive().cancel();
    set_write_cache(default_write_cache_);
  }
  if (cmb_ != nullptr) std::ranges::fill(std::span(cmb_->host(), options_.cmb_bytes), uint8_t{0});
}

void NvmeController::start() {
  std::unique_lock lock(lock_);
  stopped_ = false;
  for (unsigned queue = 0; queue < state_.cqs.size(); ++queue)
    if (state_.cqs[queue].exists) drain_waiting(queue);
  for (auto request = requests_.begin(); request != requests_.end(); ++request) {
    if (request->begun || request->life != life_) continue;
    request->begun = true;
    pending_.push_back(request);
  }
  // A reset or a shutdown that was under way when the state was saved.
  if (state_.resetting && quiet()) finish_reset();
  if ((state_.csts >> kCstsShst & 3) == kShutdownOccurring) begin_shutdown();
  if (running()) {
    ready_ = ~uint64_t{0};
    run_admin();
    kick();
  }
  begin_pending(std::move(lock));
}

void NvmeController::stop() {
  const std::lock_guard lock(lock_);
  stopped_ = true;
}

}  // namespace kite::devices
