// The x87 unit's control registers as GDB has them, 32 bits each, in the FXSAVE64 image. [SDM 1 8.1, 10.5.1]
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "x86/arch_state.h"

namespace kite::gdb {

inline constexpr std::array<std::string_view, 8> kX87Names{"fctrl", "fstat", "ftag",  "fiseg",
                                                           "fioff", "foseg", "fooff", "fop"};
inline constexpr size_t kFxMxcsr = 24, kFxSt0 = 32;

[[nodiscard]] uint32_t read_x87(const x86::FxState& fx, uint8_t index);
// False: it cannot have this value.
bool write_x87(x86::FxState& fx, uint8_t index, uint32_t value);

}  // namespace kite::gdb
