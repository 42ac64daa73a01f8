#include "streams/guest.h"

#include <cpuid.h>

#include <cstring>
#include <span>
#include <stdexcept>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"
#include "support/bytes.h"

namespace kite::streams {
namespace {

using cpu::TestMachine;

// Guest-physical places. The two data pages are apart, so that accesses across their border are really two.
constexpr Gpa kCodePage = 0x400000, kStackPage = 0x402000, kDataPages[] = {0x404000, 0x407000};
constexpr Gpa kTables = 0x300000;  // PML4, then what grows from it
constexpr uint64_t kKernelBase = 0xffff800000000000;
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kLarge = 0x80, kNoExecute = uint64_t{1} << 63;

// The test CPU offers everything; where flags describe how the x87 pointers behave, it must be told the truth.
const x86::CpuSpec& host_like_cpu() {
  static const x86::CpuSpec spec = [] {
    x86::CpuSpec out = TestMachine::everything();
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    constexpr uint32_t kPointerFlags = 1u << 6 | 1u << 13;  // FDP on exceptions only; no FCS and FDS
    if (__builtin_cpu_is("amd")) out.vendor = "AuthenticAMD";
    uint32_t& word = out.features[static_cast<size_t>(x86::FeatureWord::k7Ebx)];
    word = (word & ~kPointerFlags) | (ebx & kPointerFlags);
    return out;
  }();
  return spec;
}

}  // namespace

class GuestRunner::Machine {
 public:
  explicit Machine(Engine engine) : engine_(engine), machine_(TestMachine::Mode::k64, host_like_cpu()) {
    if (engine != Engine::kInterpreter) {
      jit::TranslatorOptions options{.code_bytes = size_t{4} << 20, .threshold = 1};
      if (keeps_tlb()) {
        options.first_entries = 1;
        options.patience = 1;
        if (engine == Engine::kJitJudged) options.trial_entries = 2;
      }
      auto made = jit::Translator::create(machine_.cpu(), options);
      if (!made) throw std::runtime_error(made.error().message);
      translator_ = std::move(*made);
      machine_.cpu().translator = translator_.get();
    }
    map_kernel();
    map_user(kCodeAddress, kCodePage, kPresent | kUser);
    for (uint64_t i = 0; i < 2; ++i)
      map_user(kDataAddress + i * kPageSize, kDataPages[i], kPresent | kWritable | kUser | kNoExecute);
    map_user(kStackAddress, kStackPage, kPresent | kWritable | kUser | kNoExecute);
    relocate_idt();
  }

  bool run(const World& world, Pace pace, Outcome& outcome, std::string& trouble) {
    if (pace != Pace::kAgain) machine_.load(kCodePage, world.code);
    const std::span<const uint8_t> data = world.memory.data;
    machine_.load(kDataPages[0], data.first(kPageSize));
    machine_.load(kDataPages[1], data.last(kPageSize));
    machine_.load(kStackPage, world.memory.stack);
    if (pace == Pace::kAgain && keeps_tlb())
      machine_.cpu().set_state_keep_tlb(initial(world));
    else
      machine_.cpu().set_state(initial(world));
    const cpu::Exit exit = pace == Pace::kStepped ? step() : machine_.resume();
    if (exit != cpu::Exit::kHalted) {
      trouble = "the run ended with exit " + std::to_string(static_cast<int>(exit)) + " " +
                machine_.cpu().internal_error() + "\n" + machine_.cpu().dump();
      return false;
    }
    return collect(outcome, trouble);
  }

  [[nodiscard]] uint64_t translated_blocks() const { return translator_ ? translator_->counters().blocks.value() : 0; }

 private:
  [[nodiscard]] bool keeps_tlb() const { return engine_ == Engine::kJitRanges || engine_ == Engine::kJitJudged; }
  void map_kernel() {
    const Gpa pdpt = new_table(), pd = new_table();
    machine_.poke<uint64_t>(kTables + 256 * 8, pdpt | kPresent | kWritable);
    machine_.poke<uint64_t>(pdpt, pd | kPresent | kWritable);
    for (uint64_t i = 0; i < TestMachine::kRamBytes >> 21; ++i)
      machine_.poke<uint64_t>(pd + i * 8, i << 21 | kPresent | kWritable | kLarge);
  }
  void map_user(uint64_t linear, Gpa page, uint64_t rights) {
    Gpa table = kTables;
    for (unsigned level = 3; level > 0; --level) {
      const Gpa slot = table + ((linear >> (12 + 9 * level)) & 511) * 8;
      if (machine_.peek<uint64_t>(slot) == 0) machine_.poke<uint64_t>(slot, new_table() | kPresent | kWritable | kUser);
      table = machine_.peek<uint64_t>(slot) & 0xffffffffff000;
    }
    machine_.poke<uint64_t>(table + ((linear >> 12) & 511) * 8, page | rights);
  }
  Gpa new_table() { return next_table_ += kPageSize; }

  void relocate_idt() {
    for (uint64_t v = 0; v < 256; ++v) {
      const uint64_t handler = kKernelBase + TestMachine::kHandlers + v * 16;
      const Gpa gate = TestMachine::kIdt + v * 16;
      // DPL 3 for INT3 and INTO, as the host's kernel has them.
      const uint64_t type = v == 3 || v == 4 ? 0xee00 : 0x8e00;
      machine_.poke<uint64_t>(gate, (handler & 0xffff) | uint64_t{TestMachine::kCode64} << 16 | type << 32 |
                                        ((handler >> 16) & 0xffff) << 48);
      machine_.poke<uint64_t>(gate + 8, handler >> 32);
    }
    machine_.poke<uint64_t>(TestMachine::kTss + 4, kKernelBase + TestMachine::kRing0Stack);
  }

  // Until the HLT of an exception handler, which is the instruction that has run when the CPU halts.
  cpu::Exit step() {
    machine_.cpu().arch.activity = x86::Activity::kActive;
    cpu::Exit exit = cpu::Exit::kStepped;
    while (exit == cpu::Exit::kStepped && machine_.cpu().arch.activity == x86::Activity::kActive)
      exit = machine_.cpu().step(machine_);
    return exit == cpu::Exit::kStepped ? cpu::Exit::kHalted : exit;
  }

  x86::ArchState initial(const World& world) const {
    x86::ArchState state = machine_.initial_state();
    state.gpr = world.registers.gpr;
    state.rip = world.registers.rip;
    state.rflags = world.registers.rflags;
    std::memcpy(state.fx.bytes.data(), world.registers.fx.data(), world.registers.fx.size());
    std::memcpy(state.ymm_high.reg.data(), world.registers.ymm_high.data(), world.registers.ymm_high.size());
    state.cr0 |= x86::cr0::kAm;
    state.cr4 |= x86::cr4::kOsxsave;
    state.xcr0 = x86::xcr0::kX87 | x86::xcr0::kSse | x86::xcr0::kAvx;
    state.cr3 = kTables;
    state.gdtr.base = kKernelBase + TestMachine::kGdt;
    state.idtr.base = kKernelBase + TestMachine::kIdt;
    state.tr.base = kKernelBase + TestMachine::kTss;
    for (auto& segment : state.seg) segment = {kDataSelector, 0xc0f3, 0xffffffff, 0};
    auto& code = state.seg[static_cast<size_t>(x86::Seg::kCs)];
    code = world.wide ? x86::SegmentRegister{kCode64Selector, 0xa0fb, 0xffffffff, 0}
                      : x86::SegmentRegister{kCode32Selector, 0xc0fb, 0xffffffff, 0};
    for (const x86::Seg null : {x86::Seg::kFs, x86::Seg::kGs})
      state.seg[static_cast<size_t>(null)] = {0, 0x10000, 0, null == x86::Seg::kGs ? kGsBase : 0};
    return state;
  }

  bool collect(Outcome& outcome, std::string& trouble) {
    cpu::Cpu& cpu = machine_.cpu();
    const uint64_t after_hlt = cpu.state.rip - kKernelBase - TestMachine::kHandlers;
    if (after_hlt > 0x1000 || (after_hlt & 15) != 1) {
      trouble = "the CPU halted outside of an exception handler\n" + cpu.dump();
      return false;
    }
    outcome.vector = after_hlt >> 4;
    x86::ArchState state;
    cpu.get_state(state);
    Gpa frame = state.gpr[x86::kRsp] - kKernelBase;
    const uint64_t v = outcome.vector;
    outcome.error_code = 0;
    if (v == 8 || (v >= 10 && v <= 14) || v == 17) {
      outcome.error_code = machine_.peek<uint64_t>(frame);
      frame += 8;
    }
    outcome.fault_address = state.cr2;
    Registers& out = outcome.registers;
    out.gpr = state.gpr;
    out.rip = machine_.peek<uint64_t>(frame);
    out.rflags = machine_.peek<uint64_t>(frame + 16);
    out.gpr[x86::kRsp] = machine_.peek<uint64_t>(frame + 24);
    std::memcpy(out.fx.data(), state.fx.bytes.data(), out.fx.size());
    std::memcpy(out.ymm_high.data(), state.ymm_high.reg.data(), out.ymm_high.size());
    const uint8_t* const ram = machine_.ram->host();
    std::memcpy(&outcome.memory.data[0], ram + kDataPages[0], kPageSize);
    std::memcpy(&outcome.memory.data[kPageSize], ram + kDataPages[1], kPageSize);
    std::memcpy(outcome.memory.stack.data(), ram + kStackPage, kStackBytes);
    return true;
  }

  Engine engine_;
  TestMachine machine_;
  std::unique_ptr<jit::Translator> translator_;
  Gpa next_table_ = kTables;
};

GuestRunner::GuestRunner(Engine engine) : machine_(std::make_unique<Machine>(engine)) {}
GuestRunner::~GuestRunner() = default;
uint64_t GuestRunner::translated_blocks() const { return machine_->translated_blocks(); }
bool GuestRunner::run(const World& world, Pace pace, Outcome& outcome, std::string& trouble) {
  return machine_->run(world, pace, outcome, trouble);
}

}  // namespace kite::streams
