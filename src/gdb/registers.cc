#include "gdb/registers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "gdb/x87.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::gdb {

namespace {

using x86::ArchState;
using x86::Seg;

// Bits of a flags type: name, number.
constexpr std::string_view kCoreTypes = R"(  <flags id="i386_eflags" size="4">
    <field name="CF" start="0" end="0"/><field name="" start="1" end="1"/><field name="PF" start="2" end="2"/>
    <field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>
    <field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/><field name="DF" start="10" end="10"/>
    <field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>
    <field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/><field name="VIF" start="19" end="19"/>
    <field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/>
  </flags>
)";
constexpr std::string_view kSseTypes = R"(  <vector id="v4f" type="ieee_single" count="4"/>
  <vector id="v2d" type="ieee_double" count="2"/>
  <vector id="v16i8" type="int8" count="16"/>
  <vector id="v8i16" type="int16" count="8"/>
  <vector id="v4i32" type="int32" count="4"/>
  <vector id="v2i64" type="int64" count="2"/>
  <union id="vec128">
    <field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>
    <field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
    <field name="uint128" type="uint128"/>
  </union>
  <flags id="i386_mxcsr" size="4">
    <field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/><field name="ZE" start="2" end="2"/>
    <field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/><field name="PE" start="5" end="5"/>
    <field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/><field name="DM" start="8" end="8"/>
    <field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/><field name="UM" start="11" end="11"/>
    <field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/>
  </flags>
)";
constexpr std::string_view kSystemTypes = R"(  <flags id="x64_cr0" size="8">
    <field name="PE" start="0" end="0"/><field name="MP" start="1" end="1"/><field name="EM" start="2" end="2"/>
    <field name="TS" start="3" end="3"/><field name="ET" start="4" end="4"/><field name="NE" start="5" end="5"/>
    <field name="WP" start="16" end="16"/><field name="AM" start="18" end="18"/><field name="NW" start="29" end="29"/>
    <field name="CD" start="30" end="30"/><field name="PG" start="31" end="31"/>
  </flags>
  <flags id="x64_cr4" size="8">
    <field name="VME" start="0" end="0"/><field name="PVI" start="1" end="1"/><field name="TSD" start="2" end="2"/>
    <field name="DE" start="3" end="3"/><field name="PSE" start="4" end="4"/><field name="PAE" start="5" end="5"/>
    <field name="MCE" start="6" end="6"/><field name="PGE" start="7" end="7"/><field name="PCE" start="8" end="8"/>
    <field name="OSFXSR" start="9" end="9"/><field name="OSXMMEXCPT" start="10" end="10"/>
    <field name="UMIP" start="11" end="11"/><field name="LA57" start="12" end="12"/>
    <field name="VMXE" start="13" end="13"/><field name="FSGSBASE" start="16" end="16"/>
    <field name="PCIDE" start="17" end="17"/><field name="OSXSAVE" start="18" end="18"/>
    <field name="SMEP" start="20" end="20"/><field name="SMAP" start="21" end="21"/>
    <field name="PKE" start="22" end="22"/><field name="PKS" start="24" end="24"/>
    <field name="LAM_SUP" start="28" end="28"/>
  </flags>
  <flags id="x64_efer" size="8">
    <field name="SCE" start="0" end="0"/><field name="LME" start="8" end="8"/><field name="LMA" start="10" end="10"/>
    <field name="NXE" start="11" end="11"/><field name="SVME" start="12" end="12"/>
    <field name="FFXSR" start="14" end="14"/>
  </flags>
)";

// GDB's order, by the processor's numbers.
constexpr std::array<std::pair<std::string_view, uint8_t>, 8> kNamed{{{"rax", x86::kRax},
                                                                      {"rbx", x86::kRbx},
                                                                      {"rcx", x86::kRcx},
                                                                      {"rdx", x86::kRdx},
                                                                      {"rsi", x86::kRsi},
                                                                      {"rdi", x86::kRdi},
                                                                      {"rbp", x86::kRbp},
                                                                      {"rsp", x86::kRsp}}};
constexpr std::array<std::pair<std::string_view, Seg>, 6> kSelectors{
    {{"cs", Seg::kCs}, {"ss", Seg::kSs}, {"ds", Seg::kDs}, {"es", Seg::kEs}, {"fs", Seg::kFs}, {"gs", Seg::kGs}}};
enum Base : uint8_t { kFsBase, kGsBase, kKernelGsBase };
enum Control : uint8_t { kCr0 = 0, kCr2 = 2, kCr3 = 3, kCr4 = 4, kCr8 = 8, kEfer };

template <class State>
auto& base_of(State& state, uint8_t index) {
  if (index == kKernelGsBase) return state.kernel_gs_base;
  return state.seg[static_cast<size_t>(index == kFsBase ? Seg::kFs : Seg::kGs)].base;
}
template <class State>
auto& control_of(State& state, uint8_t index) {
  switch (index) {
    case kCr0: return state.cr0;
    case kCr2: return state.cr2;
    case kCr3: return state.cr3;
    case kCr4: return state.cr4;
    case kCr8: return state.cr8;
    default: return state.efer;
  }
}

// Registers that lie in memory as GDB has them.
template <class State>
auto* image_of(State& state, bool high, size_t offset) {
  return (high ? state.ymm_high.reg[0].data() : state.fx.bytes.data()) + offset;
}

// [SDM 3A 20.1.4] In real and virtual-8086 mode the base follows from the selector. Elsewhere it is in a table of the
// guest's, and GDB cannot change it.
bool write_selector(ArchState& state, uint8_t index, uint64_t value) {
  x86::SegmentRegister& segment = state.seg[index];
  if (value == segment.selector) return true;
  const bool real = (state.cr0 & x86::cr0::kPe) == 0 || (state.rflags & x86::flag::kVm) != 0;
  if (!real || value > 0xffff) return false;
  segment.selector = static_cast<uint16_t>(value);
  segment.base = value << 4;
  return true;
}

}  // namespace

Registers::Registers(const x86::CpuSpec& cpu) {
  constexpr unsigned kSse = 25, kAvx = 28;
  add_core();
  if (cpu.has(x86::FeatureWord::k1Edx, kSse)) add_sse();
  add_system();
  if (cpu.has(x86::FeatureWord::k1Ecx, kAvx)) add_avx();
}

void Registers::begin(std::string_view name, std::string_view types) { features_.push_back({name, types, count()}); }

void Registers::add(std::string name, uint16_t bits, std::string_view type, Kind kind, uint8_t index) {
  rows_.push_back({.name = std::move(name), .bits = bits, .type = type, .kind = kind, .index = index});
}

void Registers::add_core() {
  begin("org.gnu.gdb.i386.core", kCoreTypes);
  for (const auto& [name, number] : kNamed) {
    const bool stack = number == x86::kRbp || number == x86::kRsp;
    add(std::string(name), 64, stack ? "data_ptr" : "int64", Kind::kGpr, number);
  }
  for (uint8_t number = 8; number < 16; ++number) add(fmt::format("r{}", number), 64, "int64", Kind::kGpr, number);
  add("rip", 64, "code_ptr", Kind::kRip, 0);
  add("eflags", 32, "i386_eflags", Kind::kFlags, 0);
  for (const auto& [name, segment] : kSelectors)
    add(std::string(name), 32, "int32", Kind::kSelector, static_cast<uint8_t>(segment));
  for (uint8_t number = 0; number < 8; ++number) add(fmt::format("st{}", number), 80, "i387_ext", Kind::kSt, number);
  for (uint8_t number = 0; number < kX87Names.size(); ++number)
    add(std::string(kX87Names[number]), 32, "int", Kind::kX87, number);
}

void Registers::add_sse() {
  begin("org.gnu.gdb.i386.sse", kSseTypes);
  for (uint8_t number = 0; number < 16; ++number) add(fmt::format("xmm{}", number), 128, "vec128", Kind::kXmm, number);
  add("mxcsr", 32, "i386_mxcsr", Kind::kMxcsr, 0);
}

void Registers::add_system() {
  begin("org.gnu.gdb.i386.segments", "");
  add("fs_base", 64, "int64", Kind::kBase, kFsBase);
  add("gs_base", 64, "int64", Kind::kBase, kGsBase);
  // No feature of GDB's, which shows what it does not know all the same.
  begin("org.kite.i386.system", kSystemTypes);
  add("k_gs_base", 64, "int64", Kind::kBase, kKernelGsBase);
  add("cr0", 64, "x64_cr0", Kind::kControl, kCr0);
  add("cr2", 64, "int64", Kind::kControl, kCr2);
  add("cr3", 64, "int64", Kind::kControl, kCr3);
  add("cr4", 64, "x64_cr4", Kind::kControl, kCr4);
  add("cr8", 64, "int64", Kind::kControl, kCr8);
  add("efer", 64, "x64_efer", Kind::kControl, kEfer);
}

void Registers::add_avx() {
  begin("org.gnu.gdb.i386.avx", "");
  for (uint8_t number = 0; number < 16; ++number)
    add(fmt::format("ymm{}h", number), 128, "uint128", Kind::kYmmHigh, number);
}

size_t Registers::bytes() const {
  size_t total = 0;
  for (const Row& row : rows_) total += row.bits / 8u;
  return total;
}

void Registers::read(const ArchState& state, size_t number, std::span<uint8_t> to) const {
  const Row& row = rows_[number];
  const auto put = [&](uint64_t value) { store_le(to.data(), static_cast<unsigned>(to.size()), value); };
  switch (row.kind) {
    case Kind::kGpr: return put(state.gpr[row.index]);
    case Kind::kRip: return put(state.rip);
    case Kind::kFlags: return put(state.rflags);
    case Kind::kSelector: return put(state.seg[row.index].selector);
    case Kind::kX87: return put(read_x87(state.fx, row.index));
    case Kind::kBase: return put(base_of(state, row.index));
    case Kind::kControl: return put(control_of(state, row.index));
    case Kind::kMxcsr: return put(load_le(image_of(state, false, kFxMxcsr), 4));
    case Kind::kSt: std::memcpy(to.data(), image_of(state, false, kFxSt0 + row.index * 16u), to.size()); return;
    case Kind::kXmm: std::memcpy(to.data(), image_of(state, false, x86::kFxXmm0 + row.index * 16u), to.size()); return;
    case Kind::kYmmHigh: std::memcpy(to.data(), image_of(state, true, row.index * 16u), to.size()); return;
  }
}

bool Registers::write(ArchState& state, size_t number, std::span<const uint8_t> from) const {
  const Row& row = rows_[number];
  const uint64_t value = from.size() <= 8 ? load_le(from.data(), static_cast<unsigned>(from.size())) : 0;
  switch (row.kind) {
    case Kind::kGpr: state.gpr[row.index] = value; return true;
    case Kind::kRip: state.rip = value; return true;
    case Kind::kFlags: {
      constexpr uint64_t kKnown = x86::flag::kArithmetic | x86::flag::kTf | x86::flag::kIf | x86::flag::kDf |
                                  x86::flag::kIopl | x86::flag::kNt | x86::flag::kRf | x86::flag::kVm | x86::flag::kAc |
                                  x86::flag::kVif | x86::flag::kVip | x86::flag::kId;
      state.rflags = (value & kKnown) | x86::flag::kFixed1;
      return true;
    }
    case Kind::kSelector: return write_selector(state, row.index, value);
    case Kind::kX87: return write_x87(state.fx, row.index, static_cast<uint32_t>(value));
    case Kind::kBase: base_of(state, row.index) = value; return true;
    case Kind::kControl: control_of(state, row.index) = value; return true;
    case Kind::kMxcsr: {
      constexpr uint64_t kKnown = 0xffff;  // [SDM 1 10.2.3]
      if (value > kKnown) return false;
      store_le(image_of(state, false, kFxMxcsr), 4, value);
      return true;
    }
    case Kind::kSt: std::memcpy(image_of(state, false, kFxSt0 + row.index * 16u), from.data(), from.size()); break;
    case Kind::kXmm:
      std::memcpy(image_of(state, false, x86::kFxXmm0 + row.index * 16u), from.data(), from.size());
      break;
    case Kind::kYmmHigh: std::memcpy(image_of(state, true, row.index * 16u), from.data(), from.size()); break;
  }
  return true;
}

std::string Registers::description() const {
  std::string text =
      "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n"
      "<architecture>i386:x86-64</architecture>\n";
  for (size_t i = 0; i < features_.size(); ++i) {
    const size_t end = i + 1 < features_.size() ? features_[i + 1].first : count();
    text += fmt::format("<feature name=\"{}\">\n{}", features_[i].name, features_[i].types);
    for (size_t number = features_[i].first; number < end; ++number) {
      const Row& row = rows_[number];
      const std::string_view group = row.kind == Kind::kX87 ? " group=\"float\"" : "";
      text += fmt::format("  <reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"{}/>\n", row.name, row.bits,
                          row.type, number, group);
    }
    text += "</feature>\n";
  }
  return text + "</target>\n";
}

}  // namespace kite::gdb
