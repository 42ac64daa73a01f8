#include "chardev/mux_chardev.h"

#include "chardev/test_client.h"

namespace kite {
namespace {

using namespace testing_support;
using enum ChardevEvent;

// A back end in memory, driven by the test.
class FakeBackend final : public Chardev {
 public:
  FakeBackend() : Chardev("c0") {}
  std::string filename() const override { return "fake"; }
  void set_client(ChardevClient* client) override {
    client_ = client;
    if (client_ != nullptr && open) client_->event(kOpened);
  }
  size_t write(std::span<const uint8_t> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    room -= taken;
    output.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    return taken;
  }
  void accept_input() override { ++accepts; }
  bool is_open() const override { return open; }

  void type(std::string_view text) { client_->received(bytes_of(text)); }
  void set_open(bool now_open) {
    open = now_open;
    client_->event(open ? kOpened : kClosed);
  }
  void make_room(size_t bytes) {
    room = bytes;
    client_->writable();
  }
  ChardevClient& client() { return *client_; }

  bool open = true;
  size_t room = ~size_t{0};
  std::string output;
  int accepts = 0;

 private:
  ChardevClient* client_ = nullptr;
};

class MuxChardevTest : public testing::Test {
 protected:
  MuxChardevTest() {
    auto owned = std::make_unique<FakeBackend>();
    backend = owned.get();
    mux = std::make_unique<MuxChardev>(std::move(owned), *executor, clock,
                                       MuxHooks{.quit = [this] { ++quits; }, .save_disks = {}});
    serial_port = mux->add_port();
    monitor_port = mux->add_port();
    serial_port->set_client(&serial);
    monitor_port->set_client(&monitor);
  }
  ~MuxChardevTest() override {
    serial_port->set_client(nullptr);
    monitor_port->set_client(nullptr);
  }

  std::unique_ptr<Executor> executor = make_executor();
  ManualClock clock;
  int quits = 0;
  FakeBackend* backend;
  RecordingClient serial, monitor;
  std::unique_ptr<MuxChardev> mux;
  Chardev* serial_port;
  Chardev* monitor_port;
};

TEST_F(MuxChardevTest, FirstPortBeginsWithTheFocus) {
  backend->type("ls");

  EXPECT_EQ(serial.text, "ls");
  EXPECT_EQ(monitor.text, "");
  EXPECT_EQ(serial.events, std::vector{kOpened});
  EXPECT_TRUE(monitor.events.empty());
}

TEST_F(MuxChardevTest, OutputOfEveryPortGoesToTheBackEnd) {
  serial_port->write(bytes_of("boot "));
  monitor_port->write(bytes_of("(kite) "));

  EXPECT_EQ(backend->output, "boot (kite) ");
}

TEST_F(MuxChardevTest, CtrlACMovesTheFocusAroundAndTellsBothSides) {
  backend->type(
      "\x01"
      "c1\x01"
      "c2");
  backend->type(
      "\x01"
      "c3");

  EXPECT_EQ(serial.text, "2");
  EXPECT_EQ(monitor.text, "13");
  EXPECT_EQ(serial.events, (std::vector{kOpened, kMuxOut, kMuxIn, kMuxOut}));
  EXPECT_EQ(monitor.events, (std::vector{kOpened, kMuxOut, kMuxIn}));
}

TEST_F(MuxChardevTest, EscapeMayBeSplitOverReads) {
  backend->type("\x01");
  backend->type("c");

  EXPECT_EQ(monitor.events, std::vector{kOpened});
}

TEST_F(MuxChardevTest, CtrlATwiceSendsOne) {
  backend->type("a\x01\x01z");

  EXPECT_EQ(serial.text, "a\x01z");
}

TEST_F(MuxChardevTest, CtrlAXQuits) {
  backend->type("\x01x");

  EXPECT_EQ(quits, 1);
  EXPECT_EQ(serial.text, "");
}

TEST_F(MuxChardevTest, CtrlABSendsABreakAfterWhatWasTypedBefore) {
  size_t text_at_break = 0;
  backend->type(
      "ab\x01"
      "bc");
  text_at_break = serial.text.size();

  EXPECT_EQ(serial.count(kBreak), 1);
  EXPECT_EQ(text_at_break, 3u);
  EXPECT_EQ(serial.text, "abc");
}

TEST_F(MuxChardevTest, CtrlAHShowsTheKeys) {
  backend->type("\x01h");

  EXPECT_NE(backend->output.find("Ctrl-A x"), std::string::npos);
}

TEST_F(MuxChardevTest, CtrlASSaysThatThereAreNoDisks) {
  backend->type("\x01s");

  EXPECT_NE(backend->output.find("no disks"), std::string::npos);
}

TEST_F(MuxChardevTest, UnknownKeysAreSwallowed) {
  backend->type("\x01qa");

  EXPECT_EQ(serial.text, "a");
}

TEST_F(MuxChardevTest, TimeStampsStandBeforeEveryLine) {
  backend->type("\x01t");
  clock.advance(3'723'004'000'000);
  serial_port->write(bytes_of("one\ntw"));
  clock.advance(1'000'000);
  serial_port->write(bytes_of("o\nthree\n"));

  EXPECT_EQ(backend->output, "[01:02:03.004] one\n[01:02:03.004] two\n[01:02:03.005] three\n");
}

TEST_F(MuxChardevTest, TimeStampsSurviveAFullBackEnd) {
  backend->type("\x01t");
  backend->room = 5;
  EXPECT_EQ(serial_port->write(bytes_of("one\ntwo\n")), 0u);
  backend->make_room(13);
  EXPECT_EQ(serial.writables, 1);
  EXPECT_EQ(serial_port->write(bytes_of("one\ntwo\n")), 3u);
  backend->make_room(~size_t{0});
  EXPECT_EQ(serial_port->write(bytes_of("\ntwo\n")), 5u);

  EXPECT_EQ(backend->output, "[00:00:00.000] one\n[00:00:00.000] two\n");
}

TEST_F(MuxChardevTest, ShortWritesAreFollowedByWritableOfThoseThatWait) {
  backend->room = 2;
  EXPECT_EQ(serial_port->write(bytes_of("abc")), 2u);
  EXPECT_EQ(serial.writables, 0);

  backend->make_room(10);

  EXPECT_EQ(serial.writables, 1);
  EXPECT_EQ(monitor.writables, 0);
}

TEST_F(MuxChardevTest, InputWaitsForAClientThatIsNotReadyWhileKeysGoOn) {
  serial.room = 0;
  backend->type("abc\x01x");
  EXPECT_EQ(quits, 1);
  EXPECT_EQ(serial.text, "");

  serial.room = 2;
  serial.bounded = true;
  serial_port->accept_input();
  settle(*executor);
  EXPECT_EQ(serial.text, "ab");
  serial.room = 5;
  serial_port->accept_input();
  settle(*executor);

  EXPECT_EQ(serial.text, "abc");
  EXPECT_GT(backend->accepts, 0);
}

TEST_F(MuxChardevTest, InputIsBounded) {
  serial.room = 0;
  EXPECT_EQ(backend->client().can_receive(), MuxChardev::kInputBound);

  backend->type(std::string(MuxChardev::kInputBound, 'x'));

  EXPECT_EQ(backend->client().can_receive(), 0u);
}

TEST_F(MuxChardevTest, ClosingTellsThoseThatKnewAndReopeningTellsTheFocus) {
  backend->set_open(false);
  backend->set_open(true);

  EXPECT_EQ(serial.events, (std::vector{kOpened, kClosed, kOpened}));
  EXPECT_TRUE(monitor.events.empty());
}

TEST_F(MuxChardevTest, FocusLeavesAnUnpluggedClient) {
  serial_port->set_client(nullptr);
  backend->type("m");
  EXPECT_EQ(monitor.text, "m");

  serial_port->set_client(&serial);
  backend->type("n");

  EXPECT_EQ(monitor.text, "mn");
}

TEST_F(MuxChardevTest, ClientMayUnplugItselfWhileItReceives) {
  serial.on_received = [this] { serial_port->set_client(nullptr); };

  backend->type("a");
  backend->type("b");

  EXPECT_EQ(serial.text, "a");
  EXPECT_EQ(monitor.text, "b");
}

TEST(MuxChardev, StandsForItsFirstPortWhenUsedDirectly) {
  auto executor = make_executor();
  ManualClock clock;
  auto owned = std::make_unique<FakeBackend>();
  FakeBackend& backend = *owned;
  MuxChardev mux(std::move(owned), *executor, clock, {});
  RecordingClient client;

  mux.set_client(&client);
  backend.type("in");
  mux.write(bytes_of("out"));

  EXPECT_EQ(client.text, "in");
  EXPECT_EQ(backend.output, "out");
  mux.set_client(nullptr);
}

}  // namespace
}  // namespace kite
