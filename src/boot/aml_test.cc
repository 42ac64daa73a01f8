#include "boot/aml.h"

#include <gtest/gtest.h>

#include <string>

namespace kite::boot::aml {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes name_bytes(std::string_view name) { return path(name).bytes(); }

TEST(Aml, IntegersTakeTheShortestForm) {
  EXPECT_EQ(Term(0).bytes(), (Bytes{0x00}));
  EXPECT_EQ(Term(1).bytes(), (Bytes{0x01}));
  EXPECT_EQ(Term(2).bytes(), (Bytes{0x0a, 2}));
  EXPECT_EQ(Term(0x1234).bytes(), (Bytes{0x0b, 0x34, 0x12}));
  EXPECT_EQ(Term(0x12345678).bytes(), (Bytes{0x0c, 0x78, 0x56, 0x34, 0x12}));
  EXPECT_EQ(Term(uint64_t{1} << 32).bytes(), (Bytes{0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(Aml, PathsArePaddedAndPrefixed) {
  EXPECT_EQ(name_bytes("ISA"), (Bytes{'I', 'S', 'A', '_'}));
  EXPECT_EQ(name_bytes("\\_SB"), (Bytes{'\\', '_', 'S', 'B', '_'}));
  EXPECT_EQ(name_bytes("^AB.CD"), (Bytes{'^', 0x2e, 'A', 'B', '_', '_', 'C', 'D', '_', '_'}));
  EXPECT_EQ(name_bytes("A.B.C"), (Bytes{0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_'}));
  EXPECT_EQ(name_bytes("\\"), (Bytes{'\\', 0}));
}

TEST(Aml, EisaIdsArePacked) { EXPECT_EQ(eisa_id("PNP0A03").bytes(), (Bytes{0x0c, 0x41, 0xd0, 0x0a, 0x03})); }

TEST(Aml, LengthsGrowWithTheContent) {
  // A scope's content is its name (4 bytes) and the string (2 bytes more than its characters).
  const auto length_bytes = [](size_t characters) {
    const Bytes all = scope("ABCD", text(std::string(characters, 'x'))).bytes();
    return Bytes(all.begin() + 1, all.end() - static_cast<ptrdiff_t>(characters + 6));
  };
  EXPECT_EQ(length_bytes(0), (Bytes{7}));
  EXPECT_EQ(length_bytes(56), (Bytes{63}));
  EXPECT_EQ(length_bytes(57), (Bytes{0x41, 0x04}));                   // 65
  EXPECT_EQ(length_bytes(4087), (Bytes{0x4f, 0xff}));                 // 4095
  EXPECT_EQ(length_bytes(4088), (Bytes{0x81, 0x00, 0x01}));           // 4097
  EXPECT_EQ(length_bytes(0xffff6), (Bytes{0x8f, 0xff, 0xff}));        // 2^20 - 1
  EXPECT_EQ(length_bytes(0xffff7), (Bytes{0xc1, 0x00, 0x00, 0x01}));  // 2^20 + 1
}

TEST(Aml, TermsMayAppendThemselves) {
  Term term{1, 2};
  term += term;
  EXPECT_EQ(term.bytes(), (Bytes{1, 2, 1, 2}));
}

TEST(Aml, FieldsSayHowTheyAreAccessed) {
  EXPECT_EQ(byte_fields("RGN", {"AB"}).bytes(), (Bytes{0x5b, 0x81, 11, 'R', 'G', 'N', '_', 1, 'A', 'B', '_', '_', 8}));
  EXPECT_EQ(dword_fields("RGN", {"AB"}).bytes(),
            (Bytes{0x5b, 0x81, 11, 'R', 'G', 'N', '_', 3, 'A', 'B', '_', '_', 32}));
}

TEST(Aml, StatementsOfMethods) {
  EXPECT_EQ(store(argument(1), local(2)).bytes(), (Bytes{0x70, 0x69, 0x62}));
  EXPECT_EQ(shift_left(1, local(0)).bytes(), (Bytes{0x79, 1, 0x60, 0}));
  EXPECT_EQ(notify("DEV", 3).bytes(), (Bytes{0x86, 'D', 'E', 'V', '_', 0x0a, 3}));
  EXPECT_EQ(mutex("MTX").bytes(), (Bytes{0x5b, 0x01, 'M', 'T', 'X', '_', 0}));
  EXPECT_EQ(acquire("MTX").bytes(), (Bytes{0x5b, 0x23, 'M', 'T', 'X', '_', 0xff, 0xff}));
  EXPECT_EQ(release("MTX").bytes(), (Bytes{0x5b, 0x27, 'M', 'T', 'X', '_'}));
  EXPECT_EQ(call("GO", 1, argument(0)).bytes(), (Bytes{'G', 'O', '_', '_', 1, 0x68}));
}

TEST(Aml, ResourceTemplatesEndWithATag) {
  EXPECT_EQ(resource_template(irq(4)).bytes(), (Bytes{0x11, 0x08, 0x0a, 5, 0x22, 0x10, 0x00, 0x79, 0x00}));
}

TEST(Aml, InterruptNumbersLieFiveBytesIntoTheirDescriptor) {
  const Bytes bytes = level_interrupts({0x11223344}).bytes();
  EXPECT_EQ(bytes, (Bytes{0x89, 6, 0, 0x09, 1, 0x44, 0x33, 0x22, 0x11}));
}

TEST(Aml, WindowsAreAsWideAsTheyNeed) {
  EXPECT_EQ(port_window(0xd00, 0xffff).bytes()[0], 0x88);
  EXPECT_EQ(memory_window(0xe0000000, 0xfebfffff, false).bytes()[0], 0x87);
  EXPECT_EQ(memory_window(0x100000000, 0x1ffffffff, false).bytes()[0], 0x8a);
}

}  // namespace
}  // namespace kite::boot::aml
