// How the logical processors of a machine are grouped, and the APIC ids that follow [SDM 3A 10.9.1: hierarchical
// mapping of CPUID extended topology]: each level has as many bits of the id as number what it holds, so ids may leave
// gaps.
#pragma once

#include <bit>
#include <cstdint>

namespace kite::x86 {

struct CpuTopology {
  uint32_t sockets = 1;  // of the machine: packages
  uint32_t dies = 1;     // of a socket
  uint32_t cores = 1;    // of a die
  uint32_t threads = 1;  // of a core

  // Each within what is above it.
  struct Place {
    uint32_t socket = 0, die = 0, core = 0, thread = 0;
    bool operator==(const Place&) const = default;
  };

  [[nodiscard]] constexpr uint32_t in_die() const { return cores * threads; }
  [[nodiscard]] constexpr uint32_t in_socket() const { return dies * in_die(); }
  [[nodiscard]] constexpr uint32_t in_machine() const { return sockets * in_socket(); }

  // Where the bits of an APIC id begin that number cores, dies and sockets.
  [[nodiscard]] constexpr uint32_t core_shift() const { return bits(threads); }
  [[nodiscard]] constexpr uint32_t die_shift() const { return core_shift() + bits(cores); }
  [[nodiscard]] constexpr uint32_t socket_shift() const { return die_shift() + bits(dies); }

  [[nodiscard]] constexpr Place place(uint32_t index) const {
    return {.socket = index / in_socket(),
            .die = index / in_die() % dies,
            .core = index / threads % cores,
            .thread = index % threads};
  }
  [[nodiscard]] constexpr uint32_t apic_id(uint32_t index) const {
    const Place at = place(index);
    return at.socket << socket_shift() | at.die << die_shift() | at.core << core_shift() | at.thread;
  }

 private:
  static constexpr uint32_t bits(uint32_t count) { return static_cast<uint32_t>(std::bit_width(count - 1)); }
};

}  // namespace kite::x86
