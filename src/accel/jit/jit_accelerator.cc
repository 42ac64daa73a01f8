#include "accel/jit/jit_accelerator.h"

#include <x86intrin.h>

#include <algorithm>
#include <cstdlib>

#include "accel/jit/translator.h"
#include "cpu/cpu.h"
#include "cpu/machine_check.h"
#include "cpu/mmu.h"
#include "metrics/metrics.h"
#include "support/page_stock.h"
#include "x86/host_features.h"

namespace kite {

namespace {

// What the CPU counts with or without a translator.
void add_metrics(metrics::Group& group, const cpu::Counters& counters) {
  group.add("blocks-decoded", counters.blocks, {.help = "blocks of guest instructions decoded for the interpreter"});
  group.add("tlb-misses-read", counters.read_misses, {.help = "loads whose page the TLB did not have"});
  group.add("tlb-misses-write", counters.write_misses, {.help = "stores whose page the TLB did not have"});
  group.add("tlb-misses-fetch", counters.fetch_misses, {.help = "code fetches whose page the TLB did not have"});
  group.add("tlb-flushes", counters.flushes, {.help = "times that the whole TLB was dropped"});
  group.add("tlb-flushes-local", counters.local_flushes, {.help = "times that all but global pages were dropped"});
  group.add("tlb-flushes-page", counters.page_flushes, {.help = "times that one page was dropped"});
}

}  // namespace

class JitVcpu final : public Vcpu {
 public:
  JitVcpu(JitAccelerator& owner, const VcpuConfig& config, AddressSpace& memory)
      : owner_(owner), cpu_(std::make_unique<cpu::Cpu>(config, memory)) {}
  ~JitVcpu() override { owner_.forget(*this); }

  Result<> translate(const JitOptions& options, std::shared_ptr<jit::PerfMap> perf_map) {
    KITE_ASSIGN(translator_, jit::Translator::create(*cpu_, {.code_bytes = options.code_mib << 20,
                                                             .threshold = options.threshold,
                                                             .profile = options.profile,
                                                             .perf_map = std::move(perf_map)}));
    cpu_->translator = translator_.get();
    return {};
  }
  void show_metrics() {
    metrics_ = std::make_unique<metrics::Group>("jit", metrics::Subject::of_vcpu(cpu_->config.index));
    add_metrics(*metrics_, cpu_->counters);
    if (translator_ != nullptr) translator_->add_metrics(*metrics_);
    metrics_->add_gauge("cycles", [this] { return cycles(); },
                        {.help = "time-stamps that passed while the vCPU ran", .unit = metrics::Unit::kCycles});
  }

  HaltReason run(CpuIo& io) override {
    run_began_.store(__rdtsc(), std::memory_order_relaxed);
    const cpu::Exit exit = cpu_->run(io, requests_, sipi_vector_);
    cycles_.add(__rdtsc() - run_began_.exchange(0, std::memory_order_relaxed));
    switch (exit) {
      case cpu::Exit::kHalted: return HaltReason::kHalted;
      case cpu::Exit::kShutdown: return HaltReason::kShutdown;
      case cpu::Exit::kKicked: return HaltReason::kKicked;
      case cpu::Exit::kDebug: return HaltReason::kDebug;
      default: return HaltReason::kInternalError;
    }
  }
  void get_state(x86::ArchState& state) override { cpu_->get_state(state); }
  void set_state(const x86::ArchState& state) override { cpu_->set_state(state); }
  void reset() override { cpu_->reset(true); }
  [[nodiscard]] bool has_work(uint32_t requests) const override { return cpu_->has_work(requests); }
  [[nodiscard]] int64_t tsc_offset() const override { return static_cast<int64_t>(cpu_->arch.tsc_offset); }
  [[nodiscard]] std::string internal_error() const override { return cpu_->internal_error(); }

  Result<> set_debug(const GuestDebug& debug) override {
    cpu_->set_debugger(debug);
    return {};
  }
  [[nodiscard]] DebugStop debug_stop() const override { return cpu_->debug_stop(); }
  std::optional<Gpa> debug_translate(uint64_t linear) override { return cpu::Mmu(*cpu_).where(linear); }

  bool post_machine_check(const MachineCheck& error) override {
    if (error.bank >= x86::kMcBanks) return false;
    cpu_->machine_checks().add(error);
    post(request::kMachineCheck);
    return true;
  }

  void map_changed(bool drop_code) { cpu_->map_changed(drop_code); }

 protected:
  void interrupt_running() override {
    if (translator_ == nullptr) return;
    cpu_->translation.alarm.fetch_or(cpu::TranslationArea::kRequest, std::memory_order_seq_cst);
  }

 private:
  // Including those of the run under way; any thread.
  [[nodiscard]] uint64_t cycles() const {
    const uint64_t began = run_began_.load(std::memory_order_relaxed), ended = cycles_.value();
    return began == 0 ? ended : ended + (__rdtsc() - began);
  }

  JitAccelerator& owner_;
  const std::unique_ptr<cpu::Cpu> cpu_;
  std::unique_ptr<jit::Translator> translator_;
  metrics::Counter cycles_;
  std::atomic<uint64_t> run_began_{0};
  std::unique_ptr<metrics::Group> metrics_;  // the last member: goes first
};

namespace {

using x86::FeatureWord;

struct Offer {
  FeatureWord word;
  uint32_t always;       // done in software
  uint32_t if_host_has;  // the host's own instructions run on the guest's registers
};

constexpr uint32_t bits(std::initializer_list<unsigned> numbers) {
  uint32_t mask = 0;
  for (const unsigned n : numbers) mask |= 1u << n;
  return mask;
}

// clang-format off
constexpr Offer kOffers[] = {
    // fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush ss ht; mmx fxsr sse sse2
    {FeatureWord::k1Edx, bits({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 27, 28}),
                         bits({23, 24, 25, 26})},
    // monitor cx16 pcid x2apic movbe tsc-deadline xsave hypervisor;
    // sse3 pclmulqdq ssse3 fma sse4.1 sse4.2 popcnt aes avx f16c rdrand
    {FeatureWord::k1Ecx, bits({3, 13, 17, 21, 22, 24, 26, 31}),
                         bits({0, 1, 9, 12, 19, 20, 23, 25, 28, 29, 30})},
    // fsgsbase tsc_adjust smep erms invpcid adx smap clflushopt clwb;
    // bmi1 avx2 fdp-excptn-only bmi2 zero-fcs-fds rdseed sha
    {FeatureWord::k7Ebx, bits({0, 1, 7, 9, 10, 19, 20, 23, 24}), bits({3, 5, 6, 8, 13, 18, 29})},
    // umip pku la57 rdpid cldemote movdiri movdir64b pks; gfni vaes vpclmulqdq
    {FeatureWord::k7Ecx, bits({2, 3, 16, 22, 25, 27, 28, 31}), bits({8, 9, 10})},
    // serialize
    {FeatureWord::k7Edx, bits({14}), 0},
    // lam; avx-vnni
    {FeatureWord::k71Eax, bits({26}), bits({4})},
    // xsaveopt xsavec xgetbv1 xsaves
    {FeatureWord::kD1Eax, bits({0, 1, 2, 3}), 0},
    // syscall nx pdpe1gb rdtscp lm
    {FeatureWord::k80000001Edx, bits({11, 20, 26, 27, 29}), 0},
    // lahf_lm 3dnowprefetch; abm
    {FeatureWord::k80000001Ecx, bits({0, 8}), bits({5})},
    // invtsc
    {FeatureWord::k80000007Edx, bits({8}), 0},
    // arat
    {FeatureWord::k6Eax, bits({2}), 0},
    // xsaveerptr rdpru wbnoinvd
    {FeatureWord::k80000008Ebx, bits({2, 4, 9}), 0},
};
// clang-format on

}  // namespace

namespace {

// The memory of the next one.
void prepare_cpu() {
#if !__has_feature(address_sanitizer)
  PageStock::instance().prepare_low(sizeof(cpu::Cpu));
#endif
}

}  // namespace

JitAccelerator::JitAccelerator(const JitOptions& options) : options_(options) { prepare_cpu(); }

JitAccelerator::~JitAccelerator() {
  if (memory_ != nullptr) memory_->remove_observer(*this);
  if (smm_memory_ != nullptr) smm_memory_->remove_observer(*this);
}

x86::FeatureSet JitAccelerator::offered_features() const {
  const x86::FeatureSet host = x86::host_features();
  x86::FeatureSet offered{};
  for (const Offer& offer : kOffers) {
    const auto word = static_cast<size_t>(offer.word);
    offered[word] = offer.always | (offer.if_host_has & host[word]);
  }
  return offered;
}

Result<> JitAccelerator::attach_memory(AddressSpace& memory) {
  if (memory_ != nullptr) return fail("the jit accelerator has an address space already");
  memory_ = &memory;
  memory.add_observer(*this);
  return {};
}

Result<> JitAccelerator::attach_smm_memory(AddressSpace& memory) {
  if (smm_memory_ != nullptr) return fail("the jit accelerator has a view of system-management mode already");
  smm_memory_ = &memory;
  memory.add_observer(*this);
  return {};
}

Result<std::unique_ptr<Vcpu>> JitAccelerator::create_vcpu(const VcpuConfig& config) {
  if (memory_ == nullptr) return fail("the jit accelerator needs an address space before its vCPUs");
  if (config.cpu == nullptr || config.clock == nullptr) return fail("a vCPU needs a CPU model and a clock");
  auto vcpu = std::make_unique<JitVcpu>(*this, config, *memory_);
  if (config.index + 1 < config.cpu_count) prepare_cpu();
  if (options_.translate) {
    KITE_TRY(make_perf_map());
    KITE_TRY(vcpu->translate(options_, perf_map_));
  }
  vcpu->show_metrics();
  const std::lock_guard lock(vcpus_mutex_);
  vcpus_.push_back(vcpu.get());
  return vcpu;
}

Result<> JitAccelerator::make_perf_map() {
  if (!options_.perf_map || perf_map_ != nullptr) return {};
  KITE_ASSIGN(perf_map_, jit::PerfMap::create());
  return {};
}

void JitAccelerator::range_removed(const FlatRange& range) { memory_removed_ |= range.is_memory(); }

// The vCPUs are parked: nothing runs while their translations go.
void JitAccelerator::commit_done() {
  const bool drop_code = std::exchange(memory_removed_, false);
  const std::lock_guard lock(vcpus_mutex_);
  for (JitVcpu* vcpu : vcpus_) vcpu->map_changed(drop_code);
}

void JitAccelerator::forget(JitVcpu& vcpu) {
  const std::lock_guard lock(vcpus_mutex_);
  std::erase(vcpus_, &vcpu);
}

}  // namespace kite
