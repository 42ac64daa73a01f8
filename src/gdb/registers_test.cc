#include "gdb/registers.h"

#include <gtest/gtest.h>

#include <set>

#include "gdb/packet.h"

namespace kite::gdb {
namespace {

x86::CpuSpec cpu(bool avx) {
  x86::CpuSpec spec;
  spec.features.fill(0xffffffff);
  if (!avx) spec.features[static_cast<size_t>(x86::FeatureWord::k1Ecx)] &= ~(1u << 28);
  return spec;
}

size_t number_of(const Registers& registers, std::string_view name) {
  for (size_t number = 0; number < registers.count(); ++number)
    if (registers.name_of(number) == name) return number;
  ADD_FAILURE() << "no register " << name;
  return 0;
}

std::string read(const Registers& registers, const x86::ArchState& state, std::string_view name) {
  const size_t number = number_of(registers, name);
  std::vector<uint8_t> value(registers.bytes_of(number));
  registers.read(state, number, value);
  return to_hex(value);
}

bool write(const Registers& registers, x86::ArchState& state, std::string_view name, std::string_view digits) {
  const auto value = from_hex(digits);
  const size_t number = number_of(registers, name);
  EXPECT_EQ(value->size(), registers.bytes_of(number));
  return registers.write(state, number, *value);
}

// Whether every element of the document that begins also ends, in the right order, and attributes are quoted.
bool is_well_formed(std::string_view text) {
  std::vector<std::string> open;
  while (true) {
    const size_t start = text.find('<');
    if (start == std::string_view::npos) return open.empty();
    const size_t end = text.find('>', start);
    if (end == std::string_view::npos) return false;
    std::string_view tag = text.substr(start + 1, end - start - 1);
    text.remove_prefix(end + 1);
    if (tag.starts_with('?') || tag.starts_with('!')) continue;
    if (std::ranges::count(tag, '"') % 2 != 0) return false;
    const std::string name(tag.substr(tag.starts_with('/') ? 1 : 0, tag.find(' ') - (tag.starts_with('/') ? 1 : 0)));
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != name) return false;
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
  }
}

TEST(GdbRegisters, BeginAsGdbExpectsThem) {
  const Registers registers(cpu(true));
  static constexpr std::string_view kFirst[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8",
                                                "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rip", "eflags",
                                                "cs",  "ss",  "ds",  "es",  "fs",  "gs",  "st0"};
  for (size_t number = 0; number < std::size(kFirst); ++number) EXPECT_EQ(registers.name_of(number), kFirst[number]);
  EXPECT_EQ(number_of(registers, "xmm0"), 40u);
  EXPECT_EQ(number_of(registers, "mxcsr"), 56u);
}

TEST(GdbRegisters, TheDescriptionIsWellFormedAndComplete) {
  for (const bool avx : {false, true}) {
    const Registers registers(cpu(avx));
    const std::string text = registers.description();
    EXPECT_TRUE(is_well_formed(text));
    for (size_t number = 0; number < registers.count(); ++number)
      EXPECT_NE(text.find(fmt::format("<reg name=\"{}\" bitsize=\"{}\"", registers.name_of(number),
                                      registers.bytes_of(number) * 8)),
                std::string::npos);
    EXPECT_EQ(text.find("org.gnu.gdb.i386.avx") != std::string::npos, avx);
    // Types are there before they are used.
    for (const char* const type : {"i386_eflags", "vec128", "i386_mxcsr", "x64_cr0", "x64_cr4", "x64_efer"})
      EXPECT_LT(text.find(fmt::format("id=\"{}\"", type)), text.find(fmt::format("type=\"{}\"", type))) << type;
  }
}

TEST(GdbRegisters, EachIsReadAsItWasWritten) {
  const Registers registers(cpu(true));
  x86::ArchState state;
  state.cr0 = 0;  // real mode: selectors can be changed
  std::set<std::string> fixed{"eflags", "mxcsr", "ftag"};
  for (size_t number = 0; number < registers.count(); ++number) {
    if (fixed.contains(std::string(registers.name_of(number)))) continue;
    std::vector<uint8_t> value(registers.bytes_of(number)), again(value.size());
    for (size_t i = 0; i < std::min<size_t>(value.size(), 2); ++i) value[i] = static_cast<uint8_t>(number + i + 1);
    if (value.size() > 4) value.back() = 0x5a;
    ASSERT_TRUE(registers.write(state, number, value)) << registers.name_of(number);
    registers.read(state, number, again);
    EXPECT_EQ(again, value) << registers.name_of(number);
  }
}

TEST(GdbRegisters, FlagsKeepWhatIsFixed) {
  const Registers registers(cpu(true));
  x86::ArchState state;
  EXPECT_TRUE(write(registers, state, "eflags", "ffffffff"));
  EXPECT_EQ(state.rflags, 0x3f7fd7u);
  EXPECT_TRUE(write(registers, state, "eflags", "00000000"));
  EXPECT_EQ(state.rflags, 2u);
}

TEST(GdbRegisters, ASelectorOfProtectedModeStays) {
  const Registers registers(cpu(true));
  x86::ArchState state;
  state.seg[static_cast<size_t>(x86::Seg::kDs)].selector = 8;
  EXPECT_TRUE(write(registers, state, "ds", "00100000"));
  EXPECT_EQ(state.seg[static_cast<size_t>(x86::Seg::kDs)].base, 0x10000u);
  state.cr0 = x86::cr0::kPe;
  EXPECT_FALSE(write(registers, state, "ds", "10000000"));
  EXPECT_TRUE(write(registers, state, "ds", "00100000"));
}

TEST(GdbRegisters, X87TagsAreMadeOfTheContents) {
  const Registers registers(cpu(true));
  x86::ArchState state;
  state.fx.bytes[3] = 0x30;  // TOP is 6
  state.fx.bytes[4] = 0xc0;  // registers 6 and 7 are used
  // ST0 is 1.0, ST1 is 0.
  EXPECT_TRUE(write(registers, state, "st0", "0000000000000080ff3f"));
  EXPECT_EQ(read(registers, state, "ftag"), "ff4f0000");                // 7: zero, 6: valid
  EXPECT_TRUE(write(registers, state, "st1", "00000000000000c0ff7f"));  // NaN
  EXPECT_EQ(read(registers, state, "ftag"), "ff8f0000");
  EXPECT_TRUE(write(registers, state, "ftag", "ff3f0000"));  // 7: valid
  EXPECT_EQ(state.fx.bytes[4], 0x80);
}

TEST(GdbRegisters, MxcsrHasNoReservedBits) {
  const Registers registers(cpu(true));
  x86::ArchState state;
  EXPECT_FALSE(write(registers, state, "mxcsr", "00000100"));
  EXPECT_TRUE(write(registers, state, "mxcsr", "801f0000"));
  EXPECT_EQ(read(registers, state, "mxcsr"), "801f0000");
}

}  // namespace
}  // namespace kite::gdb
