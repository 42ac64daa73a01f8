// TestMachine: the smallest machine that a Cpu can run in, for unit tests: RAM at 0, ports and MMIO that record what
// happens to them, a scripted local APIC, a manual clock, and ready-made real, 16-, 32- and 64-bit environments.
//
//   TestMachine m(TestMachine::Mode::k64);
//   m.run({0x48, 0xff, 0xc0});                 // inc rax; a HLT is put behind the code
//   EXPECT_EQ(m.gpr(x86::kRax), 1u);
//   EXPECT_EQ(m.vector(), std::nullopt);       // no exception
//
// In the protected modes every IDT vector leads to its own HLT, so run() ends after an exception as well; vector(),
// error_code() and faulting_rip() then say what happened. The layout below is fixed, so tests may edit tables.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "cpu/cpu.h"
#include "memory/address_space.h"
#include "memory/ram_block.h"

namespace kite::cpu {

// Hands out the vectors that a test queues, highest first out of `pending`.
class TestApic final : public LocalApic {
 public:
  std::deque<uint8_t> pending;
  uint64_t apic_base = 0xfee00900;
  uint8_t task_priority = 0;
  uint64_t deadline = 0;
  std::vector<std::pair<uint32_t, uint32_t>> mmio_writes;

  [[nodiscard]] bool has_interrupt() const override { return !pending.empty(); }
  std::optional<uint8_t> acknowledge() override {
    if (pending.empty()) return std::nullopt;
    const uint8_t vector = pending.front();
    pending.pop_front();
    return vector;
  }
  [[nodiscard]] uint64_t base() const override { return apic_base; }
  bool set_base(uint64_t value) override {
    apic_base = value;
    return true;
  }
  uint32_t mmio_read(uint32_t offset) override { return 0xa0000000 | offset; }
  void mmio_write(uint32_t offset, uint32_t value) override { mmio_writes.emplace_back(offset, value); }
  bool msr_read(uint32_t, uint64_t&) override { return false; }
  bool msr_write(uint32_t, uint64_t) override { return false; }
  [[nodiscard]] uint8_t cr8() const override { return task_priority; }
  void set_cr8(uint8_t value) override { task_priority = value; }
  [[nodiscard]] uint64_t tsc_deadline() const override { return deadline; }
  void set_tsc_deadline(uint64_t value) override { deadline = value; }
  void reset(bool) override { pending.clear(); }
};

class TestMachine : public CpuIo {
 public:
  enum class Mode : uint8_t {
    kReal,     // 16-bit real mode, segments at 0
    k16,       // protected, 16-bit code and stack segments with base 0, paging off
    k32,       // protected, flat 32-bit, paging off
    k32Paged,  // the same with 2-level paging: identity, 4 KiB pages in the first 4 MiB, 4 MiB pages above
    k64,       // long mode, 4-level paging: identity over 4 GiB, 4 KiB pages in the first 2 MiB, 2 MiB pages above
    kCompat,   // long mode, 32-bit code segment
  };

  static constexpr uint64_t kRamBytes = 16 << 20;
  static constexpr Gpa kPml4 = 0x1000;  // long mode: PML4, PDPT, four PDs, the PT of the first 2 MiB
  static constexpr Gpa kPdpt = 0x2000;
  static constexpr Gpa kPd = 0x3000;
  static constexpr Gpa kPt = 0x7000;
  static constexpr Gpa kPd32 = 0x3000;  // 32-bit paging: page directory, PT of the first 4 MiB
  static constexpr Gpa kPt32 = 0x4000;
  static constexpr Gpa kGdt = 0x8000;
  static constexpr Gpa kIdt = 0x9000;
  static constexpr Gpa kTss = 0xa000;
  static constexpr Gpa kHandlers = 0xb000;    // HLT of vector n at kHandlers + 16 n
  static constexpr Gpa kRing0Stack = 0xe000;  // the TSS's RSP0
  static constexpr Gpa kCode = 0x10000;
  static constexpr Gpa kStackTop = 0x20000;
  static constexpr Gpa kData = 0x30000;
  static constexpr Gpa kNothing = 0xc0000000;  // no memory: MMIO

  // GDT selectors. Code and data are flat; add 3 for the user ones.
  static constexpr uint16_t kCode32 = 0x08, kData32 = 0x10, kCode64 = 0x18, kUserCode32 = 0x20, kUserData = 0x28,
                            kUserCode64 = 0x30, kTssSelector = 0x38, kCode16 = 0x48, kData16 = 0x50;

  explicit TestMachine(Mode mode = Mode::k64, const x86::CpuSpec& spec = everything())
      : mode_(mode), spec_(spec), memory("test", uint64_t{1} << 52) {
    auto block = RamBlock::create("ram", kRamBytes);
    if (!block) throw std::runtime_error(block.error().message);
    ram = *block;
    memory.root().add(0, Region::ram("ram", ram));
    memory.commit();
    owned_cpu_ = make_cpu(0);
    build_tables();
    cpu().set_state(initial_state());
  }

  // Every feature flag there is: tests of what a missing flag does pass their own.
  static const x86::CpuSpec& everything() {
    static const x86::CpuSpec spec = [] {
      x86::CpuSpec all;
      all.model_name = "test";
      all.vendor = "GenuineIntel";
      all.model_id = "test";
      all.family = 6;
      all.level = 0xd;
      all.xlevel = 0x80000008;
      all.features.fill(0xffffffff);
      return all;
    }();
    return spec;
  }

  // --- running ---
  // Puts `code` and a HLT at kCode (or at `at`), sets rip there and runs until HLT, shutdown or a kick.
  Exit run(std::span<const uint8_t> code, Gpa at = kCode) {
    load(at, code);
    poke<uint8_t>(at + code.size(), 0xf4);
    cpu().state.rip = at - cpu().seg(x86::Seg::kCs).base;
    return resume();
  }
  Exit run(std::initializer_list<uint8_t> code, Gpa at = kCode) {
    return run(std::span(code.begin(), code.size()), at);
  }
  Exit resume() {
    cpu().arch.activity = x86::Activity::kActive;
    return cpu().run(*this, requests, sipi_vector);
  }
  // Sets rip and executes `count` instructions with step(), without adding a HLT.
  Exit step(std::span<const uint8_t> code, unsigned count = 1, Gpa at = kCode) {
    load(at, code);
    cpu().state.rip = at - cpu().seg(x86::Seg::kCs).base;
    Exit exit = Exit::kStepped;
    while (count-- != 0 && exit == Exit::kStepped) exit = cpu().step(*this);
    return exit;
  }
  Exit step(std::initializer_list<uint8_t> code, unsigned count = 1, Gpa at = kCode) {
    return step(std::span(code.begin(), code.size()), count, at);
  }

  // --- looking ---
  Cpu& cpu() { return *owned_cpu_; }
  // A further CPU over the same memory, in the same state as the first started in.
  std::unique_ptr<Cpu> make_second_cpu() {
    auto second = make_cpu(1);
    second->set_state(initial_state());
    return second;
  }
  uint64_t& gpr(unsigned number) { return cpu().state.gpr[number]; }
  template <class T>
  T peek(Gpa address) const {
    return load_le_as<T>(ram->host() + address);
  }
  template <class T>
  void poke(Gpa address, T value) {
    std::memcpy(ram->host() + address, &value, sizeof value);
    ram->note_write(address, sizeof value);
  }
  void load(Gpa address, std::span<const uint8_t> bytes) {
    if (bytes.empty()) return;
    std::memcpy(ram->host() + address, bytes.data(), bytes.size());
    ram->note_write(address, bytes.size());
  }
  // The exception or interrupt whose handler the CPU sits in after run(): nothing when it halted elsewhere. Not in
  // kReal.
  [[nodiscard]] std::optional<uint8_t> vector() {
    const uint64_t place = cpu().state.rip - kHandlers;
    if (mode_ == Mode::kReal || place >= 0x1000 || place % 16 > 1) return std::nullopt;
    return static_cast<uint8_t>(place / 16);
  }
  // Of the handler's stack frame. 64-bit: 8-byte slots; 32-bit: 4-byte; 16-bit gates are not used.
  [[nodiscard]] uint64_t frame(unsigned slot) {
    const unsigned width = long_mode() ? 8 : 4;
    const Gpa at = cpu().state.gpr[x86::kRsp] + uint64_t{slot} * width;
    return width == 8 ? peek<uint64_t>(at) : peek<uint32_t>(at);
  }
  [[nodiscard]] bool vector_has_error() {
    const uint8_t v = vector().value_or(0);
    return v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21;
  }
  [[nodiscard]] uint64_t error_code() { return frame(0); }
  [[nodiscard]] uint64_t faulting_rip() { return frame(vector_has_error() ? 1 : 0); }
  [[nodiscard]] uint64_t pushed_flags() { return frame(vector_has_error() ? 3 : 2); }
  [[nodiscard]] uint64_t pushed_stack_pointer() { return frame(vector_has_error() ? 4 : 3); }

  // --- changing the environment ---
  // Long mode and 32-bit paging: the entry of a 4 KiB page below 2 MiB (4 MiB in 32-bit paging).
  void set_pte(uint64_t linear, uint64_t entry) {
    if (mode_ == Mode::k32Paged)
      poke<uint32_t>(kPt32 + (linear >> 12) * 4, static_cast<uint32_t>(entry));
    else
      poke<uint64_t>(kPt + (linear >> 12) * 8, entry);
    cpu().flush_page(linear);
  }
  // CPL 3 with flat user segments; kCode and kStackTop are accessible to user code.
  void enter_user() {
    x86::ArchState state;
    cpu().get_state(state);
    const bool wide = mode_ == Mode::k64;
    state.seg[1] = flat_segment(static_cast<uint16_t>((wide ? kUserCode64 : kUserCode32) | 3), wide ? 0xa0fb : 0xc0fb);
    for (const size_t index : {size_t{0}, size_t{2}, size_t{3}}) state.seg[index] = flat_segment(kUserData | 3, 0xc0f3);
    cpu().set_state(state);
  }
  x86::ArchState initial_state() const {
    x86::ArchState state;
    state.reset(true, true, 0x663);
    state.rip = kCode;
    state.gpr.fill(0);
    state.gpr[x86::kRsp] = kStackTop;
    state.misc_enable |= 1u << 18;  // MONITOR
    // The x87 as FNINIT leaves it.
    state.fx.bytes[0] = 0x7f;
    state.fx.bytes[1] = 0x03;
    state.fx.bytes[4] = 0;
    if (mode_ == Mode::kReal) {
      for (auto& segment : state.seg) segment = {0, 0x93, 0xffff, 0};
      state.seg[static_cast<size_t>(x86::Seg::kCs)] = {kCode >> 4, 0x93, 0xffff, kCode};
      state.rip = 0;
      state.idtr = {0, 0x3ff};
      state.gpr[x86::kRsp] = 0xf000;
      return state;
    }
    state.cr0 = x86::cr0::kPe | x86::cr0::kEt | x86::cr0::kNe | x86::cr0::kMp | x86::cr0::kWp;
    state.cr4 = x86::cr4::kOsfxsr | x86::cr4::kOsxmmexcpt;
    state.gdtr = {kGdt, 0x57};
    state.idtr = {kIdt, 0xfff};
    state.tr = {kTssSelector, 0x8b, 0x67, kTss};
    set_segments(state);
    set_paging(state);
    return state;
  }

  // --- what the CPU did outside of its memory ---
  struct PortAccess {
    uint16_t port = 0;
    unsigned size = 0;
    uint32_t value = 0;
    bool operator==(const PortAccess&) const = default;
  };
  struct MmioAccess {
    Gpa address = 0;
    unsigned size = 0;
    uint64_t value = 0;
    bool operator==(const MmioAccess&) const = default;
  };
  std::vector<PortAccess> port_writes;
  std::vector<PortAccess> port_reads;
  std::vector<MmioAccess> mmio_writes;
  std::vector<MmioAccess> mmio_reads;
  std::deque<uint32_t> port_values;  // answers of the next port reads; then all ones
  std::deque<uint8_t> bulk;          // what repeated INS finds, and repeated OUTS adds to,
  size_t bulk_most = 0;              // as many bytes at once; none: one by one
  uint64_t mmio_value = 0x1122334455667788;
  std::function<void(uint16_t)> on_port_write;  // called after recording
  unsigned exclusive_runs = 0;
  unsigned fpu_errors = 0;

  uint32_t pio_read(uint16_t port, unsigned size) override {
    uint32_t value = 0xffffffff;
    if (!port_values.empty()) {
      value = port_values.front();
      port_values.pop_front();
    }
    port_reads.push_back({port, size, value});
    return value;
  }
  void pio_write(uint16_t port, unsigned size, uint32_t value) override {
    port_writes.push_back({port, size, value});
    if (on_port_write) on_port_write(port);
  }
  // A device that gives and takes `bulk_most` bytes at once.
  size_t pio_read_many(uint16_t, unsigned, std::span<uint8_t> to) override {
    const size_t bytes = std::min({to.size(), bulk_most, bulk.size()});
    std::copy_n(bulk.begin(), bytes, to.begin());
    bulk.erase(bulk.begin(), bulk.begin() + static_cast<ptrdiff_t>(bytes));
    return bytes;
  }
  size_t pio_write_many(uint16_t, unsigned, std::span<const uint8_t> from) override {
    const auto part = from.first(std::min(from.size(), bulk_most));
    bulk.insert(bulk.end(), part.begin(), part.end());
    return part.size();
  }
  uint64_t mmio_read(Gpa address, unsigned size) override {
    mmio_reads.push_back({address, size, mmio_value});
    return size == 8 ? mmio_value : mmio_value & ((uint64_t{1} << (8 * size)) - 1);
  }
  void mmio_write(Gpa address, unsigned size, uint64_t value) override {
    mmio_writes.push_back({address, size, value});
  }
  void exclusive(const std::function<void()>& work) override {
    ++exclusive_runs;
    work();
  }
  void fpu_error() override { ++fpu_errors; }

 private:
  Mode mode_;
  x86::CpuSpec spec_;

 public:
  AddressSpace memory;
  std::shared_ptr<RamBlock> ram;
  ManualClock clock;
  TestApic apic;
  std::atomic<uint32_t> requests{0};
  std::atomic<uint8_t> sipi_vector{0};

 private:
  template <class T>
  static T load_le_as(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  [[nodiscard]] bool long_mode() const { return mode_ == Mode::k64 || mode_ == Mode::kCompat; }

  std::unique_ptr<Cpu> make_cpu(uint32_t index) {
    VcpuConfig config;
    config.index = index;
    config.apic_id = index;
    config.cpu = &spec_;
    config.clock = &clock;
    config.apic = &apic;
    return std::make_unique<Cpu>(config, memory);
  }

  static x86::SegmentRegister flat_segment(uint16_t selector, uint32_t attributes) {
    return {selector, attributes, 0xffffffff, 0};
  }
  void set_segments(x86::ArchState& state) const {
    const bool small = mode_ == Mode::k16;
    for (auto& segment : state.seg) segment = flat_segment(kData32, 0xc093);
    if (small)
      for (auto& segment : state.seg) segment = {kData16, 0x93, 0xffff, 0};
    auto& code = state.seg[static_cast<size_t>(x86::Seg::kCs)];
    code = flat_segment(kCode32, 0xc09b);
    if (mode_ == Mode::k64) code = flat_segment(kCode64, 0xa09b);
    if (small) {
      code = {kCode16, 0x9b, 0xffff, 0};
      code.base = kCode;  // so that code may lie at kCode
      state.rip = 0;
      state.gpr[x86::kRsp] = 0xf000;
    }
  }
  void set_paging(x86::ArchState& state) const {
    if (mode_ == Mode::k32Paged) {
      state.cr3 = kPd32;
      state.cr4 |= x86::cr4::kPse;
      state.cr0 |= x86::cr0::kPg;
    } else if (long_mode()) {
      state.cr3 = kPml4;
      state.cr4 |= x86::cr4::kPae;
      state.efer = x86::efer::kLme | x86::efer::kLma | x86::efer::kNxe | x86::efer::kSce;
      state.cr0 |= x86::cr0::kPg;
    }
  }

  void build_tables() {
    if (mode_ == Mode::kReal) return;
    build_gdt();
    build_idt();
    poke<uint16_t>(kTss + 102, 0x68);  // no I/O bitmap
    if (long_mode()) {
      poke<uint64_t>(kTss + 4, kRing0Stack);
      build_long_paging();
    } else {
      poke<uint32_t>(kTss + 4, kRing0Stack);
      poke<uint16_t>(kTss + 8, kData32);
      if (mode_ == Mode::k32Paged) build_32_paging();
    }
  }
  void build_gdt() {
    static constexpr std::array<uint64_t, 11> kDescriptors = {
        0,
        0x00cf9b000000ffff,                          // 08 code32
        0x00cf93000000ffff,                          // 10 data32
        0x00af9b000000ffff,                          // 18 code64
        0x00cffb000000ffff,                          // 20 user code32
        0x00cff3000000ffff,                          // 28 user data
        0x00affb000000ffff,                          // 30 user code64
        0x00008b0000000067 | (kTss & 0xffff) << 16,  // 38 TSS (two slots in long mode)
        0,
        0x00009b010000ffff,  // 48 code16 with base kCode
        0x000093000000ffff,  // 50 data16
    };
    for (size_t i = 0; i < kDescriptors.size(); ++i) poke<uint64_t>(kGdt + i * 8, kDescriptors[i]);
  }
  void build_idt() {
    const uint64_t selector = long_mode() ? kCode64 : kCode32;
    const uint64_t slot = long_mode() ? 16 : 8;
    for (uint64_t v = 0; v < 256; ++v) {
      const Gpa handler = kHandlers + v * 16;
      poke<uint64_t>(kIdt + v * slot, (handler & 0xffff) | selector << 16 | uint64_t{0x8e00} << 32);
      if (long_mode()) poke<uint64_t>(kIdt + v * slot + 8, 0);
      poke<uint8_t>(handler, 0xf4);
    }
  }
  void build_long_paging() {
    poke<uint64_t>(kPml4, kPdpt | 7);
    for (uint64_t gib = 0; gib < 4; ++gib) {
      poke<uint64_t>(kPdpt + gib * 8, (kPd + gib * 0x1000) | 7);
      for (uint64_t i = 0; i < 512; ++i) poke<uint64_t>(kPd + gib * 0x1000 + i * 8, (gib << 30 | i << 21) | 0x87);
    }
    poke<uint64_t>(kPd, kPt | 7);
    for (uint64_t i = 0; i < 512; ++i) poke<uint64_t>(kPt + i * 8, i << 12 | 7);
  }
  void build_32_paging() {
    for (uint64_t i = 0; i < 1024; ++i) poke<uint32_t>(kPd32 + i * 4, static_cast<uint32_t>(i << 22 | 0x87));
    poke<uint32_t>(kPd32, kPt32 | 7);
    for (uint64_t i = 0; i < 1024; ++i) poke<uint32_t>(kPt32 + i * 4, static_cast<uint32_t>(i << 12 | 7));
  }

  std::unique_ptr<Cpu> owned_cpu_;
};

}  // namespace kite::cpu
