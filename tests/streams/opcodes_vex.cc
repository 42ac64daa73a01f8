// Instructions with VEX, and the XSAVE family.
#include <vector>

#include "streams/opcodes.h"
#include "streams/opcodes_host.h"

namespace kite::streams {
namespace {

using enum Form;
using namespace rule;
using namespace vex;
using F = Feature;

constexpr uint16_t kVL = kVex | kV | kScale;  // the commonest: three operands, memory as wide as the registers
constexpr uint16_t kSL = kVex | kScale;       // the same with two
constexpr uint16_t kVS = kVex | kV;           // scalar
constexpr uint16_t kS = kVex;

constexpr Opcode row(uint8_t map, uint8_t prefix, uint8_t first, uint8_t last, uint8_t bytes, uint16_t bits,
                     Feature feature = F::kAvx, Imm imm = Imm::kNone, Form form = kAny, uint32_t rules = 0) {
  return {map, first, last, prefix, form, -1, Width::kFixed, imm, bytes, rules, feature, bits};
}
constexpr Opcode imm(uint8_t map, uint8_t prefix, uint8_t first, uint8_t last, uint8_t bytes, uint16_t bits,
                     Feature feature = F::kAvx, Form form = kAny) {
  return row(map, prefix, first, last, bytes, bits, feature, Imm::kByte, form);
}
constexpr Opcode shift(uint8_t opcode, int8_t digit) {
  return {1, opcode, opcode, 0x66, kRegister, digit, Width::kFixed, Imm::kByte, 0, 0, F::kAvx2, kVex | kV};
}
constexpr Opcode bmi(uint8_t prefix, uint8_t opcode, Feature feature, int8_t digit = -1) {
  return {2, opcode, opcode, prefix, kAny, digit, Width::kFixed, Imm::kNone, 4, 0, feature, kVex | kV | kL0 | kWy};
}

// clang-format off
constexpr Opcode kAvxRows[] = {
    // moves
    row(1, 0, 0x10, 0x11, 16, kSL), row(1, 0x66, 0x10, 0x11, 16, kSL), row(1, 0xf3, 0x10, 0x11, 4, kS, F::kAvx, Imm::kNone, kMemory), row(1, 0xf2, 0x10, 0x11, 8, kS, F::kAvx, Imm::kNone, kMemory),
    row(1, 0xf3, 0x10, 0x11, 4, kVS, F::kAvx, Imm::kNone, kRegister), row(1, 0xf2, 0x10, 0x11, 8, kVS, F::kAvx, Imm::kNone, kRegister),
    row(1, 0, 0x12, 0x12, 8, kVS | kL0), row(1, 0, 0x16, 0x16, 8, kVS | kL0), row(1, 0x66, 0x12, 0x12, 8, kVS | kL0, F::kAvx, Imm::kNone, kMemory), row(1, 0x66, 0x16, 0x16, 8, kVS | kL0, F::kAvx, Imm::kNone, kMemory),
    row(1, 0, 0x13, 0x13, 8, kS | kL0, F::kAvx, Imm::kNone, kMemory), row(1, 0x66, 0x13, 0x13, 8, kS | kL0, F::kAvx, Imm::kNone, kMemory), row(1, 0, 0x17, 0x17, 8, kS | kL0, F::kAvx, Imm::kNone, kMemory), row(1, 0x66, 0x17, 0x17, 8, kS | kL0, F::kAvx, Imm::kNone, kMemory),
    row(1, 0xf3, 0x12, 0x12, 16, kSL), row(1, 0xf3, 0x16, 0x16, 16, kSL), row(1, 0xf2, 0x12, 0x12, 8, kS | kL0), row(1, 0xf2, 0x12, 0x12, 32, kS | kL1),
    row(1, 0, 0x28, 0x29, 16, kSL, F::kAvx, Imm::kNone, kAny, kAligned), row(1, 0x66, 0x28, 0x29, 16, kSL, F::kAvx, Imm::kNone, kAny, kAligned), row(1, 0, 0x2b, 0x2b, 16, kSL, F::kAvx, Imm::kNone, kMemory, kAligned), row(1, 0x66, 0x2b, 0x2b, 16, kSL, F::kAvx, Imm::kNone, kMemory, kAligned),
    row(1, 0x66, 0x6e, 0x6e, 4, kS | kL0 | kWy), row(1, 0x66, 0x7e, 0x7e, 4, kS | kL0 | kWy), row(1, 0xf3, 0x7e, 0x7e, 8, kS | kL0), row(1, 0x66, 0xd6, 0xd6, 8, kS | kL0),
    row(1, 0x66, 0x6f, 0x6f, 16, kSL, F::kAvx, Imm::kNone, kAny, kAligned), row(1, 0xf3, 0x6f, 0x6f, 16, kSL), row(1, 0x66, 0x7f, 0x7f, 16, kSL, F::kAvx, Imm::kNone, kAny, kAligned), row(1, 0xf3, 0x7f, 0x7f, 16, kSL),
    row(1, 0x66, 0xe7, 0xe7, 16, kSL, F::kAvx, Imm::kNone, kMemory, kAligned), row(1, 0xf2, 0xf0, 0xf0, 16, kSL, F::kAvx, Imm::kNone, kMemory), row(1, 0x66, 0xf7, 0xf7, 0, kS | kL0, F::kAvx, Imm::kNone, kRegister, kPointer),
    row(1, 0, 0x50, 0x50, 0, kS, F::kAvx, Imm::kNone, kRegister), row(1, 0x66, 0x50, 0x50, 0, kS, F::kAvx, Imm::kNone, kRegister), row(1, 0x66, 0xd7, 0xd7, 0, kS, F::kAvx2, Imm::kNone, kRegister),
    {1, 0x77, 0x77, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, 0, F::kAvx, kVex},
    // floating point
    row(1, 0, 0x14, 0x15, 16, kVL), row(1, 0x66, 0x14, 0x15, 16, kVL), row(1, 0xf3, 0x2a, 0x2a, 4, kVS | kWy), row(1, 0xf2, 0x2a, 0x2a, 4, kVS | kWy), row(1, 0xf3, 0x2c, 0x2d, 4, kS | kW0), row(1, 0xf3, 0x2c, 0x2d, 4, kS | kW1), row(1, 0xf2, 0x2c, 0x2d, 8, kS),
    row(1, 0, 0x2e, 0x2f, 4, kS), row(1, 0x66, 0x2e, 0x2f, 8, kS), row(1, 0, 0x51, 0x53, 16, kSL), row(1, 0x66, 0x51, 0x51, 16, kSL), row(1, 0xf3, 0x51, 0x53, 4, kVS), row(1, 0xf2, 0x51, 0x51, 8, kVS),
    row(1, 0, 0x54, 0x57, 16, kVL), row(1, 0x66, 0x54, 0x57, 16, kVL), row(1, 0, 0x58, 0x59, 16, kVL), row(1, 0x66, 0x58, 0x59, 16, kVL), row(1, 0xf3, 0x58, 0x5a, 4, kVS), row(1, 0xf2, 0x58, 0x5a, 8, kVS),
    row(1, 0, 0x5c, 0x5f, 16, kVL), row(1, 0x66, 0x5c, 0x5f, 16, kVL), row(1, 0xf3, 0x5c, 0x5f, 4, kVS), row(1, 0xf2, 0x5c, 0x5f, 8, kVS), row(1, 0, 0x5a, 0x5a, 8, kSL), row(1, 0x66, 0x5a, 0x5a, 16, kSL),
    row(1, 0, 0x5b, 0x5b, 16, kSL), row(1, 0x66, 0x5b, 0x5b, 16, kSL), row(1, 0xf3, 0x5b, 0x5b, 16, kSL), row(1, 0xf3, 0xe6, 0xe6, 8, kSL), row(1, 0xf2, 0xe6, 0xe6, 16, kSL), row(1, 0x66, 0xe6, 0xe6, 16, kSL),
    row(1, 0x66, 0x7c, 0x7d, 16, kVL), row(1, 0xf2, 0x7c, 0x7d, 16, kVL), row(1, 0x66, 0xd0, 0xd0, 16, kVL), row(1, 0xf2, 0xd0, 0xd0, 16, kVL),
    imm(1, 0, 0xc2, 0xc2, 16, kVL), imm(1, 0x66, 0xc2, 0xc2, 16, kVL), imm(1, 0xf3, 0xc2, 0xc2, 4, kVS), imm(1, 0xf2, 0xc2, 0xc2, 8, kVS), imm(1, 0, 0xc6, 0xc6, 16, kVL), imm(1, 0x66, 0xc6, 0xc6, 16, kVL),
    // integer
    row(1, 0x66, 0x60, 0x6d, 16, kVL, F::kAvx2), imm(1, 0x66, 0x70, 0x70, 16, kSL, F::kAvx2), imm(1, 0xf3, 0x70, 0x70, 16, kSL, F::kAvx2), imm(1, 0xf2, 0x70, 0x70, 16, kSL, F::kAvx2), row(1, 0x66, 0x74, 0x76, 16, kVL, F::kAvx2),
    imm(1, 0x66, 0xc4, 0xc4, 2, kVS | kL0), imm(1, 0x66, 0xc5, 0xc5, 0, kS | kL0, F::kAvx, kRegister), row(1, 0x66, 0xd1, 0xd3, 16, kVS, F::kAvx2), row(1, 0x66, 0xd4, 0xd5, 16, kVL, F::kAvx2), row(1, 0x66, 0xd8, 0xe0, 16, kVL, F::kAvx2),
    row(1, 0x66, 0xe1, 0xe2, 16, kVS, F::kAvx2), row(1, 0x66, 0xe3, 0xe5, 16, kVL, F::kAvx2), row(1, 0x66, 0xe8, 0xef, 16, kVL, F::kAvx2), row(1, 0x66, 0xf1, 0xf3, 16, kVS, F::kAvx2), row(1, 0x66, 0xf4, 0xf6, 16, kVL, F::kAvx2), row(1, 0x66, 0xf8, 0xfe, 16, kVL, F::kAvx2),
    shift(0x71, 2), shift(0x71, 4), shift(0x71, 6), shift(0x72, 2), shift(0x72, 4), shift(0x72, 6), shift(0x73, 2), shift(0x73, 3), shift(0x73, 6), shift(0x73, 7),
    // 0F38
    row(2, 0x66, 0x00, 0x0b, 16, kVL, F::kAvx2), row(2, 0x66, 0x0c, 0x0d, 16, kVL | kW0), row(2, 0x66, 0x0e, 0x0f, 16, kSL | kW0), row(2, 0x66, 0x13, 0x13, 8, kSL | kW0, F::kF16c), row(2, 0x66, 0x16, 0x16, 16, kVL | kL1 | kW0, F::kAvx2), row(2, 0x66, 0x17, 0x17, 16, kSL),
    row(2, 0x66, 0x18, 0x18, 4, kS | kW0, F::kAvx2), row(2, 0x66, 0x19, 0x19, 8, kS | kW0 | kL1, F::kAvx2), row(2, 0x66, 0x1a, 0x1a, 16, kS | kW0 | kL1, F::kAvx, Imm::kNone, kMemory), row(2, 0x66, 0x1c, 0x1e, 16, kSL, F::kAvx2),
    row(2, 0x66, 0x20, 0x20, 8, kSL, F::kAvx2), row(2, 0x66, 0x21, 0x21, 4, kSL, F::kAvx2), row(2, 0x66, 0x22, 0x22, 2, kSL, F::kAvx2), row(2, 0x66, 0x23, 0x23, 8, kSL, F::kAvx2), row(2, 0x66, 0x24, 0x24, 4, kSL, F::kAvx2), row(2, 0x66, 0x25, 0x25, 8, kSL, F::kAvx2),
    row(2, 0x66, 0x30, 0x30, 8, kSL, F::kAvx2), row(2, 0x66, 0x31, 0x31, 4, kSL, F::kAvx2), row(2, 0x66, 0x32, 0x32, 2, kSL, F::kAvx2), row(2, 0x66, 0x33, 0x33, 8, kSL, F::kAvx2), row(2, 0x66, 0x34, 0x34, 4, kSL, F::kAvx2), row(2, 0x66, 0x35, 0x35, 8, kSL, F::kAvx2),
    row(2, 0x66, 0x28, 0x29, 16, kVL, F::kAvx2), row(2, 0x66, 0x2a, 0x2a, 16, kSL, F::kAvx2, Imm::kNone, kMemory, kAligned), row(2, 0x66, 0x2b, 0x2b, 16, kVL, F::kAvx2), row(2, 0x66, 0x36, 0x36, 16, kVL | kL1 | kW0, F::kAvx2), row(2, 0x66, 0x37, 0x40, 16, kVL, F::kAvx2), row(2, 0x66, 0x41, 0x41, 16, kS | kL0),
    row(2, 0x66, 0x45, 0x45, 16, kVL, F::kAvx2), row(2, 0x66, 0x46, 0x46, 16, kVL | kW0, F::kAvx2), row(2, 0x66, 0x47, 0x47, 16, kVL, F::kAvx2), row(2, 0x66, 0x50, 0x53, 16, kVL | kW0, F::kAvxVnni),
    row(2, 0x66, 0x58, 0x58, 4, kS | kW0, F::kAvx2), row(2, 0x66, 0x59, 0x59, 8, kS | kW0, F::kAvx2), row(2, 0x66, 0x5a, 0x5a, 16, kS | kW0 | kL1, F::kAvx2, Imm::kNone, kMemory), row(2, 0x66, 0x78, 0x78, 1, kS | kW0, F::kAvx2), row(2, 0x66, 0x79, 0x79, 2, kS | kW0, F::kAvx2),
    row(2, 0x66, 0x2c, 0x2f, 16, kVL | kW0 | kMasked, F::kAvx, Imm::kNone, kMemory), row(2, 0x66, 0x2c, 0x2f, 16, kVL | kW0 | kMasked, F::kAvx, Imm::kNone, kMemory), row(2, 0x66, 0x8c, 0x8c, 16, kVL | kMasked, F::kAvx2, Imm::kNone, kMemory), row(2, 0x66, 0x8e, 0x8e, 16, kVL | kMasked, F::kAvx2, Imm::kNone, kMemory),
    row(2, 0x66, 0x90, 0x90, 4, kVex | kV | kIndex, F::kAvx2, Imm::kNone, kMemory), row(2, 0x66, 0x91, 0x91, 4, kVex | kV | kIndexWide, F::kAvx2, Imm::kNone, kMemory), row(2, 0x66, 0x92, 0x92, 4, kVex | kV | kIndex, F::kAvx2, Imm::kNone, kMemory), row(2, 0x66, 0x93, 0x93, 4, kVex | kV | kIndexWide, F::kAvx2, Imm::kNone, kMemory),
    row(2, 0x66, 0x90, 0x90, 4, kVex | kV | kIndex, F::kAvx2, Imm::kNone, kMemory), row(2, 0x66, 0x91, 0x91, 4, kVex | kV | kIndexWide, F::kAvx2, Imm::kNone, kMemory),
    row(2, 0x66, 0x96, 0x98, 16, kVL, F::kFma), row(2, 0x66, 0x99, 0x99, 8, kVS, F::kFma), row(2, 0x66, 0x9a, 0x9f, 16, kVL, F::kFma), row(2, 0x66, 0xa6, 0xaf, 16, kVL, F::kFma), row(2, 0x66, 0xb6, 0xbf, 16, kVL, F::kFma),
    row(2, 0x66, 0xcf, 0xcf, 16, kVL | kW0, F::kGfni), row(2, 0x66, 0xdb, 0xdb, 16, kS | kL0, F::kAes), row(2, 0x66, 0xdc, 0xdf, 16, kVL, F::kVaes),
    bmi(0, 0xf2, F::kBmi1), bmi(0, 0xf3, F::kBmi1, 1), bmi(0, 0xf3, F::kBmi1, 2), bmi(0, 0xf3, F::kBmi1, 3), bmi(0, 0xf5, F::kBmi2), bmi(0xf3, 0xf5, F::kBmi2), bmi(0xf2, 0xf5, F::kBmi2), bmi(0xf2, 0xf6, F::kBmi2), bmi(0, 0xf7, F::kBmi1), bmi(0x66, 0xf7, F::kBmi2), bmi(0xf3, 0xf7, F::kBmi2), bmi(0xf2, 0xf7, F::kBmi2),
    // 0F3A
    imm(3, 0x66, 0x00, 0x01, 32, kS | kL1 | kW1, F::kAvx2), imm(3, 0x66, 0x02, 0x02, 16, kVL | kW0, F::kAvx2), imm(3, 0x66, 0x04, 0x05, 16, kSL | kW0), imm(3, 0x66, 0x06, 0x06, 32, kVS | kL1 | kW0), imm(3, 0x66, 0x08, 0x09, 16, kSL), imm(3, 0x66, 0x0a, 0x0a, 4, kVS), imm(3, 0x66, 0x0b, 0x0b, 8, kVS),
    imm(3, 0x66, 0x0c, 0x0d, 16, kVL), imm(3, 0x66, 0x0e, 0x0f, 16, kVL, F::kAvx2), imm(3, 0x66, 0x14, 0x14, 1, kS | kL0), imm(3, 0x66, 0x15, 0x15, 2, kS | kL0), imm(3, 0x66, 0x16, 0x16, 4, kS | kL0 | kWy), imm(3, 0x66, 0x17, 0x17, 4, kS | kL0), imm(3, 0x66, 0x18, 0x18, 16, kVS | kL1 | kW0), imm(3, 0x66, 0x19, 0x19, 16, kS | kL1 | kW0), imm(3, 0x66, 0x1d, 0x1d, 8, kSL | kW0, F::kF16c),
    imm(3, 0x66, 0x20, 0x20, 1, kVS | kL0), imm(3, 0x66, 0x21, 0x21, 4, kVS | kL0), imm(3, 0x66, 0x22, 0x22, 4, kVS | kL0 | kWy), imm(3, 0x66, 0x38, 0x38, 16, kVS | kL1 | kW0, F::kAvx2), imm(3, 0x66, 0x39, 0x39, 16, kS | kL1 | kW0, F::kAvx2), imm(3, 0x66, 0x40, 0x40, 16, kVL), imm(3, 0x66, 0x41, 0x41, 16, kVS | kL0), imm(3, 0x66, 0x42, 0x42, 16, kVL, F::kAvx2), imm(3, 0x66, 0x44, 0x44, 16, kVL, F::kVpclmul), imm(3, 0x66, 0x46, 0x46, 32, kVS | kL1 | kW0, F::kAvx2),
    imm(3, 0x66, 0x4a, 0x4b, 16, kVL | kW0), imm(3, 0x66, 0x4c, 0x4c, 16, kVL | kW0, F::kAvx2), imm(3, 0x66, 0x60, 0x63, 16, kS | kL0), imm(3, 0x66, 0xce, 0xcf, 16, kVL | kW1, F::kGfni), imm(3, 0x66, 0xdf, 0xdf, 16, kS | kL0, F::kAes),
    {3, 0xf0, 0xf0, 0xf2, kAny, -1, Width::kFixed, Imm::kByte, 4, 0, F::kBmi2, kVex | kL0 | kWy},
    // MXCSR
    {1, 0xae, 0xae, 0, kMemory, 2, Width::kFixed, Imm::kNone, 4, kControlWord, F::kAvx, kVex | kL0}, {1, 0xae, 0xae, 0, kMemory, 3, Width::kFixed, Imm::kNone, 4, 0, F::kAvx, kVex | kL0},
};

constexpr Opcode kStateRows[] = {
    {1, 0xae, 0xae, 0, kMemory, 4, Width::kNo16, Imm::kNone, 0, kSaves, F::kXsave}, {1, 0xae, 0xae, 0, kMemory, 6, Width::kNo16, Imm::kNone, 0, kSaves, F::kXsaveopt},
    {1, 0xc7, 0xc7, 0, kMemory, 4, Width::kNo16, Imm::kNone, 0, kSaves, F::kXsavec}, {1, 0xae, 0xae, 0, kMemory, 5, Width::kNo16, Imm::kNone, 0, kRestores, F::kXsave}, {1, 0xae, 0xae, 0, kMemory, 5, Width::kNo16, Imm::kNone, 0, kRestores, F::kXsavec},
};
// clang-format on

}  // namespace

std::span<const Opcode> avx_opcodes() { return executable<kAvxRows>(); }
std::span<const Opcode> state_opcodes() { return executable<kStateRows>(); }

}  // namespace kite::streams
