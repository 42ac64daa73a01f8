#include "machine/interrupt_events.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <string>
#include <vector>

namespace kite::machine {
namespace {

class InterruptEventsTest : public ::testing::Test, public bus::MsiSink, public bus::IrqSink {
 protected:
  bool send_msi(uint64_t address, uint32_t data) override {
    log_.push_back(fmt::format("msi {:x} {:x}", address, data));
    return true;
  }
  void set_irq(uint32_t line, bool level) override { log_.push_back(fmt::format("{} {}", line, level ? 1 : 0)); }
  void signal(const bus::InterruptEvent& event) { eventfd_write(event.fd(), 1); }

  std::unique_ptr<Executor> executor_ = *Executor::create("test");
  std::unique_ptr<bus::InterruptEvents> events_ = make_interrupt_events(*executor_, *this, *this, nullptr);
  std::vector<std::string> log_;
};

TEST_F(InterruptEventsTest, ASignalSendsTheMessage) {
  auto event = *events_->make_message_event(0xfee00000, 0x41);
  signal(*event);
  executor_->run_once(0);
  EXPECT_EQ(log_, std::vector<std::string>{"msi fee00000 41"});
}

TEST_F(InterruptEventsTest, ASignalPulsesTheLine) {
  auto event = *events_->make_line_event(10);
  signal(*event);
  executor_->run_once(0);
  EXPECT_EQ(log_, (std::vector<std::string>{"10 1", "10 0"}));
}

TEST_F(InterruptEventsTest, SignalsWaitWhileItIsOff) {
  auto event = *events_->make_message_event(0xfee00000, 0x41);
  ASSERT_TRUE(event->set_enabled(false));
  signal(*event);
  executor_->run_once(0);
  EXPECT_TRUE(log_.empty());
  ASSERT_TRUE(event->set_enabled(true));
  executor_->run_once(0);
  EXPECT_EQ(log_.size(), 1u);
}

TEST_F(InterruptEventsTest, AChangedMessageIsSentFromThenOn) {
  auto event = *events_->make_message_event(0xfee00000, 0x41);
  ASSERT_TRUE(event->set_message(0xfee01000, 0x42));
  signal(*event);
  executor_->run_once(0);
  EXPECT_EQ(log_, std::vector<std::string>{"msi fee01000 42"});
}

TEST_F(InterruptEventsTest, ADestroyedEventIsSilent) {
  auto event = *events_->make_message_event(0xfee00000, 0x41);
  signal(*event);
  event.reset();
  executor_->run_once(0);
  EXPECT_TRUE(log_.empty());
}

}  // namespace
}  // namespace kite::machine
