// A hostile guest on the CPU: random bytes executed in every mode, with random registers and control bits.
#include <cstdlib>

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

TestMachine& machine_of(unsigned mode) {
  static std::unique_ptr<TestMachine> machines[std::size(kModes)];
  if (!machines[mode]) machines[mode] = std::make_unique<TestMachine>(kModes[mode]);
  return *machines[mode];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::ByteSource source(data, size);
  TestMachine& machine = machine_of(source.below(std::size(kModes)));
  x86::ArchState state = machine.initial_state();
  for (size_t reg = 0; reg < 16; ++reg)
    if (reg != x86::kRsp) state.gpr[reg] = kValues[source.below(std::size(kValues))] + source.take<uint8_t>();
  state.rflags |= source.take<uint16_t>() & (x86::flag::kArithmetic | x86::flag::kDf | x86::flag::kTf | x86::flag::kIf);
  if (source.take<uint8_t>() & 1) state.cr4 |= x86::cr4::kSmep | x86::cr4::kUmip | x86::cr4::kDe;
  machine.cpu().set_state(state);
  if (source.take<uint8_t>() & 1) machine.enter_user();
  (void)machine.step(source.rest().first(std::min<size_t>(source.rest().size(), 0x1000)), 400);
  machine.cpu().get_state(state);
  return 0;
}
