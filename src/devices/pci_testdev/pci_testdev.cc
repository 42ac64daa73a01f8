#include "devices/pci_testdev/pci_testdev.h"

#include <string_view>

#include "devices/pci_testdev/pci_testdev_regs.h"
#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {

using namespace pci_testdev_regs;

namespace {

struct PciTestdevV1 {
  static constexpr uint32_t kVersion = 1;
  uint8_t bar, test;
  uint32_t count;
};
template <class Codec>
void visit(Codec& codec, PciTestdevV1& wire) {
  codec.field(1, wire.bar);
  codec.field(2, wire.test);
  codec.field(3, wire.count);
}

// The tests differ in how the host may be told of a write: not at all, by any write, by a write of the right value.
// Here every write is seen by the device itself, which counts those that match.
struct Test {
  std::string_view name;
  bool any_value;
};
constexpr std::array<Test, 3> kTests{{{"no-eventfd", true}, {"wildcard-eventfd", true}, {"datamatch-eventfd", false}}};
constexpr std::array<std::string_view, 2> kPrefixes{"mmio-", "portio-"};
constexpr std::array<uint32_t, 2> kTargets{kMemoryTargets, kPortTargets};
constexpr uint8_t kDatum = 0xfa;
constexpr uint8_t kWidthInBytes = 1;

uint8_t name_byte(unsigned bar, unsigned test, uint64_t at) {
  const std::string_view prefix = kPrefixes[bar], name = kTests[test].name;
  if (at < prefix.size()) return static_cast<uint8_t>(prefix[at]);
  at -= prefix.size();
  return at < name.size() ? static_cast<uint8_t>(name[at]) : 0;
}

uint8_t byte_of(uint32_t value, uint64_t at) { return static_cast<uint8_t>(value >> (8 * at)); }

}  // namespace

class PciTestdev::BarHandler final : public IoHandler {
 public:
  BarHandler(PciTestdev& owner, unsigned bar) : owner_(owner), bar_(bar) {}
  uint64_t io_read(uint64_t offset, unsigned size) override { return owner_.read(bar_, offset, size); }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override { owner_.write(bar_, offset, size, value); }

 private:
  PciTestdev& owner_;
  unsigned bar_;
};

PciTestdev::PciTestdev(std::string path)
    : PciDevice(std::move(path), {.vendor = 0x1b36, .device = 0x0005, .class_code = 0x00ff00}) {
  constexpr AccessRule kRule{.min_size = 1, .max_size = 4, .unaligned = true};
  for (unsigned bar = 0; bar < kBars; ++bar) handlers_[bar] = std::make_unique<BarHandler>(*this, bar);
  declare_bar(0, Region::io("pci-testdev-mmio", kMemorySize, *handlers_[0], kRule), {.size = kMemorySize});
  declare_bar(1, Region::io("pci-testdev-portio", kPortSize, *handlers_[1], kRule), {.size = kPortSize, .io = true});
}

PciTestdev::~PciTestdev() = default;

void PciTestdev::reset() {
  reset_config();
  const std::lock_guard lock(lock_);
  state_ = State{};
}

uint8_t PciTestdev::header_byte(unsigned bar, uint64_t offset) const {
  if (state_.bar != bar) return 0;
  if (offset == kTest) return state_.test;
  if (offset == kWidth) return kWidthInBytes;
  if (offset >= kName) return name_byte(bar, state_.test, offset - kName);
  if (offset >= kCount) return byte_of(state_.count, offset - kCount);
  if (offset >= kData) return byte_of(kDatum, offset - kData);
  if (offset >= kOffset) return byte_of(kTargets[bar] + state_.test * kWidthInBytes, offset - kOffset);
  return 0;
}

uint64_t PciTestdev::read(unsigned bar, uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{header_byte(bar, offset + i)} << (8 * i);
  return value;
}

void PciTestdev::write(unsigned bar, uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (offset == kTest) {
    const auto test = static_cast<uint8_t>(value);
    state_ = test < kTests.size() ? State{.bar = static_cast<uint8_t>(bar), .test = test} : State{};
    return;
  }
  if (state_.bar != bar || offset != kTargets[bar] + state_.test * kWidthInBytes || size != kWidthInBytes) return;
  if (kTests[state_.test].any_value || static_cast<uint8_t>(value) == kDatum) ++state_.count;
}

void PciTestdev::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    return state_;
  }();
  const auto& [bar, test, count] = state;
  save_section(writer, path(), PciTestdevV1{.bar = bar, .test = test, .count = count}, [&] { save_config(writer); });
}

void PciTestdev::restore(StateReader& reader) {
  PciTestdevV1 wire{};
  const auto possible = [&] {
    return require(reader, wire.bar < kBars || wire.bar == kNoBar, "a test of a BAR that does not exist is selected") &&
           require(reader, wire.test < kTests.size(), "a test that does not exist is selected") &&
           require(reader, wire.bar != kNoBar || (wire.test == 0 && wire.count == 0), "counts without a test");
  };
  if (!restore_section(reader, path(), wire, [&] {
        if (possible()) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(lock_);
  state_ = State{.bar = wire.bar, .test = wire.test, .count = wire.count};
}

}  // namespace kite::devices
