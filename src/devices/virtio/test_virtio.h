// What the tests of virtio devices share: a machine with one virtio function, a disk whose errors the test decides, and
// a driver that plays the guest's side of both kinds of rings.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block/drive.h"
#include "bus/pci.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "devices/virtio/virtio_pci.h"
#include "support/bits.h"

namespace kite::testing {

// A disk in memory that fails or ends requests late when it is told to.
class TestDisk final : public block::BlockNode {
 public:
  TestDisk(Executor& executor, uint64_t bytes)
      : BlockNode(executor, "test", {.name = "test", .discard_unmap = true}), data(bytes), executor_(executor) {}
  [[nodiscard]] uint64_t length() const override { return data.size(); }

  std::vector<uint8_t> data;
  int error = 0;      // errno of every request; 0: they succeed
  unsigned late = 0;  // passes of the executor that a read or write takes
  unsigned flushes = 0, fua_writes = 0, discards = 0, unmaps = 0;

 protected:
  Task<block::IoResult<>> do_read(uint64_t offset, block::IoSlice to, block::IoHow) override {
    for (unsigned i = 0; i < late; ++i) co_await executor_.schedule();
    if (error != 0) co_return block::io_fail(error);
    to.copy_from(data.data() + offset);
    co_return block::IoResult<>{};
  }
  Task<block::IoResult<>> do_write(uint64_t offset, block::IoSlice from, block::IoHow how) override {
    for (unsigned i = 0; i < late; ++i) co_await executor_.schedule();
    if (error != 0) co_return block::io_fail(error);
    from.copy_to(data.data() + offset);
    fua_writes += how.has(block::IoHow::kFua);
    co_return block::IoResult<>{};
  }
  Task<block::IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, block::IoHow how) override {
    if (error != 0) co_return block::io_fail(error);
    std::fill_n(data.begin() + static_cast<ptrdiff_t>(offset), bytes, uint8_t{0});
    unmaps += how.has(block::IoHow::kMayUnmap);
    co_return block::IoResult<>{};
  }
  Task<block::IoResult<>> do_discard(uint64_t, uint64_t, block::IoHow) override {
    ++discards;
    co_return block::IoResult<>{};
  }
  Task<block::IoResult<>> do_flush(block::IoHow) override {
    ++flushes;
    co_return error != 0 ? block::IoResult<>(block::io_fail(error)) : block::IoResult<>{};
  }

 private:
  Executor& executor_;
};

// RAM, a PCI bus, an executor that runs by hand.
class VirtioMachine {
 public:
  static constexpr uint64_t kRam = 4 << 20;
  static constexpr uint64_t kModern = 0xe0000000, kMsix = 0xe0010000, kPorts = 0xc000, kMessages = 0xfee00000;
  static constexpr uint8_t kSlot = 4;

  VirtioMachine() {
    auto made = Executor::create("test");
    EXPECT_TRUE(made);
    executor = std::move(*made);
    auto block = RamBlock::create("ram", kRam);
    EXPECT_TRUE(block);
    ram = *block;
    memory.root().add(0, Region::ram("ram", ram));
  }

  // Puts the function on the bus, its BARs where the constants say, and starts it.
  void attach(devices::VirtioPci& function) {
    EXPECT_TRUE(bus.attach(function, kSlot, 0));
    function.reset();
    function.config_write(0x10, 4, kPorts);
    function.config_write(0x14, 4, kMsix);
    function.config_write(0x20, 4, kModern);
    function.config_write(0x24, 4, 0);
    function.config_write(bus::pci::kCommand, 2, 7);
    function.start();
  }
  // Until nothing is left to be done.
  void settle() {
    memory.commit();
    for (int i = 0; i < 40; ++i) executor->run_once(0);
  }
  uint64_t load(uint64_t address, unsigned size) { return memory.in(address, size); }
  void store(uint64_t address, uint64_t value, unsigned size) { memory.out(address, value, size); }
  [[nodiscard]] uint8_t* host(uint64_t address) const { return ram->host() + address; }
  // A number that the guest wrote into its memory.
  template <class T>
  void put(uint64_t address, T value) const {
    kite::store(host(address), value);
  }
  template <class T>
  [[nodiscard]] T get(uint64_t address) const {
    return kite::load<T>(host(address));
  }

  struct Messages final : bus::MsiSink {
    bool send_msi(uint64_t, uint32_t data) override {
      ++sent[data];
      return true;
    }
    std::map<uint32_t, int> sent;  // by data
  };

  TestSpace memory{uint64_t{1} << 40}, ports;
  GuestMemory guest_memory{memory.space()};
  std::shared_ptr<RamBlock> ram;
  std::unique_ptr<Executor> executor;
  FakeLines lines;
  Messages messages;
  bus::PciBus bus{memory.root(), ports.root(), lines, {.msi = &messages}};
};

struct TestBuffer {
  uint64_t address = 0;
  uint32_t bytes = 0;
  bool write = false;  // by the device
};
struct TestUsed {
  uint32_t id = 0, written = 0;
};

// One queue as a driver plays it.
class TestRing {
 public:
  TestRing(VirtioMachine& machine, uint64_t at, uint16_t size, bool packed)
      : machine_(machine), packed_(packed), size_(size), table(at), driver(at + 0x4000), device(at + 0x5000) {
    std::memset(machine_.host(at), 0, 0x6000);
    for (uint16_t i = 0; i < size; ++i) free_.push_back(static_cast<uint16_t>(size - 1 - i));
  }

  // Makes a request available; answers its id. `indirect`: in a table of its own at that address.
  uint16_t add(const std::vector<TestBuffer>& buffers, uint64_t indirect = 0) {
    return packed_ ? add_packed(buffers, indirect) : add_split(buffers, indirect);
  }
  std::optional<TestUsed> take() { return packed_ ? take_packed() : take_split(); }
  // Split: a descriptor as it is.
  void put_descriptor(uint64_t table_at, unsigned index, uint64_t address, uint32_t length, uint16_t flags,
                      uint16_t next) const {
    machine_.put(table_at + index * 16u, address);
    machine_.put(table_at + index * 16u + 8, length);
    machine_.put(table_at + index * 16u + 12, flags);
    machine_.put(table_at + index * 16u + 14, next);
  }
  // Split: makes a head available, whatever it is.
  void publish(uint16_t head) {
    machine_.put(driver + 4 + (available_ % size_) * 2u, head);
    machine_.put(driver + 2, ++available_);
  }
  [[nodiscard]] uint64_t used_event() const { return driver + 4 + size_ * 2u; }
  [[nodiscard]] uint64_t avail_event() const { return device + 4 + size_ * 8u; }
  [[nodiscard]] uint16_t size() const { return size_; }

 private:
  uint16_t add_split(const std::vector<TestBuffer>& buffers, uint64_t indirect) {
    const uint64_t to = indirect != 0 ? indirect : table;
    std::vector<uint16_t> slots;
    for (size_t i = 0; i < (indirect != 0 ? 1 : buffers.size()); ++i) {
      slots.push_back(free_.back());
      free_.pop_back();
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto place = indirect != 0 ? static_cast<uint16_t>(i) : slots[i];
      const auto next = last ? uint16_t{0} : indirect != 0 ? static_cast<uint16_t>(i + 1) : slots[i + 1];
      put_descriptor(to, place, buffers[i].address, buffers[i].bytes,
                     static_cast<uint16_t>((last ? 0 : 1) | (buffers[i].write ? 2 : 0)), next);
    }
    if (indirect != 0) put_descriptor(table, slots[0], indirect, static_cast<uint32_t>(buffers.size() * 16), 4, 0);
    const uint16_t head = slots[0];
    chains_[head] = std::move(slots);
    publish(head);
    return head;
  }
  std::optional<TestUsed> take_split() {
    if (machine_.get<uint16_t>(device + 2) == used_) return {};
    const uint64_t at = device + 4 + (used_++ % size_) * 8u;
    const TestUsed used{machine_.get<uint32_t>(at), machine_.get<uint32_t>(at + 4)};
    for (const uint16_t slot : chains_[static_cast<uint16_t>(used.id)]) free_.push_back(slot);
    return used;
  }

  uint16_t add_packed(const std::vector<TestBuffer>& buffers, uint64_t indirect) {
    const uint16_t id = free_.back();
    free_.pop_back();
    if (indirect != 0) {
      for (size_t i = 0; i < buffers.size(); ++i)
        put_descriptor(indirect, static_cast<unsigned>(i), buffers[i].address, buffers[i].bytes, 0,
                       buffers[i].write ? 2 : 0);
      counts_[id] = 1;
      put_packed({.address = indirect, .bytes = static_cast<uint32_t>(buffers.size() * 16)}, id, 4);
      return id;
    }
    counts_[id] = static_cast<uint16_t>(buffers.size());
    for (size_t i = 0; i < buffers.size(); ++i)
      put_packed(buffers[i], id, static_cast<uint16_t>((i + 1 == buffers.size() ? 0 : 1) | (buffers[i].write ? 2 : 0)));
    return id;
  }
  void put_packed(const TestBuffer& buffer, uint16_t id, uint16_t flags) {
    flags = static_cast<uint16_t>(flags | (wrap_ ? 0x80 : 0x8000));
    put_descriptor(table, available_, buffer.address, buffer.bytes, id, flags);
    if (++available_ == size_) available_ = 0, wrap_ = !wrap_;
  }
  std::optional<TestUsed> take_packed() {
    const uint64_t at = table + used_ * 16u;
    const auto flags = machine_.get<uint16_t>(at + 14);
    if (((flags & 0x80) != 0) != used_wrap_ || ((flags & 0x8000) != 0) != used_wrap_) return {};
    const TestUsed used{machine_.get<uint16_t>(at + 12), machine_.get<uint32_t>(at + 8)};
    const auto id = static_cast<uint16_t>(used.id);
    used_ = static_cast<uint16_t>(used_ + counts_[id]);
    if (used_ >= size_) used_ = static_cast<uint16_t>(used_ - size_), used_wrap_ = !used_wrap_;
    free_.push_back(id);
    return used;
  }

  VirtioMachine& machine_;
  bool packed_;
  uint16_t size_;
  std::vector<uint16_t> free_;
  std::map<uint16_t, std::vector<uint16_t>> chains_;  // split: by head
  std::map<uint16_t, uint16_t> counts_;               // packed: by id
  uint16_t available_ = 0, used_ = 0;
  bool wrap_ = true, used_wrap_ = true;

 public:
  const uint64_t table, driver, device;
};

// The modern interface of the function of a VirtioMachine.
class TestDriver {
 public:
  // `common` is where the common configuration lies.
  explicit TestDriver(VirtioMachine& machine, uint64_t common = VirtioMachine::kModern)
      : machine_(machine), common_(common) {}
  uint64_t read(uint8_t at, unsigned size) { return machine_.load(common_ + at, size); }
  void write(uint8_t at, uint64_t value, unsigned size) { machine_.store(common_ + at, value, size); }
  uint64_t config(uint32_t at, unsigned size) { return machine_.load(VirtioMachine::kModern + 0x2000 + at, size); }
  uint8_t isr() { return static_cast<uint8_t>(machine_.load(VirtioMachine::kModern + 0x1000, 1)); }
  uint8_t status() { return static_cast<uint8_t>(read(0x14, 1)); }
  void set_status(uint8_t status) { write(0x14, status, 1); }
  uint64_t features() {
    write(0, 0, 4);
    const uint64_t low = read(4, 4);
    write(0, 1, 4);
    return low | read(4, 4) << 32;
  }
  // Resets and offers these; false: the device does not take them.
  bool negotiate(uint64_t features) {
    set_status(0);
    set_status(1);
    set_status(3);
    write(8, 0, 4);
    write(0xc, features & 0xffffffff, 4);
    write(8, 1, 4);
    write(0xc, features >> 32, 4);
    set_status(11);
    return status() == 11;
  }
  void set_queue(uint16_t index, const TestRing& ring, uint16_t vector = 0xffff) {
    write(0x16, index, 2);
    write(0x18, ring.size(), 2);
    write(0x1a, vector, 2);
    write(0x20, ring.table, 4);
    write(0x24, 0, 4);
    write(0x28, ring.driver, 4);
    write(0x2c, 0, 4);
    write(0x30, ring.device, 4);
    write(0x34, 0, 4);
    write(0x1c, 1, 2);
  }
  void ready() { set_status(15); }
  void kick(uint16_t queue = 0) { machine_.store(VirtioMachine::kModern + 0x3000 + 4u * queue, queue, 2); }
  // MSI-X vector `vector` sends `vector` + 1.
  void use_msix(devices::VirtioPci& function, unsigned vectors) {
    for (unsigned vector = 0; vector < vectors; ++vector) {
      machine_.store(VirtioMachine::kMsix + vector * 16, VirtioMachine::kMessages, 4);
      machine_.store(VirtioMachine::kMsix + vector * 16 + 8, vector + 1, 4);
      machine_.store(VirtioMachine::kMsix + vector * 16 + 12, 0, 4);
    }
    function.config_write(static_cast<uint16_t>(function.find_capability(0x11) + 2), 2, 0x8000);
  }

 private:
  VirtioMachine& machine_;
  uint64_t common_;
};

// Two machines alike with a `function`: the target goes on where the source was.
template <class Machine>
void move_state(Machine& source, Machine& target) {
  source.function->stop();
  const auto state = saved_state(*source.function);
  target.function->stop();
  std::memcpy(target.ram->host(), source.ram->host(), VirtioMachine::kRam);
  const auto restored = restore_state(*target.function, state);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(saved_state(*target.function), state);
  target.function->start();
  target.settle();
}

}  // namespace kite::testing
