#include "machine/interrupt_events.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <mutex>

#include "support/fd.h"

namespace kite::machine {

namespace {

Result<Fd> make_event() {
  Fd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event.valid()) return fail("cannot make an eventfd: {}", errno_text(errno));
  return event;
}

// The kernel listens.
class KernelEvent final : public bus::InterruptEvent {
 public:
  KernelEvent(IrqChip& chip, Fd event, uint32_t gsi, bool owns_route)
      : chip_(chip), event_(std::move(event)), gsi_(gsi), owns_route_(owns_route) {}
  ~KernelEvent() override {
    (void)set_enabled(false);
    if (owns_route_) chip_.remove_route(gsi_);
  }
  [[nodiscard]] int fd() const override { return event_.get(); }
  Result<> set_enabled(bool enabled) override {
    const std::lock_guard lock(mutex_);
    if (enabled == attached_) return {};
    if (enabled)
      KITE_TRY(chip_.attach_event(event_.get(), gsi_));
    else
      chip_.detach_event(event_.get(), gsi_);
    attached_ = enabled;
    return {};
  }
  Result<> set_message(uint64_t address, uint32_t data) override {
    if (!owns_route_) return fail("interrupt line {} sends no message", gsi_);
    return chip_.change_route(gsi_, {.address = address, .data = data});
  }

 private:
  IrqChip& chip_;
  Fd event_;
  const uint32_t gsi_;
  const bool owns_route_;
  std::mutex mutex_;
  bool attached_ = false;
};

// An executor listens.
class WatchedEvent final : public bus::InterruptEvent {
 public:
  using Deliver = std::function<void(uint64_t address, uint32_t data)>;
  WatchedEvent(Executor& executor, Fd event, Deliver deliver, uint64_t address, uint32_t data)
      : executor_(executor), shared_(std::make_shared<Shared>()), event_(std::move(event)) {
    shared_->deliver = std::move(deliver);
    shared_->address = address;
    shared_->data = data;
    executor_.watch(event_.get(), 0, [shared = shared_, fd = event_.get()](uint32_t) {
      const std::lock_guard lock(shared->mutex);
      eventfd_t count = 0;
      if (!shared->enabled || eventfd_read(fd, &count) != 0) return;
      shared->deliver(shared->address, shared->data);
    });
  }
  ~WatchedEvent() override {
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->enabled = false;  // a callback that is on its way finds nothing to do
    }
    executor_.unwatch(event_.get());
  }
  [[nodiscard]] int fd() const override { return event_.get(); }
  Result<> set_enabled(bool enabled) override {
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->enabled = enabled;
    }
    executor_.modify(event_.get(), enabled ? EPOLLIN : 0);
    return {};
  }
  Result<> set_message(uint64_t address, uint32_t data) override {
    const std::lock_guard lock(shared_->mutex);
    shared_->address = address;
    shared_->data = data;
    return {};
  }

 private:
  struct Shared {
    std::mutex mutex;  // taken before the interrupt controllers'
    bool enabled = false;
    Deliver deliver;
    uint64_t address = 0;
    uint32_t data = 0;
  };
  Executor& executor_;
  std::shared_ptr<Shared> shared_;
  Fd event_;
};

class BoardEvents final : public bus::InterruptEvents {
 public:
  BoardEvents(Executor& executor, bus::MsiSink& messages, bus::IrqSink& lines, IrqChip* chip)
      : executor_(executor), messages_(messages), lines_(lines), chip_(chip) {}

  Result<std::unique_ptr<bus::InterruptEvent>> make_message_event(uint64_t address, uint32_t data) override {
    KITE_ASSIGN(Fd event, make_event());
    if (chip_ != nullptr) {
      KITE_ASSIGN(const uint32_t gsi, chip_->add_route({.address = address, .data = data}));
      return enabled(std::make_unique<KernelEvent>(*chip_, std::move(event), gsi, true));
    }
    return enabled(std::make_unique<WatchedEvent>(
        executor_, std::move(event), [this](uint64_t to, uint32_t value) { messages_.send_msi(to, value); }, address,
        data));
  }

  Result<std::unique_ptr<bus::InterruptEvent>> make_line_event(uint32_t gsi) override {
    KITE_ASSIGN(Fd event, make_event());
    if (chip_ != nullptr && chip_->has_io_controllers())
      return enabled(std::make_unique<KernelEvent>(*chip_, std::move(event), gsi, false));
    return enabled(std::make_unique<WatchedEvent>(
        executor_, std::move(event), [this, gsi](uint64_t, uint32_t) { bus::IrqLine(lines_, gsi).pulse(); }, 0, 0));
  }

 private:
  static Result<std::unique_ptr<bus::InterruptEvent>> enabled(std::unique_ptr<bus::InterruptEvent> event) {
    KITE_TRY(event->set_enabled(true));
    return event;
  }

  Executor& executor_;
  bus::MsiSink& messages_;
  bus::IrqSink& lines_;
  IrqChip* chip_;
};

}  // namespace

std::unique_ptr<bus::InterruptEvents> make_interrupt_events(Executor& executor, bus::MsiSink& messages,
                                                            bus::IrqSink& lines, IrqChip* chip) {
  return std::make_unique<BoardEvents>(executor, messages, lines, chip);
}

}  // namespace kite::machine
