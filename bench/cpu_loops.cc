// How many guest instructions a second the software CPU does on small loops: kite_cpu_loops [name...]
// Each loop runs ecx rounds; the numbers to compare are those of one machine on one day.
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace {

using kite::cpu::TestMachine;

struct Loop {
  std::string_view name;
  unsigned instructions;  // a round
  uint32_t rounds;
  std::vector<uint8_t> code;
};

// Every loop ends with dec ecx; jnz to its start; rdi points to 64 KiB of data.
const std::vector<Loop> kLoops = {
    {"register",
     6,
     20'000'000,
     {0x48, 0x01, 0xd8,              // 1: add rax, rbx
      0x48, 0x31, 0xc2,              // xor rdx, rax
      0x48, 0xc1, 0xe2, 0x03,        // shl rdx, 3
      0x48, 0x8d, 0x5c, 0x13, 0x01,  // lea rbx, [rbx+rdx+1]
      0xff, 0xc9, 0x75, 0xed}},
    {"load-store",
     6,
     20'000'000,
     {0x48, 0x8b, 0x07,        // 1: mov rax, [rdi]
      0x48, 0x8b, 0x5f, 0x08,  // mov rbx, [rdi+8]
      0x48, 0x89, 0x47, 0x10,  // mov [rdi+16], rax
      0x48, 0x01, 0x5f, 0x18,  // add [rdi+24], rbx
      0xff, 0xc9, 0x75, 0xed}},
    {"call-return",
     5,
     20'000'000,
     {0xeb, 0x01, 0xc3,                // jmp 1f; f: ret
      0xe8, 0xfa, 0xff, 0xff, 0xff,    // 1: call f
      0x90, 0xff, 0xc9, 0x75, 0xf6}},  // nop; dec ecx; jnz 1b
    {"branches",
     7,
     20'000'000,
     {0xff, 0xc0,  // 1: inc eax
      0xa8, 0x01,  // test al, 1
      0x74, 0x02,  // jz +2
      0xff, 0xc3,  // inc ebx
      0x39, 0xd8,  // cmp eax, ebx
      0x72, 0x00,  // jb +0
      0xff, 0xc9, 0x75, 0xf0}},
    {"push-pop", 6, 20'000'000, {0x50, 0x53, 0x5b, 0x58, 0xff, 0xc9, 0x75, 0xf8}},
    {"locked", 3, 20'000'000, {0xf0, 0xff, 0x07, 0xff, 0xc9, 0x75, 0xf9}},
    {"vector",
     5,
     20'000'000,
     {0x66, 0x0f, 0x6f, 0x07, 0x0f, 0x58, 0xc1, 0x0f, 0x59, 0xd0, 0xff, 0xc9, 0x75,
      0xf2}},                                                     // movdqa xmm0, [rdi]; addps; mulps xmm2, xmm0
    {"vector-256", 7, 10'000'000, {0xc5, 0xfe, 0x6f, 0x07,        // 1: vmovdqu ymm0, [rdi]
                                   0xc5, 0xfd, 0xfe, 0xc1,        // vpaddd ymm0, ymm0, ymm1
                                   0xc5, 0xfd, 0xef, 0xd1,        // vpxor ymm2, ymm0, ymm1
                                   0xc5, 0xec, 0x59, 0xda,        // vmulps ymm3, ymm2, ymm2
                                   0xc5, 0xfe, 0x7f, 0x47, 0x20,  // vmovdqu [rdi+32], ymm0
                                   0xff, 0xc9, 0x75, 0xe7}},
    {"empty", 2, 50'000'000, {0xff, 0xc9, 0x75, 0xfc}},
};

double million_instructions_per_second(const Loop& loop, bool translated) {
  TestMachine m;
  std::unique_ptr<kite::jit::Translator> translator;
  if (translated) {
    auto made = kite::jit::Translator::create(m.cpu(), {});
    if (!made) return 0;
    translator = std::move(*made);
    m.cpu().translator = translator.get();
  }
  m.cpu().arch.cr4 |= kite::x86::cr4::kOsxsave;
  m.cpu().arch.xcr0 = kite::x86::xcr0::kX87 | kite::x86::xcr0::kSse | kite::x86::xcr0::kAvx;
  m.gpr(kite::x86::kRcx) = loop.rounds;
  m.gpr(kite::x86::kRdi) = TestMachine::kData;
  const auto start = std::chrono::steady_clock::now();
  m.run(loop.code);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const double instructions = static_cast<double>(loop.instructions) * loop.rounds;
  return instructions / seconds.count() / 1e6;
}

void run(const Loop& loop) {
  fmt::print("{:12} {:8.1f} interpreted {:8.1f} translated, million instructions/s\n", loop.name,
             million_instructions_per_second(loop, false), million_instructions_per_second(loop, true));
}

}  // namespace

int main(int argc, char** argv) {
  for (const Loop& loop : kLoops) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= loop.name == argv[i];
    if (wanted) run(loop);
  }
  return 0;
}
