// The registers of a vCPU as GDB numbers, names and lays them out, and the description of them that it fetches.
// ["Debugging with GDB", appendix G, "i386 Features"]
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "x86/arch_state.h"
#include "x86/cpuid.h"

namespace kite::gdb {

class Registers {
 public:
  explicit Registers(const x86::CpuSpec& cpu);

  [[nodiscard]] size_t count() const { return rows_.size(); }
  [[nodiscard]] size_t bytes_of(size_t number) const { return rows_[number].bits / 8u; }
  [[nodiscard]] size_t bytes() const;  // of all
  [[nodiscard]] std::string_view name_of(size_t number) const { return rows_[number].name; }

  // `to` and `from` have bytes_of(number) bytes, lowest first.
  void read(const x86::ArchState& state, size_t number, std::span<uint8_t> to) const;
  // False: it cannot have this value, and nothing has changed. The state as a whole is not judged.
  bool write(x86::ArchState& state, size_t number, std::span<const uint8_t> from) const;

  // The document target.xml.
  [[nodiscard]] std::string description() const;

 private:
  enum class Kind : uint8_t { kGpr, kRip, kFlags, kSelector, kSt, kX87, kXmm, kMxcsr, kBase, kControl, kYmmHigh };
  struct Row {
    std::string name;
    uint16_t bits;
    std::string_view type;
    Kind kind;
    uint8_t index;
  };
  struct Feature {
    std::string_view name;
    std::string_view types;  // that its registers have
    size_t first;            // of rows_
  };
  void add(std::string name, uint16_t bits, std::string_view type, Kind kind, uint8_t index);
  void begin(std::string_view name, std::string_view types);
  void add_core();
  void add_sse();
  void add_system();
  void add_avx();

  std::vector<Row> rows_;
  std::vector<Feature> features_;
};

}  // namespace kite::gdb
