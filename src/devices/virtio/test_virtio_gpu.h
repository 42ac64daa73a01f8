// What the tests of the virtio graphics cards share: a machine with one, and a driver that sends its commands.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/test_virtio.h"
#include "devices/virtio/virtio_gpu.h"
#include "display/console.h"

namespace kite::testing {

struct GpuMachine : VirtioMachine {
  static constexpr uint64_t kRings = 0x10000, kRingEach = 0x8000, kRequest = 0x80000, kAnswer = 0xa0000,
                            kPixels = 0x100000;
  static constexpr uint16_t kRingSize = 8;

  explicit GpuMachine(devices::VirtioGpu::Config config = {.name = "gpu", .xres = 640, .yres = 480},
                      display::Console* console = nullptr) {
    auto made = std::make_unique<devices::VirtioGpu>(std::move(config), console, guest_memory, *executor,
                                                     devices::VirtioDevice::Options{});
    gpu = made.get();
    const devices::VirtioPci::Config transport{
        .legacy = false, .vectors = 3, .class_code = devices::virtio_gpu::kClass};
    function = std::make_unique<devices::VirtioPci>("gpu", transport, std::move(made));
    attach(*function);
  }
  ~GpuMachine() {
    function->stop();
    settle();
    function.reset();
  }

  void set_up(uint64_t features = devices::virtio_gpu::kEdid) {
    ASSERT_TRUE(driver.negotiate(devices::virtio::kVersion1 | features));
    for (uint16_t queue = 0; queue < 2; ++queue) {
      rings[queue].emplace(*this, kRings + queue * kRingEach, kRingSize, false);
      driver.set_queue(queue, *rings[queue]);
    }
    driver.ready();
    settle();
  }
  // Sends these bytes, with room for `room` bytes of an answer; how many came.
  uint32_t send(uint16_t queue, std::span<const uint8_t> request, uint32_t room = 2048) {
    std::memset(host(kAnswer), 0xcc, 2048);
    std::memcpy(host(kRequest), request.data(), request.size());
    std::vector<TestBuffer> buffers{{.address = kRequest, .bytes = static_cast<uint32_t>(request.size())}};
    if (room != 0) buffers.push_back({.address = kAnswer, .bytes = room, .write = true});
    rings[queue]->add(buffers);
    driver.kick(queue);
    settle();
    const auto used = rings[queue]->take();
    EXPECT_TRUE(used);
    return used ? used->written : 0;
  }
  template <class... Body>
  static std::vector<uint8_t> request(uint32_t type, const Body&... body) {
    const devices::virtio_gpu::Header header{
        .type = type, .flags = 0, .fence = 0, .context = 0, .ring = 0, .padding = {}};
    std::vector<uint8_t> bytes;
    const auto put = [&bytes](const auto& part) {
      const auto* const from = reinterpret_cast<const uint8_t*>(&part);
      bytes.insert(bytes.end(), from, from + sizeof part);
    };
    put(header);
    (put(body), ...);
    return bytes;
  }
  // Carries a command out; the answer's type.
  template <class... Body>
  uint32_t run(uint32_t type, const Body&... body) {
    send(0, request(type, body...));
    return get<uint32_t>(kAnswer);
  }
  void cursor(uint32_t type, const devices::virtio_gpu::Cursor& body) {
    EXPECT_EQ(send(1, request(type, body), 0), 0U);
  }

  // A resource with its memory at `address`, in `pieces` parts of the same size.
  void make(uint32_t id, uint32_t format, uint32_t width, uint32_t height, uint64_t address = kPixels,
            uint32_t pieces = 1) {
    using namespace devices::virtio_gpu;  // NOLINT: the protocol
    ASSERT_EQ(run(kCreate2d, Create2d{id, format, width, height}), kOk);
    ASSERT_EQ(attach(id, address, width * height * kPixelBytes, pieces), kOk);
  }
  uint32_t attach(uint32_t id, uint64_t address, uint32_t bytes, uint32_t pieces = 1) {
    using namespace devices::virtio_gpu;  // NOLINT: the protocol
    std::vector<uint8_t> bytes_of = request(kAttachBacking, AttachBacking{id, pieces});
    for (uint32_t piece = 0; piece < pieces; ++piece) {
      const uint64_t entry[2] = {address + uint64_t{piece} * (bytes / pieces), bytes / pieces};
      const auto* const from = reinterpret_cast<const uint8_t*>(entry);
      bytes_of.insert(bytes_of.end(), from, from + sizeof entry);
    }
    send(0, bytes_of);
    return get<uint32_t>(kAnswer);
  }
  using VirtioMachine::attach;
  uint32_t transfer(uint32_t id, devices::virtio_gpu::Rect rect, uint64_t offset = 0) {
    return run(devices::virtio_gpu::kTransferToHost2d, devices::virtio_gpu::TransferToHost2d{rect, offset, id, 0});
  }
  uint32_t scanout(uint32_t id, devices::virtio_gpu::Rect rect, uint32_t number = 0) {
    return run(devices::virtio_gpu::kSetScanout, devices::virtio_gpu::SetScanout{rect, number, id});
  }
  uint32_t flush(uint32_t id, devices::virtio_gpu::Rect rect) {
    return run(devices::virtio_gpu::kFlush, devices::virtio_gpu::Flush{rect, id, 0});
  }
  // A picture of the screen as it is.
  const display::Surface& look() {
    surface.resize(1, 1);
    mode = gpu->draw(surface, true);
    return surface;
  }
  uint32_t pixel(uint32_t x, uint32_t y) { return y < look().height() ? surface.row(y)[x] : ~0u; }

  static constexpr uint32_t kOk = 0x1100, kUnspecified = 0x1200, kOutOfMemory = 0x1201, kInvalidScanout = 0x1202,
                            kInvalidResource = 0x1203, kInvalidParameter = 0x1205;

  devices::VirtioGpu* gpu = nullptr;
  std::unique_ptr<devices::VirtioPci> function;
  TestDriver driver{*this};
  std::optional<TestRing> rings[2];
  display::Surface surface;
  display::Mode mode = display::Mode::kBlank;
};

}  // namespace kite::testing
