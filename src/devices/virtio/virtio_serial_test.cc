#include "devices/virtio/virtio_serial.h"

#include <deque>
#include <random>

#include "devices/virtio/test_virtio.h"
#include "devices/virtio/virtio_serial_port.h"

namespace kite::devices {
namespace {

using namespace virtio_serial;
using namespace virtio;
using namespace testing;  // NOLINT: the machine and the driver

constexpr uint64_t kData = 0x200000, kControlData = 0x280000;
constexpr uint16_t kRingSize = 8;
constexpr uint32_t kPortCount = 4;

// The host's end of a port. It reads no more than the client can take, and looks again when it is told to.
class TestChardev final : public Chardev {
 public:
  explicit TestChardev(Executor& executor) : Chardev("test"), executor_(executor) {}
  [[nodiscard]] std::string filename() const override { return "test"; }
  void set_client(ChardevClient* client) override {
    client_ = client;
    if (client_ != nullptr && open) client_->event(ChardevEvent::kOpened);
  }
  size_t write(std::span<const uint8_t> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    room -= taken;
    output.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    return taken;
  }
  void accept_input() override {
    executor_.post([this] { feed(); });
  }
  [[nodiscard]] bool is_open() const override { return open; }
  void type(std::string_view text) {
    input += text;
    accept_input();
  }
  void set_open(bool now) {
    open = now;
    client_->event(now ? ChardevEvent::kOpened : ChardevEvent::kClosed);
  }
  void give_room(size_t bytes) {
    room = bytes;
    client_->writable();
  }

  bool open = true;
  size_t room = SIZE_MAX;
  std::string output, input;

 private:
  void feed() {
    while (client_ != nullptr && !input.empty()) {
      const size_t count = std::min(client_->can_receive(), input.size());
      if (count == 0) return;
      const std::string part = input.substr(0, count);
      input.erase(0, count);
      client_->received({reinterpret_cast<const uint8_t*>(part.data()), part.size()});
    }
  }
  Executor& executor_;
  ChardevClient* client_ = nullptr;
};

struct Message {
  uint32_t port;
  uint16_t event, value;
  std::string name = {};
  bool operator==(const Message&) const = default;
};
void PrintTo(const Message& message, std::ostream* to) {
  *to << "port " << message.port << " event " << message.event << " value " << message.value << " " << message.name;
}

struct SerialMachine : VirtioMachine {
  explicit SerialMachine(uint32_t ports = kPortCount) {
    const VirtioPci::Config transport{.vectors = 2, .legacy_device_id = kLegacyDeviceId, .class_code = kClass};
    auto made =
        std::make_unique<VirtioSerial>(VirtioSerial::Config{.name = "serial", .bus_name = "serial.0", .ports = ports},
                                       guest_memory, *executor, VirtioDevice::Options{.packed = true});
    serial = made.get();
    function = std::make_unique<VirtioPci>("serial", transport, std::move(made));
    attach(*function);
  }
  ~SerialMachine() {
    ports_there.clear();
    function->stop();
    settle();
    function.reset();
  }
  // Port 0 is a console, the others have names.
  VirtioSerialPort& add_port(uint32_t number, TestChardev* chardev) {
    const std::string path = "port" + std::to_string(number);
    VirtioSerialPort::Config config{.console = number == 0, .chardev = chardev, .changed = [this, number](bool open) {
                                      changes.emplace_back(number, open);
                                    }};
    if (number != 0) config.name = "org.kite." + std::to_string(number);
    ports_there.push_back(std::make_unique<VirtioSerialPort>(path, std::move(config)));
    ports_there.back()->plug_into(*serial, number);
    return *ports_there.back();
  }
  TestRing& ring(uint16_t queue) { return *rings.at(queue); }
  void set_up(bool packed = false, uint64_t features = kMultiport) {
    ASSERT_TRUE(driver.negotiate(kVersion1 | (packed ? kRingPacked : 0) | features));
    rings.clear();
    for (uint16_t queue = 0; queue < (features == 0 ? 2 : queues_of(kPortCount)); ++queue) {
      rings.emplace(queue, std::make_unique<TestRing>(*this, 0x10000 + queue * 0x8000, kRingSize, packed));
      driver.set_queue(queue, ring(queue));
    }
    driver.ready();
    settle();
    for (unsigned i = 0; i < kRingSize && features != 0; ++i) offer_control();
  }
  void offer_control() {
    const uint64_t at = kControlData + (control_offered++ % kRingSize) * 64;
    ring(kControlReceive).add({{.address = at, .bytes = 64, .write = true}});
    driver.kick(kControlReceive);
    settle();
  }
  // What the device has said; as many buffers are offered again.
  std::vector<Message> heard() {
    std::vector<Message> all;
    while (const auto used = ring(kControlReceive).take()) {
      const uint64_t at = kControlData + (control_read++ % kRingSize) * 64;
      all.push_back({get<uint32_t>(at), get<uint16_t>(at + 4), get<uint16_t>(at + 6)});
      all.back().name.assign(reinterpret_cast<const char*>(host(at + 8)), used->written - kMessageBytes);
    }
    for (size_t i = 0; i < all.size(); ++i) offer_control();
    return all;
  }
  void say(uint32_t port, uint16_t event, uint16_t value) {
    const uint64_t at = kControlData + 0x1000;
    put(at, port);
    put(at + 4, event);
    put(at + 6, value);
    ring(kControlTransmit).add({{.address = at, .bytes = 8}});
    driver.kick(kControlTransmit);
    settle();
    EXPECT_TRUE(ring(kControlTransmit).take());
  }
  // A driver that takes every port and opens it.
  void open_all() {
    say(0, kDeviceReady, 1);
    for (const Message& message : heard())
      if (message.event == kPortAdd) {
        say(message.port, kPortReady, 1);
        say(message.port, kPortOpen, 1);
      }
    heard();
  }
  void send(uint32_t port, std::string_view text) {
    const uint64_t at = kData + sends++ % 16 * 0x1000;
    std::memcpy(host(at), text.data(), text.size());
    ring(transmit_queue(port)).add({{.address = at, .bytes = static_cast<uint32_t>(text.size())}});
    driver.kick(transmit_queue(port));
    settle();
  }
  void offer(uint32_t port, uint32_t bytes) {
    ring(receive_queue(port)).add({{.address = kData + 0x10000, .bytes = bytes, .write = true}});
    driver.kick(receive_queue(port));
    settle();
  }
  // What came into the buffer that was offered; "" when nothing did.
  std::string received(uint32_t port) {
    const auto used = ring(receive_queue(port)).take();
    return used ? std::string(reinterpret_cast<const char*>(host(kData + 0x10000)), used->written) : "";
  }
  [[nodiscard]] bool broken() { return (driver.status() & kNeedsReset) != 0; }

  VirtioSerial* serial = nullptr;
  std::unique_ptr<VirtioPci> function;
  TestDriver driver{*this};
  std::map<uint16_t, std::unique_ptr<TestRing>> rings;
  std::deque<TestChardev> chardevs;  // outlive the ports
  std::vector<std::unique_ptr<VirtioSerialPort>> ports_there;
  std::vector<std::pair<uint32_t, bool>> changes;
  unsigned control_offered = 0, control_read = 0, sends = 0;
};

class VirtioSerialRings : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioSerialRings, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

// --- ports

TEST_P(VirtioSerialRings, ADriverHearsOfEveryPort) {
  SerialMachine machine;
  TestChardev &console = machine.chardevs.emplace_back(*machine.executor),
              &agent = machine.chardevs.emplace_back(*machine.executor);
  agent.open = false;
  machine.add_port(0, &console);
  machine.add_port(2, &agent);
  machine.set_up(GetParam());
  EXPECT_TRUE(machine.heard().empty());
  machine.say(0, kDeviceReady, 1);
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{0, kPortAdd, 1}, {2, kPortAdd, 1}}));
  machine.say(0, kPortReady, 1);
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{0, kConsolePort, 1}, {0, kPortOpen, 1}}));
  machine.say(2, kPortReady, 1);
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{2, kPortName, 1, "org.kite.2"}}));
  agent.set_open(true);
  machine.settle();
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{2, kPortOpen, 1}}));
  agent.set_open(false);
  machine.settle();
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{2, kPortOpen, 0}}));
  EXPECT_EQ(machine.driver.config(kMostPortsAt, 4), kPortCount);
}

TEST_P(VirtioSerialRings, PortsComeAndGo) {
  SerialMachine machine;
  TestChardev &first = machine.chardevs.emplace_back(*machine.executor),
              &second = machine.chardevs.emplace_back(*machine.executor);
  machine.set_up(GetParam());
  machine.open_all();
  machine.add_port(1, &first);
  machine.settle();
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{1, kPortAdd, 1}}));
  machine.say(1, kPortReady, 1);
  machine.say(1, kPortOpen, 1);
  EXPECT_EQ(machine.changes, (std::vector<std::pair<uint32_t, bool>>{{1, true}}));
  EXPECT_TRUE(first.frontend_open());
  machine.heard();
  machine.offer(1, 100);
  machine.ports_there.clear();
  machine.settle();
  EXPECT_FALSE(first.frontend_open());
  EXPECT_TRUE(machine.ring(receive_queue(1)).take());  // nothing is held for a port that is gone
  machine.add_port(1, &second);
  machine.settle();
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{1, kPortRemove, 1}, {1, kPortAdd, 1}}));
}

TEST(VirtioSerialTest, APortThatNobodyHeardOfGoesSilently) {
  SerialMachine machine;
  machine.set_up();
  machine.add_port(1, nullptr);
  machine.ports_there.clear();
  machine.open_all();
  EXPECT_TRUE(machine.heard().empty());
}

TEST(VirtioSerialTest, NumbersAreGivenOut) {
  SerialMachine machine;
  EXPECT_EQ(machine.serial->number_for({}, false).value(), 1U);
  EXPECT_EQ(machine.serial->number_for({}, true).value(), 0U);
  EXPECT_FALSE(machine.serial->number_for(0, false));
  EXPECT_FALSE(machine.serial->number_for(kPortCount, false));
  for (uint32_t number = 1; number < kPortCount; ++number) machine.add_port(number, nullptr);
  EXPECT_FALSE(machine.serial->number_for(2, false));
  EXPECT_FALSE(machine.serial->has_room(false));
  EXPECT_TRUE(machine.serial->has_room(true));
}

TEST(VirtioSerialTest, APortOutlivesItsController) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.function->stop();
  machine.bus.detach(*machine.function);
  machine.function = std::make_unique<VirtioPci>(
      "other", VirtioPci::Config{.legacy_device_id = kLegacyDeviceId, .class_code = kClass},
      std::make_unique<VirtioSerial>(VirtioSerial::Config{.name = "other"}, machine.guest_memory, *machine.executor,
                                     VirtioDevice::Options{}));
  chardev.type("x");
  chardev.set_open(false);
  machine.settle();
  EXPECT_EQ(chardev.input, "x");
}

// --- data

TEST_P(VirtioSerialRings, BytesGoBothWays) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up(GetParam());
  machine.open_all();
  for (int round = 0; round < 20; ++round) {
    machine.send(1, "to the host");
    EXPECT_TRUE(machine.ring(transmit_queue(1)).take());
    EXPECT_EQ(std::exchange(chardev.output, ""), "to the host");
    machine.offer(1, 100);
    chardev.type("to the guest");
    machine.settle();
    EXPECT_EQ(machine.received(1), "to the guest");
  }
}

TEST_P(VirtioSerialRings, TheHostIsReadAsTheGuestTakes) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up(GetParam());
  machine.open_all();
  chardev.type("abcdefgh");
  machine.settle();
  EXPECT_EQ(chardev.input, "abcdefgh");
  machine.offer(1, 3);
  EXPECT_EQ(machine.received(1), "abc");
  machine.offer(1, 3);
  EXPECT_EQ(machine.received(1), "def");
  machine.offer(1, 3);
  EXPECT_EQ(machine.received(1), "gh");
  EXPECT_TRUE(chardev.input.empty());
}

TEST_P(VirtioSerialRings, TheGuestWaitsForTheHost) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up(GetParam());
  machine.open_all();
  chardev.room = 3;
  machine.send(1, "abcdefgh");
  machine.send(1, "ijk");
  EXPECT_EQ(chardev.output, "abc");
  EXPECT_FALSE(machine.ring(transmit_queue(1)).take());
  chardev.give_room(6);
  machine.settle();
  EXPECT_EQ(chardev.output, "abcdefghi");
  EXPECT_TRUE(machine.ring(transmit_queue(1)).take());
  EXPECT_FALSE(machine.ring(transmit_queue(1)).take());
  chardev.give_room(100);
  machine.settle();
  EXPECT_EQ(chardev.output, "abcdefghijk");
  EXPECT_TRUE(machine.ring(transmit_queue(1)).take());
}

TEST_P(VirtioSerialRings, APortThatTheGuestHasNotOpenedGetsNothing) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up(GetParam());
  machine.open_all();
  machine.say(1, kPortOpen, 0);
  EXPECT_FALSE(chardev.frontend_open());
  machine.offer(1, 100);
  chardev.type("early");
  machine.settle();
  EXPECT_EQ(machine.received(1), "");
  machine.say(1, kPortOpen, 1);
  EXPECT_EQ(machine.received(1), "early");
  EXPECT_EQ(machine.changes, (std::vector<std::pair<uint32_t, bool>>{{1, true}, {1, false}, {1, true}}));
}

TEST_P(VirtioSerialRings, WhatNobodyReadsIsDropped) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  chardev.open = false;
  machine.add_port(1, &chardev);
  machine.add_port(2, nullptr);
  machine.set_up(GetParam());
  machine.open_all();
  for (const uint32_t port : {1U, 2U, 3U}) {  // there is no third
    machine.send(port, "lost");
    EXPECT_TRUE(machine.ring(transmit_queue(port)).take());
  }
  EXPECT_EQ(chardev.output, "");
}

TEST_P(VirtioSerialRings, AStoppedMachineMovesNothing) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up(GetParam());
  machine.open_all();
  machine.offer(1, 100);
  machine.function->stop();
  chardev.type("later");
  machine.settle();
  EXPECT_EQ(machine.received(1), "");
  machine.function->start();
  machine.settle();
  EXPECT_EQ(machine.received(1), "later");
}

TEST_P(VirtioSerialRings, WhatIsHeldTravelsInTheState) {
  SerialMachine source, target;
  TestChardev &from = source.chardevs.emplace_back(*source.executor),
              &to = target.chardevs.emplace_back(*target.executor);
  source.add_port(1, &from);
  target.add_port(1, &to);
  source.set_up(GetParam());
  source.open_all();
  source.offer(1, 100);
  from.room = 3;
  source.send(1, "abcdefgh");
  from.set_open(false);  // the driver has not heard of it when the state is taken
  move_state(source, target);
  EXPECT_EQ(to.output, "defgh");
  EXPECT_TRUE(to.frontend_open());
  to.type("in");
  target.settle();
  EXPECT_EQ(std::memcmp(target.host(kData + 0x10000), "in", 2), 0);
}

TEST(VirtioSerialTest, PortsThatAreOthersAfterwardsAreNews) {
  SerialMachine source, target;
  source.add_port(1, nullptr);
  target.add_port(2, nullptr);
  source.set_up();
  source.open_all();
  source.function->stop();
  target.function->stop();
  std::memcpy(target.ram->host(), source.ram->host(), VirtioMachine::kRam);
  ASSERT_TRUE(restore_state(*target.function, saved_state(*source.function)));
  target.function->start();
  target.settle();
  const uint64_t next = kControlData + source.control_read % kRingSize * 64;
  EXPECT_EQ(target.get<uint16_t>(next + 4), kPortRemove);
  EXPECT_EQ(target.get<uint32_t>(kControlData + (source.control_read + 1) % kRingSize * 64), 2U);
}

TEST_P(VirtioSerialRings, AResetClosesAllPorts) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up(GetParam());
  machine.open_all();
  machine.offer(1, 100);
  chardev.room = 0;
  machine.send(1, "held");
  machine.driver.set_status(0);
  machine.settle();
  EXPECT_EQ(machine.driver.status(), 0);
  EXPECT_FALSE(chardev.frontend_open());
  EXPECT_EQ(machine.changes.back(), (std::pair<uint32_t, bool>{1, false}));
  chardev.give_room(100);
  machine.set_up(GetParam());
  machine.open_all();
  machine.send(1, "new");
  EXPECT_EQ(chardev.output, "new");
}

// --- drivers that know one port

TEST(VirtioSerialTest, WithoutMultiportThereIsThePortZero) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(0, &chardev);
  machine.set_up(false, 0);
  machine.send(0, "out");
  EXPECT_EQ(chardev.output, "out");
  chardev.type("in");
  machine.offer(0, 10);
  EXPECT_EQ(machine.received(0), "in");
}

TEST(VirtioSerialTest, ADeviceOfOnePortOffersNoMore) {
  SerialMachine machine(1);
  EXPECT_EQ(machine.driver.features() & kMultiport, 0U);
  EXPECT_EQ(machine.driver.read(0x12, 2), 2U);
}

TEST(VirtioSerialTest, EmergencyOutputNeedsNoDriver) {
  SerialMachine machine;
  TestChardev &port = machine.chardevs.emplace_back(*machine.executor),
              &console = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &port);
  machine.add_port(0, &console);
  for (const char letter : {'h', 'i'})
    machine.store(VirtioMachine::kModern + 0x2000 + kEmergencyAt, static_cast<uint8_t>(letter), 4);
  EXPECT_EQ(console.output, "hi");
  EXPECT_EQ(port.output, "");
}

// --- what a driver must not do

struct Hostile {
  const char* name;
  uint16_t queue;
  TestBuffer buffer;
};
class VirtioSerialHostile : public ::testing::TestWithParam<Hostile> {};
INSTANTIATE_TEST_SUITE_P(
    Chains, VirtioSerialHostile,
    ::testing::Values(Hostile{"OutputFromNowhere", transmit_queue(1), {0x7000'0000'0000, 8, false}},
                      Hostile{"InputIntoNowhere", receive_queue(1), {0x7000'0000'0000, 8, true}},
                      Hostile{"InputWithoutRoom", receive_queue(1), {kData, 8, false}},
                      Hostile{"ControlFromNowhere", kControlTransmit, {0x7000'0000'0000, 8, false}},
                      Hostile{"ShortControl", kControlTransmit, {kData, 7, false}},
                      Hostile{"ControlWithoutMessage", kControlTransmit, {kData, 8, true}}),
    [](const auto& info) { return info.param.name; });

TEST_P(VirtioSerialHostile, BreaksTheDeviceUntilAReset) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up();
  machine.open_all();
  chardev.type("x");
  machine.settle();
  const auto& [name, queue, buffer] = GetParam();
  machine.ring(queue).add({buffer});
  machine.driver.kick(queue);
  machine.settle();
  EXPECT_TRUE(machine.broken());
  machine.set_up();
  machine.open_all();
  machine.send(1, "fine");
  EXPECT_EQ(chardev.output, "fine");
}

TEST(VirtioSerialTest, SmallControlBuffersBreakTheDevice) {
  SerialMachine machine;
  machine.add_port(1, nullptr);
  ASSERT_TRUE(machine.driver.negotiate(kVersion1 | kMultiport));
  for (const uint16_t queue : {kControlReceive, kControlTransmit}) {
    machine.rings.emplace(queue, std::make_unique<TestRing>(machine, 0x10000 + queue * 0x8000, kRingSize, false));
    machine.driver.set_queue(queue, machine.ring(queue));
  }
  machine.driver.ready();
  machine.ring(kControlReceive).add({{.address = kControlData, .bytes = 7, .write = true}});
  machine.say(0, kDeviceReady, 1);
  EXPECT_TRUE(machine.broken());
}

TEST(VirtioSerialTest, NonsenseInControlMessagesIsIgnored) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up();
  machine.say(1, kPortOpen, 1);  // it was not told of the port
  EXPECT_TRUE(machine.changes.empty());
  machine.open_all();
  machine.say(0xffffffff, kPortOpen, 1);
  machine.say(kPortCount, kPortReady, 1);
  machine.say(3, kPortOpen, 1);
  machine.say(1, 0xffff, 1);
  machine.say(1, kPortReady, 0);
  EXPECT_EQ(machine.changes.size(), 1U);
  EXPECT_FALSE(machine.broken());
}

// Messages that nobody fetches do not pile up.
TEST(VirtioSerialTest, ManyChangesAreFewMessages) {
  SerialMachine machine;
  TestChardev& chardev = machine.chardevs.emplace_back(*machine.executor);
  machine.add_port(1, &chardev);
  machine.set_up();
  machine.open_all();
  for (int i = 0; i < 8; ++i) {  // all buffers are used up
    chardev.set_open(i % 2 == 1);
    machine.settle();
  }
  for (int i = 0; i < 1000; ++i) {
    chardev.set_open(i % 2 == 0);
    machine.say(1, kPortReady, 1);
  }
  chardev.set_open(false);
  machine.settle();
  EXPECT_EQ(machine.heard().size(), 8U);
  EXPECT_EQ(machine.heard(), (std::vector<Message>{{1, kPortName, 1, "org.kite.1"}, {1, kPortOpen, 0}}));
}

TEST(VirtioSerialTest, ImpossibleStateIsRefused) {
  SerialMachine machine;
  machine.add_port(1, nullptr);
  machine.set_up();
  machine.open_all();
  machine.function->stop();
  const auto good = saved_state(*machine.function);
  SerialMachine other(3);
  other.function->stop();
  EXPECT_FALSE(restore_state(*other.function, good));
  EXPECT_FALSE(restore_state(*machine.function, with_patched_field(good, 2, 0, 0xff, 1)));
  EXPECT_FALSE(restore_state(*machine.function, with_patched_field(good, 2, 1, 0x20, 1)));
  EXPECT_EQ(saved_state(*machine.function), good);
  std::mt19937_64 random(5);
  for (int i = 0; i < 2000; ++i) {
    auto damaged = good;
    damaged[random() % damaged.size()] ^= static_cast<uint8_t>(1u << random() % 8);
    if (!restore_state(*machine.function, damaged)) continue;
    machine.function->start();
    machine.settle();
    machine.function->stop();
  }
}

}  // namespace
}  // namespace kite::devices
