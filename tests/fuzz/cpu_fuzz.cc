// A hostile guest on the CPU: random bytes executed in every mode, with random registers and control bits. A fresh
// machine for every input, so that an input alone makes what it found happen again.
#include <chrono>
#include <thread>

#include "cpu/test_machine.h"
#include "fuzz/byte_source.h"

namespace {

using namespace kite;  // NOLINT: a test program
using cpu::TestMachine;

constexpr TestMachine::Mode kModes[] = {TestMachine::Mode::kReal, TestMachine::Mode::k16,
                                        TestMachine::Mode::k32,   TestMachine::Mode::k32Paged,
                                        TestMachine::Mode::k64,   TestMachine::Mode::kCompat};
constexpr uint64_t kValues[] = {0,
                                1,
                                ~uint64_t{0},
                                0x7fffffffffffffff,
                                0x8000000000000000,
                                0x0000800000000000,
                                0xffff800000000000,
                                TestMachine::kData,
                                TestMachine::kCode,
                                TestMachine::kStackTop,
                                0xfff,
                                0x1fff,
                                0xfee00000,
                                0xc0000000,
                                0xffffffff,
                                0xfffffffc};
constexpr uint64_t kControl4[] = {x86::cr4::kSmep,     x86::cr4::kSmap,    x86::cr4::kUmip, x86::cr4::kDe,
                                  x86::cr4::kFsgsbase, x86::cr4::kOsxsave, x86::cr4::kPge,  x86::cr4::kTsd};
constexpr uint64_t kControl0[] = {x86::cr0::kTs, x86::cr0::kEm, x86::cr0::kAm, x86::cr0::kWp, x86::cr0::kNe};

// Ends a run() that would not end by itself: an endless loop is a guest's right.
class Watchdog {
 public:
  Watchdog() : thread_([this](const std::stop_token& stop) { watch(stop); }) {}
  void guard(TestMachine* machine) {
    const std::lock_guard lock(mutex_);
    machine_ = machine;
  }

 private:
  static constexpr std::chrono::milliseconds kPatience{2};

  void watch(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(kPatience);
      const std::lock_guard lock(mutex_);
      if (machine_ != nullptr) machine_->requests |= request::kKick;
    }
  }
  std::mutex mutex_;
  TestMachine* machine_ = nullptr;
  std::jthread thread_;
};

x86::ArchState random_state(fuzz::ByteSource& source, const TestMachine& machine, uint8_t mode) {
  x86::ArchState state = machine.initial_state();
  for (size_t reg = 0; reg < 16; ++reg) {
    const auto choice = source.take<uint8_t>();
    if (reg != x86::kRsp) state.gpr[reg] = kValues[choice & 15] + (choice >> 4);
  }
  const auto flags = source.take<uint16_t>();
  state.rflags |= flags & (x86::flag::kArithmetic | x86::flag::kDf | x86::flag::kTf | x86::flag::kIf);
  const auto bits4 = source.take<uint8_t>(), bits0 = source.take<uint8_t>();
  if ((mode & 0x20) != 0)
    for (size_t bit = 0; bit < std::size(kControl4); ++bit)
      if ((bits4 >> bit & 1) != 0) state.cr4 |= kControl4[bit];
  if ((mode & 0x40) != 0)
    for (size_t bit = 0; bit < std::size(kControl0); ++bit)
      if ((bits0 >> bit & 1) != 0) state.cr0 ^= kControl0[bit];
  return state;
}

}  // namespace

// Input: mode and switches, 15 registers, RFLAGS, CR4, CR0, code.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Watchdog watchdog;
  fuzz::ByteSource source(data, size);
  const auto mode = source.take<uint8_t>();
  TestMachine machine(kModes[(mode & 7) % std::size(kModes)]);
  x86::ArchState state = random_state(source, machine, mode);
  machine.cpu().set_state(state);
  if ((mode & 0x08) != 0) machine.enter_user();
  const auto code = source.rest().first(std::min<size_t>(source.rest().size(), 0x1000));
  machine.load(TestMachine::kData, code);  // so that loads find something: descriptors, pointers, numbers
  machine.apic.pending.assign((state.rflags & x86::flag::kIf) != 0 ? 3 : 0, 0x41);
  machine.requests |= request::kInterrupt;
  watchdog.guard(&machine);
  cpu::Exit exit = machine.run(code);
  for (unsigned wakes = (mode & 0x80) != 0 ? 8 : 0; wakes > 0 && exit == cpu::Exit::kHalted; --wakes) {
    machine.requests |= request::kNmi;
    exit = machine.resume();
  }
  watchdog.guard(nullptr);
  machine.cpu().get_state(state);
  return 0;
}
