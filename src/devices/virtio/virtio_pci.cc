#include "devices/virtio/virtio_pci.h"

#include <algorithm>
#include <array>
#include <bit>

#include "devices/section.h"
#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace virtio;
using namespace virtio_pci;
namespace pci = bus::pci;

namespace {

struct VirtioPciV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t device_feature_select, driver_feature_select;
  uint16_t queue_select, config_vector;
  uint8_t isr;
};
template <class Codec>
void visit(Codec& codec, VirtioPciV1& wire) {
  codec.field(0x4001, wire.device_feature_select);
  codec.field(0x4002, wire.driver_feature_select);
  codec.field(0x4003, wire.queue_select);
  codec.field(0x4004, wire.config_vector);
  codec.field(0x4005, wire.isr);
}
constexpr uint16_t kDeviceFields = 0x4010;

// BARs.
constexpr unsigned kLegacyBar = 0;
constexpr uint64_t kPart = 0x1000;  // of the modern BAR
constexpr uint64_t kDeviceAt = 2 * kPart, kNotifyAt = 3 * kPart;
constexpr uint32_t kMsixPending = 0x8000, kMsixPendingSmall = 0x800;
constexpr uint16_t kSmallTable = kMsixPendingSmall / 16;

// Capabilities.
constexpr uint8_t kCommonCapAt = 0x40, kIsrCapAt = 0x50, kDeviceCapAt = 0x60, kNotifyCapAt = 0x70, kAccessCapAt = 0x84,
                  kMsixCapAt = 0x98, kExpressCapAt = 0xa4, kPowerCapAt = 0xe0;
constexpr uint16_t kAtsCapability = 0x000f, kAtsEnable = 1u << 15, kAtsAligned = 1u << 5;
constexpr uint16_t kPowerVersion3 = 3, kPowerStateBits = 3, kNoSoftReset = 1u << 3;

bus::PciIds ids_of(const VirtioPci::Config& config, uint16_t type) {
  // 4.1.2.1, 4.1.2.3: transitional functions have revision 0 and the type as their subsystem.
  if (config.legacy)
    return {.vendor = kVendor,
            .device = config.legacy_device_id,
            .subsystem_vendor = kVendor,
            .subsystem = type,
            .revision = 0,
            .class_code = config.class_code};
  return {.vendor = kVendor,
          .device = static_cast<uint16_t>(kModernBase + type),
          .subsystem_vendor = kVendor,
          .subsystem = 0x1100,
          .revision = 1,
          .class_code = config.class_code};
}

}  // namespace

// Where parts of the modern interface lie in their BAR: common, ISR, device, notify follow each other.
struct VirtioPci::Places {
  uint8_t modern_bar, msix_bar;
  uint32_t common, isr, small;  // `small`: bytes of these two

  // What the BAR has at an offset, and how far into it that is.
  struct Found {
    Part part;
    uint64_t offset;
  };
  [[nodiscard]] std::optional<Found> find(uint64_t at, uint64_t notify_bytes) const {
    if (at >= kNotifyAt + notify_bytes || at < common) return {};
    if (at >= kNotifyAt) return Found{Part::kNotify, at - kNotifyAt};
    if (at >= kDeviceAt) return Found{Part::kDevice, at - kDeviceAt};
    return at >= isr ? Found{Part::kIsr, at - isr} : Found{Part::kCommon, at - common};
  }
  static const Places kAlone, kBesideVga;
};
constexpr VirtioPci::Places VirtioPci::Places::kAlone{
    .modern_bar = 4, .msix_bar = 1, .common = 0, .isr = kPart, .small = kPart};
// The first page is the VGA's.
constexpr VirtioPci::Places VirtioPci::Places::kBesideVga{
    .modern_bar = 2, .msix_bar = 4, .common = kPart, .isr = kPart + kPart / 2, .small = kPart / 2};

// One region's accesses.
class VirtioPci::Handler final : public IoHandler {
 public:
  Handler(VirtioPci& owner, Part part) : owner_(owner), part_(part) {}
  uint64_t io_read(uint64_t offset, unsigned size) override { return owner_.read(part_, offset, size); }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override { owner_.write(part_, offset, size, value); }

 private:
  VirtioPci& owner_;
  Part part_;
};

// 4.1.4.9: the modern BAR through the configuration space, for software that cannot map it. The data register is not
// kept: it is whatever the BAR answers.
class VirtioPci::ConfigAccess final : public bus::PciCapability {
 public:
  explicit ConfigAccess(VirtioPci& owner) : owner_(owner) {
    owner.add_acting_capability(*this);
    for (unsigned i = 0; i < 4; ++i) {
      owner.config_.writable[kAccessCapAt + kCapOffset + i] = 0xff;
      owner.config_.writable[kAccessCapAt + kCapRange + i] = 0xff;
      owner.config_.writable[kAccessCapAt + kCapExtra + i] = 0xff;
    }
    owner.config_.writable[kAccessCapAt + kCapBar] = 0xff;
  }

 private:
  static constexpr unsigned kData = kAccessCapAt + kCapExtra;
  // Where the window points, if the access is one of the register's and what it names is there.
  std::optional<Places::Found> target(uint16_t offset, unsigned size) const {
    const bus::PciConfigSpace& config = owner_.config_;
    const uint32_t length = config.get32(kAccessCapAt + kCapRange);
    if (offset != kData || size != length || config.bytes[kAccessCapAt + kCapBar] != owner_.places_.modern_bar)
      return {};
    const uint32_t at = config.get32(kAccessCapAt + kCapOffset);
    if (at % size != 0) return {};
    return owner_.places_.find(at, owner_.notify_region_->size());
  }
  void config_written(uint16_t offset, unsigned size) override {
    if (offset >= kData + 4 || offset + size <= kData) return;
    const uint32_t value = owner_.config_.get32(kData);
    owner_.config_.set32(kData, 0);
    if (const auto to = target(offset, size)) owner_.write(to->part, to->offset, size, value & low_mask(8 * size));
  }
  uint32_t overlay(uint16_t offset, unsigned size) override {
    const auto from = target(offset, size);
    return from ? static_cast<uint32_t>(owner_.read(from->part, from->offset, size)) : 0;
  }
  void reset() override {
    for (unsigned i = kCapOffset; i < kPciCapBytes; ++i) owner_.config_.bytes[kAccessCapAt + i] = 0;
    owner_.config_.bytes[kAccessCapAt + kCapBar] = 0;
  }
  void save(StateWriter&) override {}  // all of it lies in the configuration space
  void restore(StateReader&) override {}
  void apply() override {}

  VirtioPci& owner_;
};

// --- construction

VirtioPci::VirtioPci(std::string path, const Config& config, std::unique_ptr<VirtioDevice> device)
    : PciDevice(std::move(path), ids_of(config, device->shape().type), bus::PciHeader::kDevice,
                config.express ? bus::PciGeneration::kExpress : bus::PciGeneration::kConventional),
      config_choice_(config),
      places_(config.beside_vga ? Places::kBesideVga : Places::kAlone),
      notify_multiplier_(config.page_per_queue ? 0x1000 : 4),
      device_(std::move(device)) {
  device_->connect(*this);
  for (const Part part : {Part::kLegacy, Part::kCommon, Part::kIsr, Part::kDevice, Part::kNotify})
    handlers_.push_back(std::make_unique<Handler>(*this, part));
  set_interrupt_pin(1);
  add_bars(config);
  if (config.modern) add_capabilities(config);
  if (config.vectors != 0) {
    const bool small = config.vectors <= kSmallTable;
    msix_ = std::make_unique<bus::MsixCapability>(
        *this, bus::MsixCapability::Shape{.offset = kMsixCapAt,
                                          .vectors = config.vectors,
                                          .bar = places_.msix_bar,
                                          .pending = small ? kMsixPendingSmall : kMsixPending});
    auto bar = Region::container("virtio-msix", small ? 0x1000 : 0x10000);
    bar->add(0, msix_->table_region());
    bar->add(small ? kMsixPendingSmall : kMsixPending, msix_->pending_region());
    declare_bar(places_.msix_bar, std::move(bar), {});
  }
  if (config.express) add_express(config.ats);
  if (config.doorbells) add_doorbells();
}

VirtioPci::~VirtioPci() { device_.reset(); }

void VirtioPci::add_bars(const Config& config) {
  const auto handler = [this](Part part) -> IoHandler& { return *handlers_[static_cast<size_t>(part)]; };
  constexpr AccessRule kRule{.min_size = 1, .max_size = 4};
  if (config.legacy) {
    const uint64_t bytes = std::bit_ceil(uint64_t{kLegacyHeaderMsix} + device_->shape().config_bytes);
    legacy_ports_ = Region::io("virtio-legacy", bytes, handler(Part::kLegacy), kRule);
    declare_bar(kLegacyBar, legacy_ports_, {.io = true});
  }
  if (!config.modern) return;
  const uint64_t notify =
      std::bit_ceil(std::max<uint64_t>(kPart, uint64_t{device_->shape().queues} * notify_multiplier_));
  notify_region_ = Region::io("virtio-notify", notify, handler(Part::kNotify), kRule);
  modern_bar_ = Region::container("virtio-modern", std::bit_ceil(kNotifyAt + notify));
  modern_bar_->add(places_.common, Region::io("virtio-common", places_.small, handler(Part::kCommon), kRule));
  modern_bar_->add(places_.isr, Region::io("virtio-isr", places_.small, handler(Part::kIsr), kRule));
  modern_bar_->add(kDeviceAt, Region::io("virtio-device", kPart, handler(Part::kDevice), kRule));
  modern_bar_->add(kNotifyAt, notify_region_);
  declare_bar(places_.modern_bar, modern_bar_, {.prefetchable = true, .is_64 = true});
}

void VirtioPci::add_capability_at(uint8_t offset, uint8_t type, uint8_t length, uint32_t bar_offset, uint32_t bytes) {
  add_capability(kVendorCapability, offset);
  config_.bytes[offset + kCapLength] = length;
  config_.bytes[offset + kCapType] = type;
  if (type == kPciCap) return;  // its fields are the driver's
  config_.bytes[offset + kCapBar] = places_.modern_bar;
  config_.set32(static_cast<uint16_t>(offset + kCapOffset), bar_offset);
  config_.set32(static_cast<uint16_t>(offset + kCapRange), bytes);
}

void VirtioPci::add_capabilities(const Config&) {
  add_capability_at(kCommonCapAt, kCommonCap, kCapBytes, places_.common, places_.small);
  add_capability_at(kIsrCapAt, kIsrCap, kCapBytes, places_.isr, places_.small);
  if (device_->shape().config_bytes != 0) add_capability_at(kDeviceCapAt, kDeviceCap, kCapBytes, kDeviceAt, kPart);
  add_capability_at(kNotifyCapAt, kNotifyCap, kNotifyCapBytes, kNotifyAt,
                    static_cast<uint32_t>(notify_region_->size()));
  config_.set32(kNotifyCapAt + kCapExtra, notify_multiplier_);
  add_capability_at(kAccessCapAt, kPciCap, kPciCapBytes, 0, 0);
  config_access_ = std::make_unique<ConfigAccess>(*this);
}

void VirtioPci::add_express(bool ats) {
  add_express_capability({.offset = kExpressCapAt, .type = bus::PcieType::kEndpoint});
  // [PCI PM 1.2] 3.2: every Express function has it. The power state is kept and means nothing.
  add_capability(pci::kCapabilityPowerManagement, kPowerCapAt);
  config_.set16(kPowerCapAt + 2, kPowerVersion3);
  config_.set16(kPowerCapAt + 4, kNoSoftReset);
  config_.let_write16(kPowerCapAt + 4, kPowerStateBits);
  if (!ats) return;
  // [PCIe 3.0 ATS 1.1] 5.1: the function may ask the platform for translations; without an IOMMU it never has to.
  add_extended_capability(kAtsCapability, 1, pci::kExtendedStart);
  config_.set16(pci::kExtendedStart + 4, kAtsAligned);
  config_.let_write16(pci::kExtendedStart + 6, kAtsEnable | 0x1f);
}

void VirtioPci::add_doorbells() {
  const auto listen = [this](Result<bus::Doorbell> bell, uint16_t queue) {
    if (bell) {
      device_->listen(std::move(*bell), queue);
      return true;
    }
    log::warn("{}: kicks take the long way: {}", path(), bell.error().message);
    return false;
  };
  for (uint16_t queue = 0; queue < device_->shape().queues; ++queue) {
    if (notify_region_ != nullptr &&
        !listen(bus::Doorbell::create(notify_region_, uint64_t{queue} * notify_multiplier_, 0), queue))
      return;
    if (legacy_ports_ != nullptr && !listen(bus::Doorbell::create(legacy_ports_, kLegacyQueueNotify, 2, queue), queue))
      return;
  }
}

// --- interrupts

void VirtioPci::raise(uint8_t isr, uint16_t vector) {
  if (msix_enabled_.load(std::memory_order_acquire)) {
    // 4.1.5.3, 4.1.5.4.
    if ((isr & kIsrConfig) != 0) state_.isr |= isr;
    if (vector != kNoVector) msix_->notify(vector);
    return;
  }
  state_.isr |= isr;
  set_intx(true);
}

void VirtioPci::queue_interrupt(uint16_t vector) { raise(kIsrQueue, vector); }

void VirtioPci::config_interrupt() {
  // Where the pin is shared with the queues, drivers have always found both bits set, and some wait for the first.
  const bool pin = !msix_enabled_.load(std::memory_order_acquire);
  raise(static_cast<uint8_t>(kIsrConfig | (pin ? kIsrQueue : 0)), state_.config_vector);
}

uint8_t VirtioPci::take_isr() {
  const uint8_t isr = state_.isr;  // 4.1.4.5.1: reading clears it and the line
  state_.isr = 0;
  set_intx(false);
  return isr;
}

void VirtioPci::config_written(uint16_t offset, unsigned size, uint32_t) {
  if (offset < kMsixCapAt + 4u && offset + size > kMsixCapAt) msix_changed();
  // What was kicked while the function could not reach memory.
  if (offset < pci::kCommand + 2u && offset + size > pci::kCommand && PciDevice::may_master()) device_->kick_all();
}

void VirtioPci::msix_changed() {
  if (msix_ != nullptr) msix_enabled_.store(msix_->enabled(), std::memory_order_release);
}

// --- accesses

uint64_t VirtioPci::read(Part part, uint64_t offset, unsigned size) {
  const std::lock_guard lock(device_->lock());
  switch (part) {
    case Part::kLegacy: return read_legacy(offset, size);
    case Part::kCommon: return read_common(offset, size);
    case Part::kIsr: return offset == 0 ? take_isr() : 0;
    case Part::kDevice: return device_->config_read(static_cast<uint32_t>(offset), size);
    case Part::kNotify: break;
  }
  return 0;
}

void VirtioPci::write(Part part, uint64_t offset, unsigned size, uint64_t value) {
  if (part == Part::kNotify) {  // 4.1.4.4: the place tells the queue
    if (offset % notify_multiplier_ == 0) device_->kick(static_cast<uint16_t>(offset / notify_multiplier_));
    return;
  }
  const std::lock_guard lock(device_->lock());
  switch (part) {
    case Part::kLegacy: return write_legacy(offset, size, value);
    case Part::kCommon: return write_common(offset, size, value);
    case Part::kDevice: return device_->config_write(static_cast<uint32_t>(offset), size, value);
    case Part::kIsr:
    case Part::kNotify: break;
  }
}

uint64_t VirtioPci::read_common(uint64_t offset, unsigned size) {
  if (offset >= kCommonBytes) return 0;
  std::array<uint8_t, kCommonBytes + 8> image{};
  const auto half = [](uint64_t features, uint32_t select) {
    return select < 2 ? static_cast<uint32_t>(features >> (32 * select)) : 0U;
  };
  store(&image[kDeviceFeatureSelect], state_.device_feature_select);
  store(&image[kDeviceFeature], half(device_->offered(false), state_.device_feature_select));
  store(&image[kDriverFeatureSelect], state_.driver_feature_select);
  store(&image[kDriverFeature], half(device_->driver_features(), state_.driver_feature_select));
  store(&image[kConfigVector], state_.config_vector);
  store(&image[kNumQueues], device_->shape().queues);
  image[kDeviceStatus] = device_->status();
  image[kConfigGeneration] = device_->config_generation();
  store(&image[kQueueSelect], state_.queue_select);
  if (queue_selected()) {  // 4.1.4.3.1: a size of 0 says that there is no such queue
    const Virtqueue::State& queue = device_->queue(state_.queue_select);
    store(&image[kQueueSize], queue.size);
    store(&image[kQueueVector], queue.vector);
    store(&image[kQueueEnable], static_cast<uint16_t>(queue.enabled ? 1 : 0));
    store(&image[kQueueNotifyOffset], state_.queue_select);
    store(&image[kQueueDescriptors], queue.descriptors);
    store(&image[kQueueDriver], queue.driver);
    store(&image[kQueueDevice], queue.device);
    store(&image[kQueueReset], static_cast<uint16_t>(device_->queue_resetting(state_.queue_select) ? 1 : 0));
  }
  return load_le(&image[offset], size);
}

uint16_t VirtioPci::checked_vector(uint64_t value) const {
  // 4.1.5.1.2: what cannot be had reads back as none.
  return value < config_choice_.vectors ? static_cast<uint16_t>(value) : kNoVector;
}

void VirtioPci::write_status(uint8_t status, bool legacy) {
  device_->write_status(status, legacy);
  if (status != 0) return;
  state_ = State{};
  set_intx(false);
}

void VirtioPci::write_common(uint64_t offset, unsigned size, uint64_t value) {
  const auto wide = static_cast<uint32_t>(value);
  const uint64_t shifted = state_.driver_feature_select < 2 ? value << (32 * state_.driver_feature_select) : 0;
  const uint64_t mask = state_.driver_feature_select < 2 ? low_mask(32) << (32 * state_.driver_feature_select) : 0;
  switch (offset) {
    case kDeviceFeatureSelect: state_.device_feature_select = wide; return;
    case kDriverFeatureSelect: state_.driver_feature_select = wide; return;
    case kDriverFeature:
      if (size == 4) device_->write_driver_features(shifted, mask, false);
      return;
    case kConfigVector: state_.config_vector = checked_vector(value); return;
    case kDeviceStatus: return write_status(static_cast<uint8_t>(value), false);
    case kQueueSelect: state_.queue_select = static_cast<uint16_t>(value); return;
    default:
      if (queue_selected()) write_queue(offset, size, value);
  }
}

void VirtioPci::write_queue(uint64_t offset, unsigned size, uint64_t value) {
  const uint16_t queue = state_.queue_select;
  switch (offset) {
    case kQueueSize: return device_->set_queue_size(queue, static_cast<uint16_t>(value));
    case kQueueVector: return device_->set_queue_vector(queue, checked_vector(value));
    case kQueueEnable:
      if (value == 1) device_->enable_queue(queue);  // 4.1.4.3.2: drivers must not write 0
      return;
    case kQueueReset:
      if (value == 1) device_->reset_queue(queue);
      return;
    default: write_queue_address(offset, size, value);
  }
}

void VirtioPci::write_queue_address(uint64_t offset, unsigned size, uint64_t value) {
  // 4.1.3.1: 64-bit fields are written as two halves.
  if (offset < kQueueDescriptors || offset >= kQueueNotifyData || offset % 4 != 0 || size != 4) return;
  const Virtqueue::State& queue = device_->queue(state_.queue_select);
  std::array<uint64_t, 3> addresses{queue.descriptors, queue.driver, queue.device};
  store_le(reinterpret_cast<uint8_t*>(addresses.data()) + (offset - kQueueDescriptors), size, value);
  device_->set_queue_addresses(state_.queue_select, addresses[0], addresses[1], addresses[2]);
}

// --- the legacy interface

uint64_t VirtioPci::legacy_config_offset() const {
  return msix_enabled_.load(std::memory_order_acquire) ? kLegacyHeaderMsix : kLegacyHeader;
}

uint64_t VirtioPci::read_legacy(uint64_t offset, unsigned size) {
  if (offset >= legacy_config_offset())
    return device_->config_read(static_cast<uint32_t>(offset - legacy_config_offset()), size);
  if (offset == kLegacyIsr) return take_isr();
  std::array<uint8_t, kLegacyHeaderMsix + 8> image{};
  store(&image[kLegacyDeviceFeatures], static_cast<uint32_t>(device_->offered(true)));
  store(&image[kLegacyDriverFeatures], static_cast<uint32_t>(device_->driver_features()));
  store(&image[kLegacyQueueSelect], state_.queue_select);
  image[kLegacyStatus] = device_->status();
  store(&image[kLegacyConfigVector], state_.config_vector);
  store(&image[kLegacyQueueVector], kNoVector);
  if (queue_selected()) {
    store(&image[kLegacyQueueAddress], device_->queue_page(state_.queue_select));
    store(&image[kLegacyQueueSize], device_->shape().queue_size);
    store(&image[kLegacyQueueVector], device_->queue(state_.queue_select).vector);
  }
  return load_le(&image[offset], size);
}

void VirtioPci::write_legacy(uint64_t offset, unsigned size, uint64_t value) {
  if (offset >= legacy_config_offset())
    return device_->config_write(static_cast<uint32_t>(offset - legacy_config_offset()), size, value);
  const uint16_t queue = state_.queue_select;
  switch (offset) {
    case kLegacyDriverFeatures: return device_->write_driver_features(value, low_mask(32), true);
    case kLegacyQueueSelect: state_.queue_select = static_cast<uint16_t>(value); return;
    case kLegacyQueueNotify: return device_->kick(static_cast<uint16_t>(value));
    case kLegacyStatus: return write_status(static_cast<uint8_t>(value), true);
    case kLegacyConfigVector: state_.config_vector = checked_vector(value); return;
    case kLegacyQueueAddress:
      if (queue_selected()) device_->set_queue_page(queue, static_cast<uint32_t>(value));
      return;
    case kLegacyQueueVector:
      if (queue_selected()) device_->set_queue_vector(queue, checked_vector(value));
      return;
    default: break;
  }
}

// --- lifecycle

void VirtioPci::reset() {
  reset_config();
  if (config_choice_.express) {
    const std::lock_guard lock(config_lock_);
    for (unsigned i = kExpressCapAt; i < kPowerCapAt + 8u; ++i)
      config_.bytes[i] = static_cast<uint8_t>(config_.bytes[i] & ~(config_.writable[i] | config_.clear_on_one[i]));
    if (config_choice_.ats) config_.set16(pci::kExtendedStart + 6, 0);
  }
  msix_changed();
  device_->reset();
  const std::lock_guard lock(device_->lock());
  state_ = State{};
}

void VirtioPci::save(StateWriter& writer) {
  VirtioPciV1 wire{};
  {
    const std::lock_guard lock(device_->lock());
    const auto& [device_feature_select, driver_feature_select, queue_select, config_vector, isr] = state_;
    wire = {.device_feature_select = device_feature_select,
            .driver_feature_select = driver_feature_select,
            .queue_select = queue_select,
            .config_vector = config_vector,
            .isr = isr};
  }
  writer.begin(path(), VirtioPciV1::kVersion);
  device_->save_fields(writer, kDeviceFields);
  visit(writer, wire);
  save_beside(writer);
  save_config(writer);
  writer.end();
}

void VirtioPci::restore(StateReader& reader) {
  VirtioPciV1 wire{};
  const uint32_t version = reader.begin(path());
  if (reader.ok() && version != VirtioPciV1::kVersion)
    reader.reject(
        fmt::format("version {} is not known here; this build reads version {}", version, VirtioPciV1::kVersion));
  if (reader.ok()) device_->restore_fields(reader, kDeviceFields);
  if (reader.ok()) visit(reader, wire);
  if (reader.ok()) restore_beside(reader);
  const auto vector_exists = [this](uint16_t vector) { return vector == kNoVector || vector < config_choice_.vectors; };
  if (reader.ok() &&
      require(reader, vector_exists(wire.config_vector) && device_->restored_vectors_below(config_choice_.vectors),
              "an interrupt vector that this device does not have") &&
      require(reader, wire.isr <= (kIsrQueue | kIsrConfig), "the interrupt status has unknown bits"))
    restore_config(reader);
  reader.end();
  if (!reader.ok()) return;
  msix_changed();
  device_->apply_restored();
  apply_beside();
  const std::lock_guard lock(device_->lock());
  state_ = State{.device_feature_select = wire.device_feature_select,
                 .driver_feature_select = wire.driver_feature_select,
                 .queue_select = wire.queue_select,
                 .config_vector = wire.config_vector,
                 .isr = wire.isr};
}

}  // namespace kite::devices
