#include "devices/vga/vga.h"

#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "devices/vga/edid.h"
#include "support/bytes.h"

namespace kite::devices {
namespace {

using namespace kite::testing;

constexpr uint64_t kVram = 0xe0000000, kMmio = 0xe8000000, kRom = 0xe9000000;
constexpr uint8_t kSlot = 2 << 3;

class VgaCardTest : public ::testing::Test {
 protected:
  VgaCardTest() {
    device_ = make();
    EXPECT_TRUE(bus_.attach(*device_, 2, 0));
    device_->config_write(0x10, 4, kVram);
    device_->config_write(0x18, 4, kMmio);
    device_->config_write(0x04, 2, 3);
  }
  std::unique_ptr<Vga> make(display::Console* console = nullptr) {
    auto made =
        Vga::create("vga", {.memory_megs = 2, .rom = {0x55, 0xaa, 0x40}},
                    {.vga = {.memory = memory_.root(), .ports = ports_.root(), .clock = clock_}, .console = console});
    EXPECT_TRUE(made);
    (*made)->reset();
    return std::move(*made);
  }

  FakeLines lines_;
  ManualClock clock_;
  TestSpace memory_{uint64_t{1} << 40};
  TestSpace ports_;
  bus::PciBus bus_{memory_.root(), ports_.root(), lines_};
  std::unique_ptr<Vga> device_;
};

TEST_F(VgaCardTest, HasItsIdsAndBars) {
  EXPECT_EQ(bus_.config_read(0, kSlot, 0, 4), 0x11111234U);
  EXPECT_EQ(bus_.config_read(0, kSlot, 8, 4), 0x03000002U);
  EXPECT_EQ(bus_.config_read(0, kSlot, 0x10, 4) & 0xf, 8U);
  bus_.config_write(0, kSlot, 0x10, 4, ~0u);
  EXPECT_EQ(bus_.config_read(0, kSlot, 0x10, 4), 0xffe00008U);
}

TEST_F(VgaCardTest, RomShowsOnceItIsEnabled) {
  bus_.config_write(0, kSlot, 0x30, 4, 0xfffffffe);
  EXPECT_EQ(bus_.config_read(0, kSlot, 0x30, 4), 0xfffff000U);
  bus_.config_write(0, kSlot, 0x30, 4, kRom);
  EXPECT_EQ(memory_.in(kRom, 4), 0xffffffffU);
  bus_.config_write(0, kSlot, 0x30, 4, kRom | 1);
  EXPECT_EQ(memory_.in(kRom, 4), 0x0040aa55U);
}

TEST_F(VgaCardTest, PortsWindowAndFrameBufferAreOneCard) {
  ports_.out(0x3c2, 0x03);
  ports_.out(0x3c4, 0x0604, 2);  // planar
  ports_.out(0x3c4, 0x0f02, 2);
  ports_.out(0x3ce, 0x0506, 2);
  ports_.out(0x3ce, 0xff08, 2);
  memory_.out(0xa0000, 0x1122, 2);
  EXPECT_EQ(memory_.in(kVram, 4), 0x22222222U);
  EXPECT_EQ(memory_.in(kVram + 4, 4), 0x11111111U);
}

TEST_F(VgaCardTest, DispiAnswersAtItsPortsAndInBar2) {
  ports_.out(0x1ce, 0, 2);
  EXPECT_EQ(ports_.in(0x1cf, 2), 0xb0c5U);
  EXPECT_EQ(ports_.in(0x1d0, 2), 0xb0c5U);
  EXPECT_EQ(memory_.in(kMmio + 0x500, 2), 0xb0c5U);
  memory_.out(kMmio + 0x502, 800, 2);
  ports_.out(0x1ce, 1, 2);
  EXPECT_EQ(ports_.in(0x1cf, 2), 800U);
}

TEST_F(VgaCardTest, Bar2HasRegistersEdidAndByteOrder) {
  memory_.out(kMmio + 0x402, 0x67);
  EXPECT_EQ(memory_.in(kMmio + 0x40c), 0x67U);
  EXPECT_EQ(memory_.in(kMmio, 4), 0xffffff00U);
  EXPECT_EQ(memory_.in(kMmio + 0x600, 4), 8U);
  EXPECT_EQ(memory_.in(kMmio + 0x604, 4), 0x1e1e1e1eU);
  memory_.out(kMmio + 0x604, 0xbebebebe, 4);
  EXPECT_EQ(memory_.in(kMmio + 0x604, 4), 0xbebebebeU);
  memory_.out(kMmio + 0x604, 0x12345678, 4);
  EXPECT_EQ(memory_.in(kMmio + 0x604, 4), 0xbebebebeU);
  EXPECT_EQ(memory_.in(kMmio + 0xffc, 4), 0U);
}

TEST_F(VgaCardTest, EdidNamesTheResolutionAndSumsUp) {
  const auto edid = make_edid(1600, 900);
  unsigned sum = 0;
  for (const uint8_t byte : edid) sum += byte;
  EXPECT_EQ(sum % 256, 0U);
  EXPECT_EQ(edid[56] | (edid[58] & 0xf0) << 4, 1600);
  EXPECT_EQ(edid[59] | (edid[61] & 0xf0) << 4, 900);
}

TEST_F(VgaCardTest, AWatchedCardShowsWhatChanges) {
  device_.reset();
  display::Console console(clock_);
  device_ = make(&console);
  ASSERT_TRUE(bus_.attach(*device_, 2, 0));
  device_->config_write(0x10, 4, kVram);
  device_->config_write(0x04, 2, 3);
  class Sink final : public display::Sink {
   public:
    void resized(const display::Surface& surface) override { width = surface.width(); }
    void changed(const display::Surface&, std::span<const display::Rect> rects) override { last = rects[0]; }
    uint32_t width = 0;
    display::Rect last;
  } sink;
  console.add_sink(sink);
  for (const auto& [index, value] : {std::pair{1u, 64u}, {2u, 32u}, {3u, 32u}, {4u, 0x41u}}) {
    ports_.out(0x1ce, index, 2);
    ports_.out(0x1cf, value, 2);
  }
  clock_.advance(display::Console::kRefreshNs);
  EXPECT_EQ(sink.width, 64U);
  memory_.out(kVram + (64 * 20 + 9) * 4, 0x00ff00, 4);
  // A CPU looks at the page's state behind its store.
  uint64_t value = 0;
  memory_.space().read(kVram, 4, value);
  clock_.advance(display::Console::kRefreshNs);
  EXPECT_EQ(sink.last, (display::Rect{9, 20, 1, 1}));
  console.remove_sink(sink);
  device_.reset();
}

TEST_F(VgaCardTest, StateTravels) {
  ports_.out(0x3c2, 0x67);
  ports_.out(0x3c8, 5);
  for (const unsigned part : {1u, 2u, 3u}) ports_.out(0x3c9, part);
  memory_.out(kVram + 77, 0x99);
  const auto saved = saved_state(*device_);
  device_->reset();
  memory_.out(kVram + 77, 0);
  ASSERT_TRUE(restore_state(*device_, saved));
  EXPECT_EQ(ports_.in(0x3cc), 0x67U);
  EXPECT_EQ(memory_.in(kVram + 77), 0x99U);
  ports_.out(0x3c7, 5);
  EXPECT_EQ(ports_.in(0x3c9), 1U);
}

TEST_F(VgaCardTest, ImpossibleStateIsRefused) {
  const auto saved = saved_state(*device_);
  EXPECT_FALSE(restore_state(*device_, with_patched_field(saved, 1, 3, 0xff, 1)));         // sequencer index
  EXPECT_FALSE(restore_state(*device_, with_patched_field(saved, 8, 4, 3, 1)));            // DAC component
  EXPECT_FALSE(restore_state(*device_, with_patched_field(saved, 11, 2 * 5, 0xffff, 2)));  // bank
  EXPECT_FALSE(restore_state(*device_, with_patched_field(saved, 11, 2 * 4, 1, 2)));       // on, and no size
}

}  // namespace
}  // namespace kite::devices
