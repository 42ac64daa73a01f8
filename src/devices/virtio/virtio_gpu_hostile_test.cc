// What virtio-gpu refuses, how much it takes, what it forgets and what it keeps.
#include "devices/virtio/test_virtio_gpu.h"

namespace kite::devices {
namespace {

using namespace virtio_gpu;  // NOLINT: the protocol
using namespace testing;     // NOLINT: the machine and the driver
using display::Mode;

constexpr uint64_t kPixels = GpuMachine::kPixels;
constexpr uint32_t kOk = GpuMachine::kOk, kUnspecified = GpuMachine::kUnspecified,
                   kOutOfMemory = GpuMachine::kOutOfMemory, kInvalidScanout = GpuMachine::kInvalidScanout,
                   kInvalidResource = GpuMachine::kInvalidResource, kInvalidParameter = GpuMachine::kInvalidParameter;
constexpr uint32_t kMost = UINT32_MAX;

class VirtioGpuErrors : public ::testing::Test {
 protected:
  VirtioGpuErrors() { machine_.set_up(); }
  uint32_t create(uint32_t id, uint32_t width, uint32_t height) {
    return machine_.run(kCreate2d, Create2d{id, kB8G8R8X8, width, height});
  }
  GpuMachine machine_;
};

TEST_F(VirtioGpuErrors, ResourcesHaveNumbersOfTheirOwnAndASize) {
  EXPECT_EQ(create(0, 4, 4), kInvalidResource);
  EXPECT_EQ(create(7, 4, 4), kOk);
  EXPECT_EQ(create(7, 4, 4), kInvalidResource);
  for (const auto& [width, height] : {std::pair{0u, 4u}, {4u, 0u}, {kMost, 1u}, {1u, kMost}, {16385u, 1u}, {0u, 0u}})
    EXPECT_EQ(create(8, width, height), kInvalidParameter) << width << " by " << height;
  EXPECT_EQ(machine_.run(kUnref, Unref{8, 0}), kInvalidResource);
  EXPECT_EQ(machine_.run(kUnref, Unref{7, 0}), kOk);
  EXPECT_EQ(create(7, 4, 4), kOk);
}

TEST_F(VirtioGpuErrors, MemoryIsAttachedOnceAndIsRam) {
  ASSERT_EQ(create(1, 4, 4), kOk);
  EXPECT_EQ(machine_.attach(2, kPixels, 64), kInvalidResource);
  EXPECT_EQ(machine_.run(kDetachBacking, Unref{1, 0}), kUnspecified);
  EXPECT_EQ(machine_.transfer(1, {0, 0, 4, 4}), kUnspecified);
  EXPECT_EQ(machine_.attach(1, GpuMachine::kRam - 32, 64), kUnspecified);
  EXPECT_EQ(machine_.attach(1, UINT64_MAX - 10, 64), kUnspecified);
  EXPECT_EQ(machine_.attach(1, kPixels, 64), kOk);
  EXPECT_EQ(machine_.attach(1, kPixels, 64), kUnspecified);
  EXPECT_EQ(machine_.run(kDetachBacking, Unref{1, 0}), kOk);
  EXPECT_EQ(machine_.run(kDetachBacking, Unref{9, 0}), kInvalidResource);
  EXPECT_EQ(machine_.attach(1, kPixels, 0), kOk);
  EXPECT_EQ(machine_.transfer(1, {0, 0, 1, 1}), kInvalidParameter);
}

TEST_F(VirtioGpuErrors, ListsOfMemoryAreBounded) {
  ASSERT_EQ(create(1, 4, 4), kOk);
  EXPECT_EQ(machine_.run(kAttachBacking, AttachBacking{1, Gpu2d::kMostEntries + 1}), kUnspecified);
  EXPECT_EQ(machine_.run(kAttachBacking, AttachBacking{1, kMost}), kUnspecified);
  EXPECT_EQ(machine_.run(kAttachBacking, AttachBacking{1, 2}, uint64_t{kPixels}, uint64_t{64}), kUnspecified);
}

TEST_F(VirtioGpuErrors, RectanglesLieInTheirResource) {
  machine_.make(1, kB8G8R8X8, 16, 8);
  for (const virtio_gpu::Rect rect : {virtio_gpu::Rect{0, 0, 17, 8},
                                      {0, 0, 16, 9},
                                      {1, 0, 16, 8},
                                      {0, 1, 16, 8},
                                      {kMost, 0, 2, 1},
                                      {0, kMost, 1, 2},
                                      {1, 0, kMost, 1},
                                      {0, 1, 1, kMost},
                                      {0x80000000, 0, 0x80000000, 1},
                                      {17, 0, 0, 0}}) {
    EXPECT_EQ(machine_.transfer(1, rect), kInvalidParameter);
    EXPECT_EQ(machine_.flush(1, rect), kInvalidParameter);
    EXPECT_EQ(machine_.scanout(1, rect), kInvalidParameter);
  }
  EXPECT_EQ(machine_.scanout(1, {0, 0, 0, 8}), kInvalidParameter);
  EXPECT_EQ(machine_.scanout(1, {0, 0, 16, 8}, 1), kInvalidScanout);
  EXPECT_EQ(machine_.scanout(2, {0, 0, 16, 8}), kInvalidResource);
  EXPECT_EQ(machine_.flush(2, {0, 0, 16, 8}), kInvalidResource);
  EXPECT_EQ(machine_.transfer(2, {0, 0, 16, 8}), kInvalidResource);
  EXPECT_EQ(machine_.transfer(1, {0, 0, 0, 0}), kOk);
  EXPECT_FALSE(machine_.gpu->in_charge());
}

TEST_F(VirtioGpuErrors, TransfersStayInTheirMemory) {
  machine_.make(1, kB8G8R8X8, 16, 8);
  EXPECT_EQ(machine_.transfer(1, {0, 0, 16, 8}, 1), kInvalidParameter);
  EXPECT_EQ(machine_.transfer(1, {0, 0, 16, 8}, UINT64_MAX), kInvalidParameter);
  EXPECT_EQ(machine_.transfer(1, {0, 0, 4, 2}, 6 * 64 + 48), kOk);  // its last byte is the memory's
  EXPECT_EQ(machine_.transfer(1, {0, 0, 4, 2}, 6 * 64 + 49), kInvalidParameter);
}

TEST_F(VirtioGpuErrors, UnknownAndShortCommandsAreRefused) {
  for (const uint32_t command : {0u, 0x108u, 0x109u, 0x10bu, 0x10cu, 0x10du, 0x200u, 0x207u, 0x300u, kMost})
    EXPECT_EQ(machine_.run(command, Cursor{}), kUnspecified) << command;
  for (const uint32_t command : {kCreate2d, kUnref, kSetScanout, kFlush, kTransferToHost2d, kAttachBacking, kGetEdid})
    EXPECT_EQ(machine_.run(command, uint32_t{1}), kUnspecified) << command;
  machine_.send(0, std::vector<uint8_t>(5));
  EXPECT_EQ(machine_.get<uint32_t>(GpuMachine::kAnswer), kUnspecified);
}

TEST_F(VirtioGpuErrors, AnswersFitTheirRoom) {
  EXPECT_EQ(machine_.send(0, machine_.request(kGetDisplayInfo), 100), 100U);
  EXPECT_EQ(machine_.get<uint8_t>(GpuMachine::kAnswer + 100), 0xcc);
  EXPECT_EQ(machine_.send(0, machine_.request(kGetDisplayInfo), 0), 0U);
  EXPECT_EQ(machine_.driver.status(), 15);
}

TEST_F(VirtioGpuErrors, AnAnswerThatIsNotInRamBreaksTheDeviceUntilAReset) {
  const auto request = machine_.request(kGetDisplayInfo);
  std::memcpy(machine_.host(GpuMachine::kRequest), request.data(), request.size());
  machine_.rings[0]->add(
      {{GpuMachine::kRequest, static_cast<uint32_t>(request.size()), false}, {uint64_t{1} << 36, 512, true}});
  machine_.driver.kick(0);
  machine_.settle();
  EXPECT_NE(machine_.driver.status() & virtio::kNeedsReset, 0);
  machine_.set_up();
  EXPECT_EQ(machine_.run(kGetDisplayInfo), 0x1101U);
}

// --- how much it takes

TEST(VirtioGpuMemory, ResourcesTakeNoMoreThanTheyMay) {
  GpuMachine machine({.name = "gpu", .max_bytes = 1 << 20});
  machine.set_up();
  const auto create = [&](uint32_t id, uint32_t width, uint32_t height) {
    return machine.run(kCreate2d, Create2d{id, kB8G8R8X8, width, height});
  };
  EXPECT_EQ(create(1, 512, 512), kOutOfMemory);  // what it costs to keep it does not fit
  EXPECT_EQ(create(1, 16384, 16384), kOutOfMemory);
  EXPECT_EQ(create(1, 512, 256), kOk);
  EXPECT_EQ(create(2, 512, 256), kOutOfMemory);
  EXPECT_EQ(create(2, 512, 255), kOk);
  EXPECT_EQ(create(3, 512, 1), kOutOfMemory);
  EXPECT_EQ(machine.run(kUnref, Unref{1, 0}), kOk);
  EXPECT_EQ(create(3, 512, 256), kOk);
}

TEST(VirtioGpuMemory, ManySmallResourcesAndListsAreCounted) {
  VirtioMachine machine;
  constexpr uint64_t kLimit = 1 << 20;
  Gpu2d gpu(machine.guest_memory, kLimit);
  uint32_t made = 0;
  while (gpu.create({.resource = made + 1, .format = kB8G8R8X8, .width = 1, .height = 1}) == Response::kOk) ++made;
  EXPECT_LE(made, kLimit / Gpu2d::kResourceBytes);
  EXPECT_LE(gpu.used(), kLimit);
  machine.memory.commit();
  for (uint32_t id = 1; id <= 1500; ++id) ASSERT_EQ(gpu.unref(id), Response::kOk);
  const std::vector<SgEntry> list(Gpu2d::kMostEntries, {.address = 0x1000, .bytes = 16});
  uint32_t attached = 1501;
  while (gpu.attach(attached, list) == Response::kOk) ++attached;
  EXPECT_LE(attached, 1503U);
  EXPECT_LE(gpu.used(), kLimit);
  EXPECT_EQ(gpu.attach(attached, std::vector<SgEntry>(Gpu2d::kMostEntries + 1)), Response::kUnspecified);
}

// --- resets and saved state

TEST_F(VirtioGpuErrors, AResetForgetsAll) {
  machine_.make(1, kB8G8R8X8, 16, 8);
  ASSERT_EQ(machine_.scanout(1, {0, 0, 16, 8}), kOk);
  EXPECT_TRUE(machine_.gpu->in_charge());
  machine_.driver.set_status(0);
  EXPECT_FALSE(machine_.gpu->in_charge());
  machine_.look();
  EXPECT_EQ(machine_.mode, Mode::kBlank);
  machine_.set_up();
  EXPECT_EQ(machine_.flush(1, {0, 0, 16, 8}), kInvalidResource);
  EXPECT_EQ(create(1, 16, 8), kOk);
}

// A resource with its memory, one without, a screen that shows a part of the first, and a cursor.
void fill(GpuMachine& machine) {
  machine.make(1, kR8G8B8X8, 128, 96, kPixels, 4);
  for (uint32_t i = 0; i < 128 * 96; ++i) machine.put(kPixels + i * 4, i * 2654435761u);
  ASSERT_EQ(machine.transfer(1, {0, 0, 128, 96}), kOk);
  ASSERT_EQ(machine.run(kCreate2d, Create2d{70000, kA8R8G8B8, 3, 5}), kOk);
  machine.make(2, kB8G8R8A8, kCursorSide, kCursorSide);
  ASSERT_EQ(machine.transfer(2, {0, 0, kCursorSide, kCursorSide}), kOk);
  machine.cursor(kUpdateCursor, {.scanout = 0, .x = 40, .y = 30, .resource = 2});
  ASSERT_EQ(machine.scanout(1, {8, 16, 100, 80}), kOk);
}

TEST_F(VirtioGpuErrors, StateTravels) {
  fill(machine_);
  GpuMachine target;
  move_state(machine_, target);
  const display::Surface& surface = target.look();
  EXPECT_EQ(target.mode, Mode::kGraphics);
  ASSERT_EQ(surface.width(), 100U);
  ASSERT_EQ(surface.height(), 80U);
  EXPECT_TRUE(std::ranges::equal(surface.pixels(), machine_.look().pixels()));
  EXPECT_NE(surface.row(79)[99], 0U);
}

TEST_F(VirtioGpuErrors, AStateThatTakesMoreThanAllowedIsRefused) {
  machine_.make(1, kB8G8R8X8, 512, 300);
  GpuMachine target({.name = "gpu", .max_bytes = 512 << 10});
  target.set_up();
  ASSERT_EQ(target.run(kCreate2d, Create2d{5, kB8G8R8X8, 4, 4}), kOk);
  const auto before = saved_state(*target.function);
  EXPECT_FALSE(restore_state(*target.function, saved_state(*machine_.function)));
  EXPECT_EQ(saved_state(*target.function), before);
}

TEST_F(VirtioGpuErrors, DamagedStateIsRefused) {
  fill(machine_);
  const auto state = saved_state(*machine_.function);
  EXPECT_FALSE(restore_state(*machine_.function, with_patched_field(state, 1, 0, 17, 8)));  // the length of all
  EXPECT_FALSE(restore_state(*machine_.function, with_patched_field(state, 1, 0, UINT64_MAX, 8)));
  EXPECT_FALSE(restore_state(*machine_.function, with_patched_field(state, 2, 0, 2, 1)));
  EXPECT_EQ(saved_state(*machine_.function), state);
}

class Gpu2dStateTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kLimit = 1 << 20;
  Gpu2dStateTest() {
    machine_.memory.commit();
    EXPECT_EQ(source_.create({.resource = 5, .format = kB8G8R8X8, .width = 4, .height = 2}), Response::kOk);
    EXPECT_EQ(source_.attach(5, {{.address = kPixels, .bytes = 12}, {.address = kPixels + 12, .bytes = 20}}),
              Response::kOk);
    EXPECT_EQ(source_.set_scanout({.rect = {1, 0, 3, 2}, .scanout = 0, .resource = 5}), Response::kOk);
    source_.move_cursor({.scanout = 0, .x = 7, .y = 9});
    bytes_ = source_.save();
  }
  bool restores(const std::vector<uint8_t>& bytes) { return Gpu2d(machine_.guest_memory, kLimit).restore(bytes); }
  template <class T>
  bool restores_with(size_t at, T value) {
    std::vector<uint8_t> bytes = bytes_;
    store(&bytes[at], value);
    return restores(bytes);
  }
  // Where these lie.
  static constexpr size_t kShown = 1, kRectX = 5, kRectWidth = 13, kCursorPixels = 29, kCount = 33, kResource = 37,
                          kFormat = kResource + 4, kWidthAt = kResource + 8, kAttached = kResource + 16,
                          kEntries = kResource + 17, kFirstEntry = kResource + 21;

  VirtioMachine machine_;
  Gpu2d source_{machine_.guest_memory, kLimit};
  std::vector<uint8_t> bytes_;
};

TEST_F(Gpu2dStateTest, ACopyGoesOn) {
  Gpu2d copy(machine_.guest_memory, kLimit);
  ASSERT_TRUE(copy.restore(bytes_));
  EXPECT_EQ(copy.used(), source_.used());
  EXPECT_EQ(copy.save(), bytes_);
  machine_.put(kPixels + 28, uint32_t{0x123456});
  ASSERT_EQ(copy.transfer({.rect = {0, 0, 4, 2}, .offset = 0, .resource = 5, .padding = 0}), Response::kOk);
  display::Surface surface;
  copy.draw(surface, true);
  EXPECT_EQ(surface.row(1)[2], 0x123456U);
}

TEST_F(Gpu2dStateTest, TheImpossibleIsRefused) {
  ASSERT_TRUE(restores(bytes_));
  EXPECT_FALSE(restores_with(0, uint8_t{2}));
  EXPECT_FALSE(restores_with(0, uint8_t{0}));                 // a screen that nobody has
  EXPECT_FALSE(restores_with(kShown, uint32_t{6}));           // of no resource
  EXPECT_FALSE(restores_with(kShown, uint32_t{0}));           // off, and has a size
  EXPECT_FALSE(restores_with(kRectX, uint32_t{2}));           // reaches over its resource
  EXPECT_FALSE(restores_with(kRectX, UINT32_MAX));            //
  EXPECT_FALSE(restores_with(kRectWidth, uint32_t{0}));       //
  EXPECT_FALSE(restores_with(kCursorPixels, uint32_t{1}));    //
  EXPECT_FALSE(restores_with(kCursorPixels, UINT32_MAX));     //
  EXPECT_FALSE(restores_with(kCount, uint32_t{2}));           //
  EXPECT_FALSE(restores_with(kCount, uint32_t{0}));           //
  EXPECT_FALSE(restores_with(kResource, uint32_t{0}));        //
  EXPECT_FALSE(restores_with(kFormat, uint32_t{9}));          //
  EXPECT_FALSE(restores_with(kWidthAt, uint32_t{5}));         // more pixels than there are
  EXPECT_FALSE(restores_with(kWidthAt, uint32_t{16384}));     //
  EXPECT_FALSE(restores_with(kWidthAt, UINT32_MAX));          //
  EXPECT_FALSE(restores_with(kAttached, uint8_t{0}));         // no memory, and a list of it
  EXPECT_FALSE(restores_with(kEntries, uint32_t{3}));         //
  EXPECT_FALSE(restores_with(kEntries, UINT32_MAX));          //
  EXPECT_FALSE(restores_with(kFirstEntry, UINT64_MAX));       // past the end of addresses
  EXPECT_FALSE(restores_with(kFirstEntry + 8, uint32_t{0}));  // empty
  auto longer = bytes_;
  longer.push_back(0);
  EXPECT_FALSE(restores(longer));
  for (size_t size = 0; size < bytes_.size(); ++size)
    EXPECT_FALSE(restores({bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(size)})) << size;
}

// What is taken in spite of damage works.
TEST_F(Gpu2dStateTest, DamageIsRefusedOrHarmless) {
  for (size_t at = 0; at < bytes_.size(); ++at)
    for (const uint8_t value : {uint8_t{0}, uint8_t{1}, uint8_t{0x7f}, uint8_t{0xff}}) {
      auto bytes = bytes_;
      bytes[at] = value;
      Gpu2d copy(machine_.guest_memory, kLimit);
      if (!copy.restore(bytes)) continue;
      EXPECT_LE(copy.used(), kLimit);
      display::Surface surface;
      copy.draw(surface, true);
      copy.transfer({.rect = {0, 0, 4, 2}, .offset = 0, .resource = 5, .padding = 0});
      copy.detach(5);
      copy.unref(5);
    }
}

}  // namespace
}  // namespace kite::devices
