// What the tests of local APICs and IOAPICs share: processors that note what is done to them, an 8259 that is told what
// to answer, and a bus with some of each.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "devices/apic/apic_bus.h"
#include "devices/apic/cpu_apic.h"
#include "devices/test_device.h"

namespace kite::testing {

class FakeCpu final : public devices::ApicCpu {
 public:
  void interrupt() override { ++interrupts; }
  void nmi() override { ++nmis; }
  void smi() override { ++smis; }
  void init() override { ++inits; }
  void sipi(uint8_t vector) override { sipis.push_back(vector); }
  [[nodiscard]] int64_t tsc_offset() const override { return offset; }

  std::atomic<int> interrupts{0}, nmis{0}, smis{0}, inits{0};
  std::vector<uint8_t> sipis;
  int64_t offset = 0;
};

class FakePic final : public devices::ExtInt {
 public:
  [[nodiscard]] bool pending() const override { return vector.has_value(); }
  uint8_t acknowledge() override { return std::exchange(vector, std::nullopt).value_or(0xff); }
  std::optional<uint8_t> vector;
};

using devices::apic::Reg;

// `count` processors with ids 0, 1, ..., software-enabled, on one bus.
class ApicMachine {
 public:
  explicit ApicMachine(unsigned count, devices::CpuApicConfig config = default_config()) {
    bus.set_ext_int(pic);
    for (unsigned i = 0; i < count; ++i) {
      cpus.push_back(std::make_unique<FakeCpu>());
      config.id = i;
      config.bootstrap = i == 0;
      apics.push_back(std::make_unique<devices::CpuApic>("apic", config, bus, *cpus.back(), clock));
      write(i, Reg::SVR, 0x1ff);
    }
  }
  static devices::CpuApicConfig default_config() { return {.x2apic = true, .tsc_deadline = true}; }

  uint32_t read(unsigned cpu, Reg reg) { return apics[cpu]->mmio_read(static_cast<uint32_t>(reg) << 4); }
  void write(unsigned cpu, Reg reg, uint32_t value) { apics[cpu]->mmio_write(static_cast<uint32_t>(reg) << 4, value); }
  void lvt(unsigned cpu, devices::apic::Lvt entry, uint32_t value) {
    write(cpu, static_cast<Reg>(static_cast<unsigned>(Reg::LVT_TIMER) + entry), value);
  }
  void ipi(unsigned from, uint8_t destination, uint32_t low) {
    write(from, Reg::ICR_HIGH, uint32_t{destination} << 24);
    write(from, Reg::ICR, low);
  }
  bool bit(unsigned cpu, Reg bank, uint8_t vector) {
    return (read(cpu, static_cast<Reg>(static_cast<unsigned>(bank) + vector / 32)) >> (vector % 32) & 1) != 0;
  }
  // The processors (as a mask) in whose IRR `vector` is.
  uint32_t requested(uint8_t vector) {
    uint32_t mask = 0;
    for (unsigned i = 0; i < apics.size(); ++i) {
      uint64_t words = 0;
      if (apics[i]->x2apic_mode()) {
        apics[i]->msr_read(0x820u + vector / 32, words);
      } else {
        words = read(i, static_cast<Reg>(static_cast<unsigned>(Reg::IRR) + vector / 32));
      }
      mask |= static_cast<uint32_t>(words >> (vector % 32) & 1) << i;
    }
    return mask;
  }
  // Takes and ends whatever is deliverable to `cpu`; answers the vectors in order.
  std::vector<int> serve(unsigned cpu) {
    std::vector<int> vectors;
    while (const auto vector = apics[cpu]->acknowledge()) {
      vectors.push_back(*vector);
      write(cpu, Reg::EOI, 0);
    }
    return vectors;
  }
  bool enter_x2apic(unsigned cpu) { return apics[cpu]->set_base(apics[cpu]->base() | devices::apic::kBaseX2Apic); }

  ManualClock clock;
  FakePic pic;
  devices::ApicBus bus;
  std::vector<std::unique_ptr<FakeCpu>> cpus;
  std::vector<std::unique_ptr<devices::CpuApic>> apics;
};

}  // namespace kite::testing
