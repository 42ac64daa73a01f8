#include "streams/opcodes.h"

#include <span>

#include "streams/opcodes_host.h"
#include "x86/host_features.h"

namespace kite::streams {
namespace {

using enum Form;
using namespace rule;
using F = Feature;

// clang-format off
constexpr Opcode kInteger[] = {
    // ADD OR ADC SBB AND SUB XOR CMP
    {0, 0x00, 0x00, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x01, 0x01, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x08, 0x08, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x09, 0x09, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x10, 0x10, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x11, 0x11, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x18, 0x18, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x19, 0x19, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x20, 0x20, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x21, 0x21, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x28, 0x28, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x29, 0x29, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x30, 0x30, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x31, 0x31, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x38, 0x38, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x39, 0x39, 0, kAny, -1, Width::kWord},
    {0, 0x02, 0x02, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x03, 0x03, 0, kAny, -1, Width::kWord},
    {0, 0x0a, 0x0a, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x0b, 0x0b, 0, kAny, -1, Width::kWord},
    {0, 0x12, 0x12, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x13, 0x13, 0, kAny, -1, Width::kWord},
    {0, 0x1a, 0x1a, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x1b, 0x1b, 0, kAny, -1, Width::kWord},
    {0, 0x22, 0x22, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x23, 0x23, 0, kAny, -1, Width::kWord},
    {0, 0x2a, 0x2a, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x2b, 0x2b, 0, kAny, -1, Width::kWord},
    {0, 0x32, 0x32, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x33, 0x33, 0, kAny, -1, Width::kWord},
    {0, 0x3a, 0x3a, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x3b, 0x3b, 0, kAny, -1, Width::kWord},
    {0, 0x04, 0x04, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x05, 0x05, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x0c, 0x0c, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x0d, 0x0d, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x14, 0x14, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x15, 0x15, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x1c, 0x1c, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x1d, 0x1d, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x24, 0x24, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x25, 0x25, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x2c, 0x2c, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x2d, 0x2d, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x34, 0x34, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x35, 0x35, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x3c, 0x3c, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0x3d, 0x3d, 0, kPlain, -1, Width::kWord, Imm::kWide},
    {0, 0x80, 0x80, 0, kAny, -1, Width::kFixed, Imm::kByte, 1, kLock}, {0, 0x81, 0x81, 0, kAny, -1, Width::kWord, Imm::kWide, 0, kLock},
    {0, 0x83, 0x83, 0, kAny, -1, Width::kWord, Imm::kByte, 0, kLock}, {0, 0x82, 0x82, 0, kAny, -1, Width::kFixed, Imm::kByte, 1, kOnly32 | kLock},
    {0, 0x84, 0x84, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x85, 0x85, 0, kAny, -1, Width::kWord},
    {0, 0xa8, 0xa8, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0xa9, 0xa9, 0, kPlain, -1, Width::kWord, Imm::kWide},
    // INC DEC NOT NEG MUL IMUL DIV IDIV TEST
    {0, 0xfe, 0xfe, 0, kAny, 0, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0xff, 0xff, 0, kAny, 0, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0xfe, 0xfe, 0, kAny, 1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0xff, 0xff, 0, kAny, 1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x40, 0x4f, 0, kPlain, -1, Width::kWord, Imm::kNone, 0, kOnly32},
    {0, 0xf6, 0xf6, 0, kAny, 0, Width::kFixed, Imm::kByte, 1}, {0, 0xf7, 0xf7, 0, kAny, 0, Width::kWord, Imm::kWide},
    {0, 0xf6, 0xf6, 0, kAny, 1, Width::kFixed, Imm::kByte, 1, kRare}, {0, 0xf7, 0xf7, 0, kAny, 1, Width::kWord, Imm::kWide, 0, kRare},
    {0, 0xf6, 0xf6, 0, kAny, 2, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0xf7, 0xf7, 0, kAny, 2, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0xf6, 0xf6, 0, kAny, 3, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0xf7, 0xf7, 0, kAny, 3, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0xf6, 0xf6, 0, kAny, 4, Width::kFixed, Imm::kNone, 1, kCarryOnly}, {0, 0xf7, 0xf7, 0, kAny, 4, Width::kWord, Imm::kNone, 0, kCarryOnly},
    {0, 0xf6, 0xf6, 0, kAny, 5, Width::kFixed, Imm::kNone, 1, kCarryOnly}, {0, 0xf7, 0xf7, 0, kAny, 5, Width::kWord, Imm::kNone, 0, kCarryOnly},
    {0, 0xf6, 0xf6, 0, kAny, 6, Width::kFixed, Imm::kNone, 1, kDivide}, {0, 0xf7, 0xf7, 0, kAny, 6, Width::kWord, Imm::kNone, 0, kDivide},
    {0, 0xf6, 0xf6, 0, kAny, 7, Width::kFixed, Imm::kNone, 1, kDivide}, {0, 0xf7, 0xf7, 0, kAny, 7, Width::kWord, Imm::kNone, 0, kDivide},
    {0, 0x69, 0x69, 0, kAny, -1, Width::kWord, Imm::kWide, 0, kCarryOnly}, {0, 0x6b, 0x6b, 0, kAny, -1, Width::kWord, Imm::kByte, 0, kCarryOnly},
    {1, 0xaf, 0xaf, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kCarryOnly},
    // decimal
    {0, 0x27, 0x27, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kOnly32 | kAllButOverflow}, {0, 0x2f, 0x2f, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kOnly32 | kAllButOverflow},
    {0, 0x37, 0x37, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kOnly32 | kCarryOnly}, {0, 0x3f, 0x3f, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kOnly32 | kCarryOnly},
    {0, 0xd4, 0xd5, 0, kPlain, -1, Width::kFixed, Imm::kByte, 0, kOnly32}, {0, 0xd6, 0xd6, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kOnly32},
    // shifts and rotates, double shifts
    // (ROL and ROR by more than one leave OF undefined; hosts treat the immediate and the CL form differently)
    {0, 0xc0, 0xc0, 0, kAny, 0, Width::kFixed, Imm::kByte, 1, kFlagsUndefined}, {0, 0xc1, 0xc1, 0, kAny, 0, Width::kWord, Imm::kByte, 0, kFlagsUndefined},
    {0, 0xc0, 0xc0, 0, kAny, 1, Width::kFixed, Imm::kByte, 1, kFlagsUndefined}, {0, 0xc1, 0xc1, 0, kAny, 1, Width::kWord, Imm::kByte, 0, kFlagsUndefined},
    {0, 0xc0, 0xc0, 0, kAny, 2, Width::kFixed, Imm::kByte, 1}, {0, 0xc1, 0xc1, 0, kAny, 2, Width::kWord, Imm::kByte},
    {0, 0xc0, 0xc0, 0, kAny, 3, Width::kFixed, Imm::kByte, 1}, {0, 0xc1, 0xc1, 0, kAny, 3, Width::kWord, Imm::kByte},
    {0, 0xc0, 0xc0, 0, kAny, 4, Width::kFixed, Imm::kByte, 1}, {0, 0xc1, 0xc1, 0, kAny, 4, Width::kWord, Imm::kByte},
    {0, 0xc0, 0xc0, 0, kAny, 5, Width::kFixed, Imm::kByte, 1}, {0, 0xc1, 0xc1, 0, kAny, 5, Width::kWord, Imm::kByte},
    {0, 0xc0, 0xc0, 0, kAny, 6, Width::kFixed, Imm::kByte, 1}, {0, 0xc1, 0xc1, 0, kAny, 6, Width::kWord, Imm::kByte},
    {0, 0xc0, 0xc0, 0, kAny, 7, Width::kFixed, Imm::kByte, 1}, {0, 0xc1, 0xc1, 0, kAny, 7, Width::kWord, Imm::kByte},
    {0, 0xd0, 0xd0, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0xd1, 0xd1, 0, kAny, -1, Width::kWord},
    {0, 0xd2, 0xd2, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0xd3, 0xd3, 0, kAny, -1, Width::kWord},
    {0, 0xd2, 0xd2, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0xd3, 0xd3, 0, kAny, -1, Width::kWord},
    {1, 0xa4, 0xa4, 0, kAny, -1, Width::kWord, Imm::kByte}, {1, 0xa5, 0xa5, 0, kAny, -1, Width::kWord},
    {1, 0xac, 0xac, 0, kAny, -1, Width::kWord, Imm::kByte}, {1, 0xad, 0xad, 0, kAny, -1, Width::kWord},
    // bits
    {1, 0xa3, 0xa3, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kBitOffset}, {1, 0xab, 0xab, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kBitOffset | kLock},
    {1, 0xb3, 0xb3, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kBitOffset | kLock}, {1, 0xbb, 0xbb, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kBitOffset | kLock},
    {1, 0xba, 0xba, 0, kAny, 4, Width::kWord, Imm::kByte}, {1, 0xba, 0xba, 0, kAny, 5, Width::kWord, Imm::kByte, 0, kLock},
    {1, 0xba, 0xba, 0, kAny, 6, Width::kWord, Imm::kByte, 0, kLock}, {1, 0xba, 0xba, 0, kAny, 7, Width::kWord, Imm::kByte, 0, kLock},
    {1, 0xbc, 0xbd, 0, kAny, -1, Width::kWord}, {1, 0xbc, 0xbc, 0xf3, kAny, -1, Width::kWord, Imm::kNone, 0, 0, F::kBmi1},
    {1, 0xbd, 0xbd, 0xf3, kAny, -1, Width::kWord, Imm::kNone, 0, 0, F::kLzcnt}, {1, 0xb8, 0xb8, 0xf3, kAny, -1, Width::kWord, Imm::kNone, 0, 0, F::kPopcnt},
    {1, 0xc8, 0xcf, 0, kPlain, -1, Width::kNo16},
    // moves
    {0, 0x88, 0x88, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x89, 0x89, 0, kAny, -1, Width::kWord},
    {0, 0x8a, 0x8a, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {0, 0x8b, 0x8b, 0, kAny, -1, Width::kWord},
    {0, 0xb0, 0xb7, 0, kPlain, -1, Width::kFixed, Imm::kByte}, {0, 0xb8, 0xbf, 0, kPlain, -1, Width::kWord, Imm::kFull},
    {0, 0xc6, 0xc6, 0, kAny, 0, Width::kFixed, Imm::kByte, 1}, {0, 0xc7, 0xc7, 0, kAny, 0, Width::kWord, Imm::kWide},
    {0, 0xa0, 0xa0, 0, kPlain, -1, Width::kFixed, Imm::kAddress, 1}, {0, 0xa1, 0xa1, 0, kPlain, -1, Width::kWord, Imm::kAddress},
    {0, 0xa2, 0xa2, 0, kPlain, -1, Width::kFixed, Imm::kAddress, 1}, {0, 0xa3, 0xa3, 0, kPlain, -1, Width::kWord, Imm::kAddress},
    {1, 0xb6, 0xb6, 0, kAny, -1, Width::kWord, Imm::kNone, 1}, {1, 0xb7, 0xb7, 0, kAny, -1, Width::kWord, Imm::kNone, 2},
    {1, 0xbe, 0xbe, 0, kAny, -1, Width::kWord, Imm::kNone, 1}, {1, 0xbf, 0xbf, 0, kAny, -1, Width::kWord, Imm::kNone, 2},
    {0, 0x63, 0x63, 0, kAny, -1, Width::kWord, Imm::kNone, 4, kOnly64}, {0, 0x63, 0x63, 0, kAny, -1, Width::kFixed, Imm::kNone, 2, kOnly32},
    {0, 0x8d, 0x8d, 0, kMemory, -1, Width::kWord}, {1, 0x40, 0x4f, 0, kAny, -1, Width::kWord}, {1, 0x40, 0x4f, 0, kAny, -1, Width::kWord},
    {1, 0x90, 0x9f, 0, kAny, -1, Width::kFixed, Imm::kNone, 1}, {1, 0xc3, 0xc3, 0, kMemory, -1, Width::kNo16},
    {0, 0x86, 0x86, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {0, 0x87, 0x87, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {0, 0x90, 0x97, 0, kPlain, -1, Width::kWord}, {0, 0x98, 0x99, 0, kPlain, -1, Width::kWord},
    {0, 0x9e, 0x9f, 0, kPlain}, {0, 0xd7, 0xd7, 0, kPlain, -1, Width::kFixed, Imm::kNone, 1, kTable},
    {1, 0xb0, 0xb0, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {1, 0xb1, 0xb1, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {1, 0xc0, 0xc0, 0, kAny, -1, Width::kFixed, Imm::kNone, 1, kLock}, {1, 0xc1, 0xc1, 0, kAny, -1, Width::kWord, Imm::kNone, 0, kLock},
    {1, 0xc7, 0xc7, 0, kMemory, 1, Width::kNo16, Imm::kNone, 16, kLock | kAligned},
    {2, 0xf0, 0xf1, 0, kMemory, -1, Width::kWord, Imm::kNone, 0, 0, F::kMovbe}, {2, 0xf0, 0xf0, 0xf2, kAny, -1, Width::kNo16, Imm::kNone, 1, 0, F::kSse42},
    {2, 0xf1, 0xf1, 0xf2, kAny, -1, Width::kWord, Imm::kNone, 0, 0, F::kSse42}, {2, 0xf6, 0xf6, 0x66, kAny, -1, Width::kNo16, Imm::kNone, 0, 0, F::kAdx},
    {2, 0xf6, 0xf6, 0xf3, kAny, -1, Width::kNo16, Imm::kNone, 0, 0, F::kAdx},
    // direct stores, cache lines
    {2, 0xf9, 0xf9, 0, kMemory, -1, Width::kNo16, Imm::kNone, 0, 0, F::kMovdiri}, {2, 0xf8, 0xf8, 0x66, kMemory, -1, Width::kFixed, Imm::kNone, 64, kDirect, F::kMovdir64b},
    {1, 0xae, 0xae, 0, kMemory, 7, Width::kFixed, Imm::kNone, 1, kRare}, {1, 0xae, 0xae, 0x66, kMemory, 7, Width::kFixed, Imm::kNone, 1, kRare, F::kClflushopt}, {1, 0xae, 0xae, 0x66, kMemory, 6, Width::kFixed, Imm::kNone, 1, kRare, F::kClwb}, {1, 0x0d, 0x0d, 0, kMemory, 1, Width::kFixed, Imm::kNone, 1, kRare},
    // stack
    {0, 0x50, 0x5f, 0, kPlain, -1, Width::kStack}, {0, 0x50, 0x57, 0, kPlain, -1, Width::kStack}, {0, 0x68, 0x68, 0, kPlain, -1, Width::kStack, Imm::kWide},
    {0, 0x6a, 0x6a, 0, kPlain, -1, Width::kStack, Imm::kByte}, {0, 0x8f, 0x8f, 0, kAny, 0, Width::kStack}, {0, 0xff, 0xff, 0, kAny, 6, Width::kStack},
    {1, 0xa0, 0xa0, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, 0, F::kIntel}, {1, 0xa8, 0xa8, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, 0, F::kIntel},
    {0, 0x9c, 0x9c, 0, kPlain, -1, Width::kStack}, {0, 0x9d, 0x9d, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kRare},
    {0, 0x60, 0x61, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kOnly32}, {0, 0x06, 0x06, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kOnly32, F::kIntel},
    {0, 0x16, 0x16, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kOnly32, F::kIntel}, {0, 0x1e, 0x1e, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kOnly32, F::kIntel},
    {0, 0x0e, 0x0e, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kOnly32, F::kIntel}, {0, 0xc9, 0xc9, 0, kPlain, -1, Width::kStack, Imm::kNone, 0, kRare},
    {0, 0xc3, 0xc3, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kReturn}, {0, 0xc2, 0xc2, 0, kPlain, -1, Width::kFixed, Imm::kWord, 0, kReturn | kRare}, {0, 0x62, 0x62, 0, kMemory, -1, Width::kWord, Imm::kNone, 8, kOnly32 | kRare},
    // flow
    {0, 0x70, 0x7f, 0, kPlain, -1, Width::kFixed, Imm::kByte, 0, kBranch}, {1, 0x80, 0x8f, 0, kPlain, -1, Width::kFixed, Imm::kWide, 0, kBranch},
    {0, 0x70, 0x7f, 0, kPlain, -1, Width::kFixed, Imm::kByte, 0, kBranch}, {0, 0xe0, 0xe3, 0, kPlain, -1, Width::kFixed, Imm::kByte, 0, kBranch},
    {0, 0xe8, 0xe8, 0, kPlain, -1, Width::kFixed, Imm::kWide, 0, kBranch}, {0, 0xe9, 0xe9, 0, kPlain, -1, Width::kFixed, Imm::kWide, 0, kBranch},
    {0, 0xeb, 0xeb, 0, kPlain, -1, Width::kFixed, Imm::kByte, 0, kBranch}, {0, 0xce, 0xce, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kOnly32 | kRare},
    {0, 0xff, 0xff, 0, kRegister, 2, Width::kFixed, Imm::kNone, 0, kIndirect}, {0, 0xff, 0xff, 0, kRegister, 4, Width::kFixed, Imm::kNone, 0, kIndirect},
    // flags, nothing
    {0, 0xf5, 0xf5, 0, kPlain}, {0, 0xf8, 0xf9, 0, kPlain}, {0, 0xfc, 0xfd, 0, kPlain}, {1, 0x1f, 0x1f, 0, kAny, 0, Width::kWord},
    {1, 0x18, 0x18, 0, kMemory, 0}, {1, 0xae, 0xae, 0, kRegister, 5, Width::kFixed}, {1, 0x0b, 0x0b, 0, kPlain, -1, Width::kFixed, Imm::kNone, 0, kRare},
    // strings
    {0, 0xa4, 0xa4, 0, kPlain, -1, Width::kFixed, Imm::kNone, 1, kString | kRepString}, {0, 0xa5, 0xa5, 0, kPlain, -1, Width::kWord, Imm::kNone, 0, kString | kRepString},
    {0, 0xa6, 0xa6, 0, kPlain, -1, Width::kFixed, Imm::kNone, 1, kString}, {0, 0xa7, 0xa7, 0, kPlain, -1, Width::kWord, Imm::kNone, 0, kString},
    {0, 0xaa, 0xaa, 0, kPlain, -1, Width::kFixed, Imm::kNone, 1, kString | kRepString}, {0, 0xab, 0xab, 0, kPlain, -1, Width::kWord, Imm::kNone, 0, kString | kRepString},
    {0, 0xac, 0xac, 0, kPlain, -1, Width::kFixed, Imm::kNone, 1, kString | kRepString}, {0, 0xad, 0xad, 0, kPlain, -1, Width::kWord, Imm::kNone, 0, kString | kRepString},
    {0, 0xae, 0xae, 0, kPlain, -1, Width::kFixed, Imm::kNone, 1, kString}, {0, 0xaf, 0xaf, 0, kPlain, -1, Width::kWord, Imm::kNone, 0, kString},
};

constexpr Opcode x87_memory(uint8_t opcode, int8_t digit, uint8_t bytes, uint32_t rules = 0, Feature feature = F::kAlways) {
  return {0, opcode, opcode, 0, kMemory, digit, Width::kFixed, Imm::kNone, bytes, rules, feature};
}
constexpr Opcode x87_register(uint8_t opcode, int8_t digit, uint32_t rules = 0) {
  return {0, opcode, opcode, 0, kRegister, digit, Width::kFixed, Imm::kNone, 0, rules};
}
constexpr Opcode kX87[] = {
    x87_memory(0xd8, -1, 4), x87_memory(0xda, -1, 4), x87_memory(0xdc, -1, 8), x87_memory(0xde, -1, 2),
    x87_memory(0xd9, 0, 4), x87_memory(0xd9, 2, 4), x87_memory(0xd9, 3, 4), x87_memory(0xd9, 5, 2, kRare), x87_memory(0xd9, 7, 2),
    x87_memory(0xd9, 4, 28, kRare), x87_memory(0xd9, 6, 28, kEnvironment),
    x87_memory(0xdb, 0, 4), x87_memory(0xdb, 1, 4, 0, F::kSse3), x87_memory(0xdb, 2, 4), x87_memory(0xdb, 3, 4), x87_memory(0xdb, 5, 10), x87_memory(0xdb, 7, 10),
    x87_memory(0xdd, 0, 8), x87_memory(0xdd, 1, 8, 0, F::kSse3), x87_memory(0xdd, 2, 8), x87_memory(0xdd, 3, 8), x87_memory(0xdd, 7, 2),
    x87_memory(0xdd, 4, 108, kRare), x87_memory(0xdd, 6, 108, kEnvironment),
    x87_memory(0xdf, 0, 2), x87_memory(0xdf, 1, 2, 0, F::kSse3), x87_memory(0xdf, 2, 2), x87_memory(0xdf, 3, 2), x87_memory(0xdf, 4, 10), x87_memory(0xdf, 5, 8), x87_memory(0xdf, 6, 10), x87_memory(0xdf, 7, 8),
    x87_register(0xd8, -1), x87_register(0xd9, 0), x87_register(0xd9, 1), x87_register(0xd9, 4), x87_register(0xd9, 5), x87_register(0xd9, 6), x87_register(0xd9, 7), x87_register(0xd9, 5), x87_register(0xd9, 5),
    x87_register(0xda, -1), x87_register(0xdb, 0), x87_register(0xdb, 1), x87_register(0xdb, 2), x87_register(0xdb, 3), x87_register(0xdb, 5), x87_register(0xdb, 6), x87_register(0xdb, 4, kRare),
    x87_register(0xdc, -1), x87_register(0xdd, 0), x87_register(0xdd, 2), x87_register(0xdd, 3), x87_register(0xdd, 4), x87_register(0xdd, 5), x87_register(0xdd, 1, kRare),
    x87_register(0xde, -1), x87_register(0xdf, 4, kRare), x87_register(0xdf, 5), x87_register(0xdf, 6), x87_register(0xdf, 0, kRare), x87_register(0xdf, 2, kRare),
    {0, 0x9b, 0x9b, 0, kPlain},
};

constexpr Opcode row(uint8_t map, uint8_t prefix, uint8_t first, uint8_t last, uint8_t bytes, uint32_t rules = 0, Imm imm = Imm::kNone, Form form = kAny, Feature feature = F::kAlways) {
  return {map, first, last, prefix, form, -1, Width::kFixed, imm, bytes, rules, feature};
}
constexpr Opcode row64(uint8_t map, uint8_t prefix, uint8_t opcode, uint32_t rules = 0, Imm imm = Imm::kNone, Feature feature = F::kAlways) {
  return {map, opcode, opcode, prefix, kAny, -1, Width::kNo16, imm, 8, rules, feature};
}
constexpr Opcode group(uint8_t prefix, uint8_t opcode, int8_t digit) {
  return {1, opcode, opcode, prefix, kRegister, digit, Width::kFixed, Imm::kByte};
}

constexpr Opcode kMmx[] = {
    row(1, 0, 0x60, 0x6b, 8), row64(1, 0, 0x6e), row(1, 0, 0x6f, 0x6f, 8), row(1, 0, 0x70, 0x70, 8, 0, Imm::kByte), row(1, 0, 0x74, 0x76, 8),
    row64(1, 0, 0x7e), row(1, 0, 0x7f, 0x7f, 8), row(1, 0, 0xc4, 0xc4, 2, 0, Imm::kByte), row(1, 0, 0xc5, 0xc5, 0, 0, Imm::kByte, kRegister),
    row(1, 0, 0xd1, 0xd5, 8), row(1, 0, 0xd7, 0xd7, 0, 0, Imm::kNone, kRegister), row(1, 0, 0xd8, 0xe5, 8), row(1, 0, 0xe7, 0xe7, 8, 0, Imm::kNone, kMemory),
    row(1, 0, 0xe8, 0xef, 8), row(1, 0, 0xf1, 0xf6, 8), row(1, 0, 0xf8, 0xfe, 8), row(1, 0, 0xf7, 0xf7, 0, kPointer, Imm::kNone, kRegister),
    group(0, 0x71, 2), group(0, 0x71, 4), group(0, 0x71, 6), group(0, 0x72, 2), group(0, 0x72, 4), group(0, 0x72, 6), group(0, 0x73, 2), group(0, 0x73, 6),
    row(2, 0, 0x00, 0x0b, 8, 0, Imm::kNone, kAny, F::kSsse3), row(2, 0, 0x1c, 0x1e, 8, 0, Imm::kNone, kAny, F::kSsse3), row(3, 0, 0x0f, 0x0f, 8, 0, Imm::kByte, kAny, F::kSsse3),
    row(1, 0, 0x2a, 0x2a, 8), row(1, 0x66, 0x2a, 0x2a, 8), row(1, 0, 0x2c, 0x2d, 8), row(1, 0x66, 0x2c, 0x2d, 16, kAligned),
    row(1, 0xf3, 0xd6, 0xd6, 0, 0, Imm::kNone, kRegister), row(1, 0xf2, 0xd6, 0xd6, 0, 0, Imm::kNone, kRegister), {1, 0x77, 0x77, 0, kPlain},
};

constexpr Opcode kSse[] = {
    // moves
    row(1, 0, 0x10, 0x11, 16), row(1, 0x66, 0x10, 0x11, 16), row(1, 0xf3, 0x10, 0x11, 4), row(1, 0xf2, 0x10, 0x11, 8),
    row(1, 0, 0x12, 0x12, 8), row(1, 0, 0x13, 0x13, 8, 0, Imm::kNone, kMemory), row(1, 0x66, 0x12, 0x13, 8, 0, Imm::kNone, kMemory), row(1, 0xf3, 0x12, 0x12, 16, kAligned, Imm::kNone, kAny, F::kSse3), row(1, 0xf2, 0x12, 0x12, 8, 0, Imm::kNone, kAny, F::kSse3),
    row(1, 0, 0x16, 0x16, 8), row(1, 0, 0x17, 0x17, 8, 0, Imm::kNone, kMemory), row(1, 0x66, 0x16, 0x17, 8, 0, Imm::kNone, kMemory), row(1, 0xf3, 0x16, 0x16, 16, kAligned, Imm::kNone, kAny, F::kSse3),
    row(1, 0, 0x14, 0x15, 16, kAligned), row(1, 0x66, 0x14, 0x15, 16, kAligned), row(1, 0, 0x28, 0x29, 16, kAligned), row(1, 0x66, 0x28, 0x29, 16, kAligned),
    row(1, 0, 0x2b, 0x2b, 16, kAligned, Imm::kNone, kMemory), row(1, 0x66, 0x2b, 0x2b, 16, kAligned, Imm::kNone, kMemory),
    row(1, 0x66, 0x6f, 0x6f, 16, kAligned), row(1, 0xf3, 0x6f, 0x6f, 16), row(1, 0x66, 0x7f, 0x7f, 16, kAligned), row(1, 0xf3, 0x7f, 0x7f, 16),
    row64(1, 0x66, 0x6e), row64(1, 0x66, 0x7e), row(1, 0xf3, 0x7e, 0x7e, 8), row(1, 0x66, 0xd6, 0xd6, 8), row(1, 0x66, 0xe7, 0xe7, 16, kAligned, Imm::kNone, kMemory),
    row(1, 0xf2, 0xf0, 0xf0, 16, 0, Imm::kNone, kMemory, F::kSse3), row(1, 0x66, 0xf7, 0xf7, 0, kPointer, Imm::kNone, kRegister), row(1, 0, 0x50, 0x50, 0, 0, Imm::kNone, kRegister), row(1, 0x66, 0x50, 0x50, 0, 0, Imm::kNone, kRegister),
    // floating point
    row64(1, 0xf3, 0x2a), row64(1, 0xf2, 0x2a), row64(1, 0xf3, 0x2c), row64(1, 0xf3, 0x2d), row64(1, 0xf2, 0x2c), row64(1, 0xf2, 0x2d),
    row(1, 0, 0x2e, 0x2f, 4), row(1, 0x66, 0x2e, 0x2f, 8), row(1, 0, 0x51, 0x57, 16, kAligned), row(1, 0x66, 0x51, 0x51, 16, kAligned), row(1, 0x66, 0x54, 0x57, 16, kAligned),
    row(1, 0xf3, 0x51, 0x53, 4), row(1, 0xf2, 0x51, 0x51, 8), row(1, 0, 0x58, 0x59, 16, kAligned), row(1, 0, 0x5c, 0x5f, 16, kAligned), row(1, 0x66, 0x58, 0x59, 16, kAligned), row(1, 0x66, 0x5c, 0x5f, 16, kAligned),
    row(1, 0xf3, 0x58, 0x5a, 4), row(1, 0xf3, 0x5c, 0x5f, 4), row(1, 0xf2, 0x58, 0x5a, 8), row(1, 0xf2, 0x5c, 0x5f, 8), row(1, 0, 0x5a, 0x5a, 8), row(1, 0x66, 0x5a, 0x5a, 16, kAligned),
    row(1, 0, 0x5b, 0x5b, 16, kAligned), row(1, 0x66, 0x5b, 0x5b, 16, kAligned), row(1, 0xf3, 0x5b, 0x5b, 16, kAligned), row(1, 0xf3, 0xe6, 0xe6, 8), row(1, 0xf2, 0xe6, 0xe6, 16, kAligned), row(1, 0x66, 0xe6, 0xe6, 16, kAligned),
    row(1, 0, 0xc2, 0xc2, 16, kAligned, Imm::kByte), row(1, 0x66, 0xc2, 0xc2, 16, kAligned, Imm::kByte), row(1, 0xf3, 0xc2, 0xc2, 4, 0, Imm::kByte), row(1, 0xf2, 0xc2, 0xc2, 8, 0, Imm::kByte),
    row(1, 0, 0xc6, 0xc6, 16, kAligned, Imm::kByte), row(1, 0x66, 0xc6, 0xc6, 16, kAligned, Imm::kByte),
    row(1, 0x66, 0x7c, 0x7d, 16, kAligned, Imm::kNone, kAny, F::kSse3), row(1, 0xf2, 0x7c, 0x7d, 16, kAligned, Imm::kNone, kAny, F::kSse3), row(1, 0x66, 0xd0, 0xd0, 16, kAligned, Imm::kNone, kAny, F::kSse3), row(1, 0xf2, 0xd0, 0xd0, 16, kAligned, Imm::kNone, kAny, F::kSse3),
    // integer
    row(1, 0x66, 0x60, 0x6d, 16, kAligned), row(1, 0x66, 0x70, 0x70, 16, kAligned, Imm::kByte), row(1, 0xf3, 0x70, 0x70, 16, kAligned, Imm::kByte), row(1, 0xf2, 0x70, 0x70, 16, kAligned, Imm::kByte),
    row(1, 0x66, 0x74, 0x76, 16, kAligned), row(1, 0x66, 0xc4, 0xc4, 2, 0, Imm::kByte), row(1, 0x66, 0xc5, 0xc5, 0, 0, Imm::kByte, kRegister), row(1, 0x66, 0xd1, 0xd5, 16, kAligned),
    row(1, 0x66, 0xd7, 0xd7, 0, 0, Imm::kNone, kRegister), row(1, 0x66, 0xd8, 0xe5, 16, kAligned), row(1, 0x66, 0xe8, 0xef, 16, kAligned), row(1, 0x66, 0xf1, 0xf6, 16, kAligned), row(1, 0x66, 0xf8, 0xfe, 16, kAligned),
    group(0x66, 0x71, 2), group(0x66, 0x71, 4), group(0x66, 0x71, 6), group(0x66, 0x72, 2), group(0x66, 0x72, 4), group(0x66, 0x72, 6), group(0x66, 0x73, 2), group(0x66, 0x73, 3), group(0x66, 0x73, 6), group(0x66, 0x73, 7),
    // SSSE3, SSE4
    row(2, 0x66, 0x00, 0x0b, 16, kAligned, Imm::kNone, kAny, F::kSsse3), row(2, 0x66, 0x1c, 0x1e, 16, kAligned, Imm::kNone, kAny, F::kSsse3), row(3, 0x66, 0x0f, 0x0f, 16, kAligned, Imm::kByte, kAny, F::kSsse3),
    row(2, 0x66, 0x10, 0x10, 16, kAligned, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x14, 0x15, 16, kAligned, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x17, 0x17, 16, kAligned, Imm::kNone, kAny, F::kSse41),
    row(2, 0x66, 0x20, 0x20, 8, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x21, 0x21, 4, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x22, 0x22, 2, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x23, 0x23, 8, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x24, 0x24, 4, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x25, 0x25, 8, 0, Imm::kNone, kAny, F::kSse41),
    row(2, 0x66, 0x30, 0x30, 8, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x31, 0x31, 4, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x32, 0x32, 2, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x33, 0x33, 8, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x34, 0x34, 4, 0, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x35, 0x35, 8, 0, Imm::kNone, kAny, F::kSse41),
    row(2, 0x66, 0x28, 0x29, 16, kAligned, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x2a, 0x2a, 16, kAligned, Imm::kNone, kMemory, F::kSse41), row(2, 0x66, 0x2b, 0x2b, 16, kAligned, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x38, 0x41, 16, kAligned, Imm::kNone, kAny, F::kSse41), row(2, 0x66, 0x37, 0x37, 16, kAligned, Imm::kNone, kAny, F::kSse42),
    row(3, 0x66, 0x08, 0x09, 16, kAligned, Imm::kByte, kAny, F::kSse41), row(3, 0x66, 0x0a, 0x0a, 4, 0, Imm::kByte, kAny, F::kSse41), row(3, 0x66, 0x0b, 0x0b, 8, 0, Imm::kByte, kAny, F::kSse41), row(3, 0x66, 0x0c, 0x0e, 16, kAligned, Imm::kByte, kAny, F::kSse41),
    row(3, 0x66, 0x14, 0x14, 1, 0, Imm::kByte, kAny, F::kSse41), row(3, 0x66, 0x15, 0x15, 2, 0, Imm::kByte, kAny, F::kSse41), row64(3, 0x66, 0x16, 0, Imm::kByte, F::kSse41), row(3, 0x66, 0x17, 0x17, 4, 0, Imm::kByte, kAny, F::kSse41),
    row(3, 0x66, 0x20, 0x20, 1, 0, Imm::kByte, kAny, F::kSse41), row(3, 0x66, 0x21, 0x21, 4, 0, Imm::kByte, kAny, F::kSse41), row64(3, 0x66, 0x22, 0, Imm::kByte, F::kSse41), row(3, 0x66, 0x40, 0x42, 16, kAligned, Imm::kByte, kAny, F::kSse41),
    row(3, 0x66, 0x60, 0x63, 16, 0, Imm::kByte, kAny, F::kSse42), row(3, 0x66, 0x44, 0x44, 16, kAligned, Imm::kByte, kAny, F::kPclmul), row(2, 0x66, 0xdb, 0xdf, 16, kAligned, Imm::kNone, kAny, F::kAes), row(3, 0x66, 0xdf, 0xdf, 16, kAligned, Imm::kByte, kAny, F::kAes),
    row(2, 0, 0xc8, 0xcd, 16, kAligned, Imm::kNone, kAny, F::kSha), row(3, 0, 0xcc, 0xcc, 16, kAligned, Imm::kByte, kAny, F::kSha),
    row(2, 0x66, 0xcf, 0xcf, 16, kAligned, Imm::kNone, kAny, F::kGfni), row(3, 0x66, 0xce, 0xcf, 16, kAligned, Imm::kByte, kAny, F::kGfni),
    // control and images
    {1, 0xae, 0xae, 0, kMemory, 2, Width::kFixed, Imm::kNone, 4, kControlWord}, {1, 0xae, 0xae, 0, kMemory, 3, Width::kFixed, Imm::kNone, 4},
    {1, 0xae, 0xae, 0, kMemory, 0, Width::kNo16, Imm::kNone, 0, kAlign16 | kRare}, {1, 0xae, 0xae, 0, kMemory, 1, Width::kNo16, Imm::kNone, 0, kAlign16 | kRare},
};
// clang-format on

}  // namespace

// The operating system has a say in what of AVX and XSAVE there is: CPUID alone does not tell.
bool host_offers(Feature feature) {
  __builtin_cpu_init();
  static const x86::FeatureSet host = x86::host_features();
  const auto has = [](x86::FeatureWord word, unsigned bit) {
    return (host[static_cast<size_t>(word)] >> bit & 1) != 0;
  };
  const bool avx = __builtin_cpu_supports("avx"), avx2 = __builtin_cpu_supports("avx2");
  using enum x86::FeatureWord;
  switch (feature) {
    case F::kAlways: return true;
    case F::kIntel: return __builtin_cpu_is("intel");
    case F::kSse3: return __builtin_cpu_supports("sse3");
    case F::kSsse3: return __builtin_cpu_supports("ssse3");
    case F::kSse41: return __builtin_cpu_supports("sse4.1");
    case F::kSse42: return __builtin_cpu_supports("sse4.2");
    case F::kPopcnt: return __builtin_cpu_supports("popcnt");
    case F::kBmi1: return __builtin_cpu_supports("bmi");
    case F::kLzcnt: return __builtin_cpu_supports("lzcnt");
    case F::kMovbe: return __builtin_cpu_supports("movbe");
    case F::kAdx: return __builtin_cpu_supports("adx");
    case F::kAes: return __builtin_cpu_supports("aes");
    case F::kPclmul: return __builtin_cpu_supports("pclmul");
    case F::kSha: return __builtin_cpu_supports("sha");
    case F::kAvx: return avx;
    case F::kAvx2: return avx2;
    case F::kFma: return __builtin_cpu_supports("fma");
    case F::kF16c: return avx && has(k1Ecx, 29);
    case F::kBmi2: return __builtin_cpu_supports("bmi2");
    case F::kVaes: return avx && has(k7Ecx, 9);
    case F::kVpclmul: return avx && has(k7Ecx, 10);
    case F::kGfni: return avx && has(k7Ecx, 8);
    case F::kAvxVnni: return avx && has(k71Eax, 4);
    case F::kClflushopt: return has(k7Ebx, 23);
    case F::kClwb: return has(k7Ebx, 24);
    case F::kMovdiri: return has(k7Ecx, 27);
    case F::kMovdir64b: return has(k7Ecx, 28);
    case F::kXsave: return avx2;
    case F::kXsaveopt: return avx2 && has(kD1Eax, 0);
    case F::kXsavec: return avx2 && has(kD1Eax, 1);
  }
  return false;
}

std::span<const Opcode> integer_opcodes() { return executable<kInteger>(); }
std::span<const Opcode> x87_opcodes() { return executable<kX87>(); }
std::span<const Opcode> mmx_opcodes() { return executable<kMmx>(); }
std::span<const Opcode> sse_opcodes() { return executable<kSse>(); }

}  // namespace kite::streams
