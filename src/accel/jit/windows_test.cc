// Random accesses near each other, from registers that move: translated code with windows does what the interpreter
// does, faults in the middle included.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;
using Bytes = std::vector<uint8_t>;

// A function, on the page with the stack: stores there are to a page of code.
constexpr uint32_t kFunction = TestMachine::kData + kPageSize + 0xf00;

// A loop of these, each an instruction with its last byte or two to be filled in: a register in ModRM, a displacement.
struct Form {
  Bytes bytes;
  bool has_register;      // in bits 3 to 5 of the last byte
  bool has_displacement;  // a byte behind that
};
const Form kForms[] = {
    {{0x48, 0x89, 0x47}, true, true},         // mov [rdi+d], r
    {{0x48, 0x8b, 0x47}, true, true},         // mov r, [rdi+d]
    {{0x48, 0x01, 0x47}, true, true},         // add [rdi+d], r
    {{0x48, 0x13, 0x47}, true, true},         // adc r, [rdi+d]
    {{0x0f, 0xb6, 0x47}, true, true},         // movzx r, byte [rdi+d]
    {{0x88, 0x47}, true, true},               // mov [rdi+d], r8
    {{0x4c, 0x89, 0x67}, false, true},        // mov [rdi+d], r12
    {{0x49, 0x89, 0x44, 0x24}, false, true},  // mov [r12+d], rax
    {{0x49, 0x8b, 0x54, 0x24}, false, true},  // mov rdx, [r12+d]
    {{0x66, 0x0f, 0xd6, 0x47}, true, true},   // movq [rdi+d], xmm
    {{0xf3, 0x0f, 0x6f, 0x47}, true, true},   // movdqu xmm, [rdi+d]
    {{0x48, 0x83, 0xc7}, false, true},        // add rdi, d
    {{0x48, 0x8d, 0x7f}, false, true},        // lea rdi, [rdi+d]
    {{0x49, 0x8d, 0x64, 0x24}, false, true},  // lea rsp, [r12+d]
    {{0x50}, false, false},
    {{0x53}, false, false},  // push rax, rbx
    {{0x5a}, false, false},
    {{0x5e}, false, false},                    // pop rdx, rsi
    {{0x50, 0x41, 0x54, 0x53}, false, false},  // push rax, r12, rbx
    {{0x57}, false, false},                    // push rdi
    {{0x5a, 0x41, 0x5e, 0x5e}, false, false},  // pop rdx, r14, rsi
    {{0x54, 0x50, 0x58, 0x5c}, false, false},  // push rsp, rax; pop rax, rsp
    {{0x48, 0x83, 0xec, 0x18}, false, false},  // sub rsp, 24
    {{0x48, 0x83, 0xc4, 0x08}, false, false},  // add rsp, 8
    {{0x48, 0x89, 0x44, 0x24}, true, true},    // mov [rsp+d], r
    {{0x48, 0x03, 0x44, 0x24}, true, true},    // add r, [rsp+d]
    {{0x48, 0x39, 0xd0}, false, false},        // cmp rax, rdx
    {{0x48, 0xc1, 0xe8, 0x03}, false, false},  // shr rax, 3
    {{0x41, 0x55}, false, false},
    {{0x41, 0x5f}, false, false},                                // push r13; pop r15
    {{0x4c, 0x8b, 0x6c, 0x24}, false, true},                     // mov r13, [rsp+d]
    {{0x48, 0x89, 0xd0}, false, false},                          // mov rax, rdx
    {{0x45, 0x31, 0xff}, false, false},                          // xor r15d, r15d
    {{0x75, 0x00}, false, false},                                // jne to the next
    {{0xe8, 0, 0, 0, 0}, false, false},                          // call the next
    {{0x48, 0x8d, 0x05, 2, 0, 0, 0, 0xff, 0xd0}, false, false},  // lea rax, [rip+2]; call rax
    {{0x48, 0x8d, 0x15, 2, 0, 0, 0, 0x52, 0xc3}, false, false},  // lea rdx, [rip+2]; push rdx; ret
    {{0xb8, kFunction & 0xff, kFunction >> 8 & 0xff, kFunction >> 16, 0, 0xff, 0xd0},
     false,
     false},  // mov eax, kFunction; call rax
};

Bytes make_code(std::mt19937& random) {
  const auto below = [&](size_t n) { return random() % n; };
  constexpr unsigned kRegisters[] = {x::kRax, x::kRdx, x::kRbx, x::kRsi};
  Bytes code;
  for (size_t left = 4 + below(12); left > 0; --left) {
    const Form& form = kForms[below(std::size(kForms))];
    Bytes bytes = form.bytes;
    const bool has_sib = bytes.size() > 1 && bytes.back() == 0x24 && form.has_register;
    uint8_t& modrm = bytes[bytes.size() - (has_sib ? 2 : 1)];
    if (form.has_register) modrm = static_cast<uint8_t>((modrm & 0xc7) | kRegisters[below(4)] << 3);
    if (form.has_displacement) bytes.push_back(static_cast<uint8_t>(below(48) - 24));
    code.insert(code.end(), bytes.begin(), bytes.end());
  }
  code.insert(code.end(), {0xff, 0xc9, 0x0f, 0x85});  // dec ecx; jnz
  const auto back = static_cast<uint32_t>(-static_cast<int64_t>(code.size() + 4));
  for (unsigned i = 0; i < 4; ++i) code.push_back(static_cast<uint8_t>(back >> (8 * i)));
  code.insert(code.end(), {0x49, 0x89, 0xe5});  // mov r13, rsp
  return code;
}

struct Seen {
  std::array<uint64_t, 16> gpr{};
  uint64_t rsp = 0, rip = 0, flags = 0, cr2 = 0;
  int vector = 0;
  Bytes memory;
  bool operator==(const Seen&) const = default;
};

Seen run(uint32_t seed, bool translated) {
  std::mt19937 random(seed);
  const Bytes code = make_code(random);
  constexpr unsigned kPages = 3;
  TestMachine m;
  std::unique_ptr<Translator> translator;
  if (translated) {
    // Two entries on trial, so that half of the loop is judged. Some never come so far.
    auto made = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20,
                                             .threshold = 1,
                                             .first_entries = seed % 4 == 3 ? 1000u : 1u,
                                             .busy_cycles = ~uint64_t{0},
                                             .trial_entries = seed % 2 == 0 ? 1000u : 4u,
                                             .patience = 1});
    if (!made) throw std::runtime_error(made.error().message);
    translator = std::move(*made);
    m.cpu().translator = translator.get();
  }
  for (unsigned page = 0; page < kPages; ++page) {
    const uint64_t rights = page == 2 && seed % 3 == 0 ? 0 : page == 2 && seed % 3 == 1 ? 5 : 7;
    m.set_pte(TestMachine::kData + page * kPageSize, (TestMachine::kData + page * kPageSize) | rights);
  }
  m.poke<uint8_t>(kFunction, 0xc3);  // ret
  m.cpu().config.cpu_count = seed % 5 == 0 ? 2 : 1;
  m.enter_user();
  for (const unsigned n : {x::kRax, x::kRdx, x::kRbx, x::kRsi}) m.gpr(n) = random();
  m.gpr(x::kRcx) = 8;
  m.gpr(x::kRdi) = TestMachine::kData + 2 * kPageSize - random() % 200;
  m.gpr(x::kR12) = TestMachine::kData + kPageSize + random() % 100 - 50;
  m.gpr(x::kRsp) = TestMachine::kData + kPageSize + 8 * (random() % 64);
  m.run(code);
  Seen seen;
  for (unsigned n = 0; n < 16; ++n)
    if (n != x::kRsp) seen.gpr[n] = m.gpr(n);
  seen.rsp = m.pushed_stack_pointer();
  seen.rip = m.faulting_rip();
  seen.flags = m.pushed_flags() & x::flag::kArithmetic;
  seen.vector = static_cast<int>(*m.vector());
  seen.cr2 = m.cpu().arch.cr2;
  const uint8_t* const data = m.ram->host() + TestMachine::kData;
  seen.memory.assign(data, data + kPages * kPageSize);
  m.cpu().translator = nullptr;
  return seen;
}

// Sanitizers take a hundred times as long to make a machine.
#if __has_feature(address_sanitizer)
constexpr uint32_t kSeeds = 100;
#else
constexpr uint32_t kSeeds = 1000;
#endif

TEST(Windows, DoWhatTheInterpreterDoes) {
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) ASSERT_TRUE(run(seed, true) == run(seed, false)) << "seed " << seed;
}

}  // namespace
}  // namespace kite::jit
