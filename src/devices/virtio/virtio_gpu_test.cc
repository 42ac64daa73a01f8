#include "devices/virtio/virtio_gpu.h"

#include "devices/vga/edid.h"
#include "devices/virtio/test_virtio_gpu.h"

namespace kite::devices {
namespace {

using namespace virtio_gpu;  // NOLINT: the protocol
using namespace testing;     // NOLINT: the machine and the driver
using display::Mode;
using GpuRect = virtio_gpu::Rect;

constexpr uint64_t kPixels = GpuMachine::kPixels;
constexpr uint32_t kOk = GpuMachine::kOk, kUnspecified = GpuMachine::kUnspecified,
                   kInvalidParameter = GpuMachine::kInvalidParameter;
constexpr uint32_t kWidth = 32, kHeight = 16;
constexpr GpuRect kAll{0, 0, kWidth, kHeight};

class VirtioGpuTest : public ::testing::Test {
 protected:
  VirtioGpuTest() { machine_.set_up(); }
  // Resource 1 of kWidth by kHeight, with a color for each pixel of the guest's memory, on the screen.
  void show() {
    machine_.make(1, kB8G8R8X8, kWidth, kHeight, kPixels, 8);
    for (uint32_t i = 0; i < kWidth * kHeight; ++i) machine_.put(kPixels + i * 4, color(i % kWidth, i / kWidth));
    ASSERT_EQ(machine_.transfer(1, kAll), kOk);
    ASSERT_EQ(machine_.scanout(1, kAll), kOk);
    ASSERT_EQ(machine_.flush(1, kAll), kOk);
  }
  static uint32_t color(uint32_t x, uint32_t y) { return x << 16 | y << 8 | 0x55; }
  GpuMachine machine_;
};

TEST_F(VirtioGpuTest, IsAModernDisplayController) {
  EXPECT_EQ(machine_.function->config_read(0, 4), 0x10501af4U);
  EXPECT_EQ(machine_.function->config_read(8, 4), 0x03800001U);
  EXPECT_EQ(machine_.driver.config(kEventsRead, 4), 0U);
  EXPECT_EQ(machine_.driver.config(kNumScanouts, 4), 1U);
  EXPECT_EQ(machine_.driver.config(kNumCapsets, 4), 0U);
  EXPECT_EQ(machine_.driver.features() & 0x1f, kEdid);
}

TEST_F(VirtioGpuTest, TellsOfItsOneScreen) {
  EXPECT_EQ(machine_.send(0, machine_.request(kGetDisplayInfo)), sizeof(Header) + sizeof(DisplayInfo));
  EXPECT_EQ(machine_.get<uint32_t>(GpuMachine::kAnswer), 0x1101U);
  const auto info = machine_.get<DisplayInfo>(GpuMachine::kAnswer + sizeof(Header));
  EXPECT_EQ(info.modes[0].rect.width, 640U);
  EXPECT_EQ(info.modes[0].rect.height, 480U);
  EXPECT_EQ(info.modes[0].enabled, 1U);
  for (unsigned other = 1; other < 16; ++other) EXPECT_EQ(info.modes[other].enabled, 0U);
}

TEST_F(VirtioGpuTest, TellsOfItsMonitor) {
  EXPECT_EQ(machine_.run(kGetEdid, GetEdid{0, 0}), 0x1104U);
  const auto said = machine_.get<Edid>(GpuMachine::kAnswer + sizeof(Header));
  const auto edid = make_edid(640, 480);
  EXPECT_EQ(said.size, edid.size());
  EXPECT_TRUE(std::ranges::equal(edid, std::span(said.bytes).first(edid.size())));
  EXPECT_EQ(machine_.run(kGetEdid, GetEdid{1, 0}), kInvalidParameter);
  machine_.set_up(0);
  EXPECT_EQ(machine_.run(kGetEdid, GetEdid{0, 0}), kUnspecified);
}

TEST_F(VirtioGpuTest, AFenceComesBackWithTheAnswer) {
  auto request = machine_.request(kCreate2d, Create2d{1, kB8G8R8A8, 4, 4});
  store(request.data(), Header{.type = kCreate2d,
                               .flags = kFence | 0x80,
                               .fence = 0x1122334455667788,
                               .context = 3,
                               .ring = 0,
                               .padding = {}});
  EXPECT_EQ(machine_.send(0, request), sizeof(Header));
  const auto answer = machine_.get<Header>(GpuMachine::kAnswer);
  EXPECT_EQ(answer.type, kOk);
  EXPECT_EQ(answer.flags, kFence);
  EXPECT_EQ(answer.fence, 0x1122334455667788U);
  EXPECT_EQ(answer.context, 3U);
}

TEST_F(VirtioGpuTest, ShowsWhatItsMemoryHeld) {
  EXPECT_EQ(machine_.look().width(), 1U);
  EXPECT_EQ(machine_.mode, Mode::kBlank);
  EXPECT_FALSE(machine_.gpu->in_charge());
  show();
  EXPECT_TRUE(machine_.gpu->in_charge());
  const display::Surface& surface = machine_.look();
  EXPECT_EQ(machine_.mode, Mode::kGraphics);
  ASSERT_EQ(surface.width(), kWidth);
  ASSERT_EQ(surface.height(), kHeight);
  for (uint32_t y = 0; y < kHeight; ++y)
    for (uint32_t x = 0; x < kWidth; ++x) ASSERT_EQ(surface.row(y)[x], color(x, y)) << x << "," << y;
}

TEST_F(VirtioGpuTest, KnowsAllFormats) {
  // Blue 0x11, green 0x22, red 0x33, the fourth 0x44.
  constexpr std::pair<uint32_t, uint32_t> kSame[] = {
      {kB8G8R8A8, 0x44332211}, {kB8G8R8X8, 0x44332211}, {kA8R8G8B8, 0x11223344}, {kX8R8G8B8, 0x11223344},
      {kR8G8B8A8, 0x44112233}, {kR8G8B8X8, 0x44112233}, {kA8B8G8R8, 0x33221144}, {kX8B8G8R8, 0x33221144}};
  uint32_t id = 0;
  for (const auto& [format, pixel] : kSame) {
    machine_.make(++id, format, 1, 1);
    machine_.put(kPixels, pixel);
    ASSERT_EQ(machine_.transfer(id, {0, 0, 1, 1}), kOk);
    ASSERT_EQ(machine_.scanout(id, {0, 0, 1, 1}), kOk);
    EXPECT_EQ(machine_.pixel(0, 0), 0x332211U) << format;
  }
  EXPECT_EQ(machine_.run(kCreate2d, Create2d{++id, 5, 1, 1}), kInvalidParameter);
}

TEST_F(VirtioGpuTest, PartsAreTransferredByTheResourcesRows) {
  show();
  std::memset(machine_.host(kPixels), 0x77, kWidth * kHeight * 4);
  // The part's first pixel lies at the start of the memory.
  ASSERT_EQ(machine_.transfer(1, {3, 2, 5, 4}, 0), kOk);
  machine_.look();
  for (uint32_t y = 0; y < kHeight; ++y)
    for (uint32_t x = 0; x < kWidth; ++x) {
      const bool in = x >= 3 && x < 8 && y >= 2 && y < 6;
      ASSERT_EQ(machine_.surface.row(y)[x], in ? 0x777777 : color(x, y)) << x << "," << y;
    }
}

TEST_F(VirtioGpuTest, AScanoutShowsAPartOfItsResource) {
  show();
  ASSERT_EQ(machine_.scanout(1, {4, 8, 10, 5}), kOk);
  EXPECT_EQ(machine_.pixel(2, 3), color(6, 11));
  EXPECT_EQ(machine_.surface.width(), 10U);
  EXPECT_EQ(machine_.surface.height(), 5U);
  ASSERT_EQ(machine_.scanout(0, {}), kOk);
  machine_.surface.resize(4, 4);
  machine_.look();
  EXPECT_EQ(machine_.mode, Mode::kBlank);
  EXPECT_EQ(machine_.pixel(0, 0), 0U);
  EXPECT_TRUE(machine_.gpu->in_charge());
}

// --- what has changed

class Watcher final : public display::Sink {
 public:
  void resized(const display::Surface& surface) override { width = surface.width(); }
  void changed(const display::Surface&, std::span<const display::Rect> rects) override {
    all.insert(all.end(), rects.begin(), rects.end());
  }
  std::vector<display::Rect> take() { return std::exchange(all, {}); }
  uint32_t width = 0;
  std::vector<display::Rect> all;
};

class VirtioGpuDamageTest : public ::testing::Test {
 protected:
  VirtioGpuDamageTest() {
    machine_.set_up();
    console_.add_sink(watcher_);
  }
  ~VirtioGpuDamageTest() override { console_.remove_sink(watcher_); }
  std::vector<display::Rect> rects() {
    clock_.advance(display::Console::kRefreshNs);
    return watcher_.take();
  }

  ManualClock clock_;
  display::Console console_{clock_};
  GpuMachine machine_{{.name = "gpu"}, &console_};
  Watcher watcher_;
};

TEST_F(VirtioGpuDamageTest, OnlyWhatIsFlushedChanges) {
  machine_.make(1, kB8G8R8X8, kWidth, kHeight);
  ASSERT_EQ(machine_.scanout(1, kAll), kOk);
  rects();
  EXPECT_EQ(watcher_.width, kWidth);
  std::memset(machine_.host(kPixels), 0x33, kWidth * kHeight * 4);
  ASSERT_EQ(machine_.transfer(1, kAll), kOk);
  EXPECT_EQ(rects(), std::vector<display::Rect>{});
  ASSERT_EQ(machine_.flush(1, {5, 6, 7, 3}), kOk);
  EXPECT_EQ(rects(), (std::vector<display::Rect>{{5, 6, 7, 3}}));
  // Another part of the resource is not on the screen.
  ASSERT_EQ(machine_.scanout(1, {0, 0, 8, 8}), kOk);
  rects();
  ASSERT_EQ(machine_.flush(1, {8, 0, 4, 8}), kOk);
  EXPECT_EQ(rects(), std::vector<display::Rect>{});
  // Nor is another resource.
  machine_.make(2, kB8G8R8X8, kWidth, kHeight);
  ASSERT_EQ(machine_.flush(2, kAll), kOk);
  EXPECT_EQ(rects(), std::vector<display::Rect>{});
}

TEST_F(VirtioGpuDamageTest, ManySmallFlushesAreBounded) {
  machine_.make(1, kB8G8R8X8, kWidth, kHeight);
  ASSERT_EQ(machine_.scanout(1, kAll), kOk);
  rects();
  std::memset(machine_.host(kPixels), 0x33, kWidth * kHeight * 4);
  ASSERT_EQ(machine_.transfer(1, kAll), kOk);
  for (uint32_t i = 0; i < 200; ++i) ASSERT_EQ(machine_.flush(1, {i % kWidth, i / kWidth, 1, 1}), kOk);
  EXPECT_LE(rects().size(), display::Surface::kMostRects);
  EXPECT_EQ(console_.surface().row(0)[0], 0x333333U);
}

// --- the cursor

class VirtioGpuCursorTest : public VirtioGpuTest {
 protected:
  // Resource 2: the left half half-transparent white, the right half opaque red.
  void make_cursor() {
    constexpr uint64_t kImage = kPixels + 0x10000;
    machine_.make(2, kB8G8R8A8, kCursorSide, kCursorSide, kImage);
    for (uint32_t i = 0; i < kCursorSide * kCursorSide; ++i)
      machine_.put(kImage + i * 4, i % kCursorSide < 8 ? 0x80808080 : 0xffff0000);
    ASSERT_EQ(machine_.transfer(2, {0, 0, kCursorSide, kCursorSide}), kOk);
  }
};

TEST_F(VirtioGpuCursorTest, IsDrawnIntoThePicture) {
  show();
  make_cursor();
  machine_.cursor(kUpdateCursor, {.scanout = 0, .x = 4, .y = 5, .resource = 2, .hot_x = 1, .hot_y = 1});
  EXPECT_EQ(machine_.pixel(3, 5), color(3, 5));
  EXPECT_EQ(machine_.pixel(4, 4), color(4, 4));
  EXPECT_EQ(machine_.pixel(4, 5), 0x8282aaU);  // half of 0x040555, and 0x80 of white
  EXPECT_EQ(machine_.pixel(12, 5), 0xff0000U);
  machine_.cursor(kMoveCursor, {.scanout = 0, .x = 20, .y = 0});
  EXPECT_EQ(machine_.pixel(12, 5), color(12, 5));
  EXPECT_EQ(machine_.pixel(28, 5), 0xff0000U);
  machine_.cursor(kUpdateCursor, {.scanout = 0, .x = 20, .y = 0, .resource = 0});
  EXPECT_EQ(machine_.pixel(28, 5), color(28, 5));
}

TEST_F(VirtioGpuCursorTest, MayLieAnywhere) {
  show();
  make_cursor();
  constexpr uint32_t kLeft = static_cast<uint32_t>(-60);
  for (const auto& [x, y] : {std::pair{kLeft, kLeft},
                             {0x7fffffffU, 0x7fffffffU},
                             {0x80000000U, 0x80000000U},
                             {kWidth - 1, kHeight - 1},
                             {kLeft, 0U},
                             {~0u, 0x80000000U}}) {
    machine_.cursor(kUpdateCursor, {.scanout = 0, .x = x, .y = y, .resource = 2});
    machine_.look();
  }
  machine_.cursor(kMoveCursor, {.scanout = 0, .x = kLeft, .y = 0});
  EXPECT_EQ(machine_.pixel(3, 0), 0xff0000U);
  EXPECT_EQ(machine_.pixel(4, 0), color(4, 0));
}

TEST_F(VirtioGpuCursorTest, NonsenseLeavesItAsItWas) {
  show();
  make_cursor();
  machine_.cursor(kUpdateCursor, {.scanout = 0, .x = 4, .y = 5, .resource = 2});
  machine_.cursor(kUpdateCursor, {.scanout = 1, .x = 0, .y = 0, .resource = 0});
  machine_.cursor(kUpdateCursor, {.scanout = 0, .x = 4, .y = 5, .resource = 1});  // of another size
  machine_.cursor(kUpdateCursor, {.scanout = 0, .x = 4, .y = 5, .resource = 9});
  machine_.cursor(kFlush, {.scanout = 0, .x = 0, .y = 0, .resource = 0});
  machine_.send(1, machine_.request(kUpdateCursor), 0);
  machine_.send(1, std::vector<uint8_t>(3), 0);
  EXPECT_EQ(machine_.pixel(12, 5), 0xff0000U);
  // The resource has done its part.
  ASSERT_EQ(machine_.run(kUnref, Unref{2, 0}), kOk);
  EXPECT_EQ(machine_.pixel(12, 5), 0xff0000U);
}

TEST_F(VirtioGpuDamageTest, AMovingCursorChangesWhereItWasAndIs) {
  machine_.make(1, kB8G8R8X8, 256, 256);
  ASSERT_EQ(machine_.scanout(1, {0, 0, 256, 256}), kOk);
  machine_.make(2, kB8G8R8A8, kCursorSide, kCursorSide);
  std::memset(machine_.host(kPixels), 0xff, kCursorSide * kCursorSide * 4);
  ASSERT_EQ(machine_.transfer(2, {0, 0, kCursorSide, kCursorSide}), kOk);
  machine_.cursor(kUpdateCursor, {.scanout = 0, .x = 10, .y = 10, .resource = 2});
  rects();
  machine_.cursor(kMoveCursor, {.scanout = 0, .x = 150, .y = 100});
  EXPECT_EQ(rects(), (std::vector<display::Rect>{{10, 10, 64, 64}, {150, 100, 64, 64}}));
  EXPECT_EQ(console_.surface().row(10)[10], 0U);
  EXPECT_EQ(console_.surface().row(100)[150], 0xffffffU);
}

}  // namespace
}  // namespace kite::devices
