#include "machine/accelerator_choice.h"

#include <ctime>
#include <string>
#include <string_view>

#include "accel/jit/jit_accelerator.h"
#include "accel/kvm/kvm_accelerator.h"
#include "accel/kvm/kvm_probe.h"
#include "accel/qtest/qtest_accelerator.h"
#include "machine/board.h"
#include "support/log.h"
#include "support/suggest.h"

namespace kite::machine {

namespace {

using Made = Result<std::unique_ptr<Accelerator>>;

int64_t host_now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

KvmOptions kvm_options(const KvmConfig& config) {
  using Irqchip = KvmConfig::Irqchip;
  KvmOptions options;
  options.dirty_ring_entries = config.dirty_ring_entries;
  switch (config.kernel_irqchip) {
    case Irqchip::kDefault: break;
    case Irqchip::kOn: options.irqchip = KernelIrqchip::kOn; break;
    case Irqchip::kSplit: options.irqchip = KernelIrqchip::kSplit; break;
    case Irqchip::kOff: options.irqchip = KernelIrqchip::kOff; break;
  }
  return options;
}

class Choice {
 public:
  Choice(const MachineConfig& config, const AcceleratorHost& host) : config_(config), host_(host) {}

  Made make(std::string_view name) {
    if (name == "auto") return automatic();
    if (name == "kvm") return kvm();
    if (name == "jit" || name == "tcg") return jit();
    if (name == "qtest") return std::make_unique<QtestAccelerator>();
    if (name == "xen")
      return fail("-accel xen: Kite runs guests by itself and is no Xen device model; use -accel kvm or -accel jit");
    static constexpr std::string_view kNames[] = {"auto", "kvm", "jit", "tcg", "qtest", "xen"};
    return fail("-accel {}: no such accelerator{}", name, suggestion(name, kNames));
  }

 private:
  Made kvm() {
    auto system = KvmSystem::open(host_.kvm);
    if (!system) return fail("-accel kvm: {}; or use -accel jit, the software CPU", system.error().message);
    return with(*std::move(system));
  }

  Made with(std::shared_ptr<KvmSystem> system) {
    auto made = KvmAccelerator::create(std::move(system), kvm_options(config_.kvm));
    if (!made) return fail("-accel kvm: {}", made.error().message);
    return std::unique_ptr<Accelerator>(*std::move(made));
  }

  Made jit_because(std::string_view reason) {
    log::info("accelerator jit: {}", reason);
    return jit();
  }
  Made jit() { return std::make_unique<JitAccelerator>(config_.jit); }

  Made automatic() {
    if (const BoardInfo* board = find_board(config_.board); board != nullptr && board->max_cpus == 0)
      return jit_because("the machine has no CPU");
    auto system = KvmSystem::open(host_.kvm);
    if (!system) return jit_because(system.error().message);
    const auto speed = probe_kvm_speed(**system, host_.now_ns ? host_.now_ns : host_now_ns);
    if (!speed) return jit_because(fmt::format("/dev/kvm: {}", speed.error().message));
    const double millions = static_cast<double>(speed->per_second) / 1e6;
    if (!speed->real())
      return jit_because(fmt::format(
          "/dev/kvm only emulates here ({:.1f} million instructions a second; -accel kvm takes it anyway)", millions));
    auto made = with(*std::move(system));
    if (!made) return jit_because(made.error().message);
    log::info("accelerator kvm: real virtualization ({:.0f} million instructions a second)", millions);
    return made;
  }

  const MachineConfig& config_;
  const AcceleratorHost& host_;
};

}  // namespace

Made choose_accelerator(const MachineConfig& config, const AcceleratorHost& host) {
  Choice choice(config, host);
  std::string reasons;
  for (const std::string& name : config.accelerators) {
    Made made = choice.make(name);
    if (made) {
      if (!reasons.empty()) log::info("{}\nusing accelerator {}", reasons, (*made)->name());
      return made;
    }
    if (!reasons.empty()) reasons += '\n';
    reasons += made.error().message;
  }
  return fail("{}", reasons.empty() ? "no accelerator was named" : reasons);
}

}  // namespace kite::machine
