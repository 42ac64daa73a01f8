#include "chardev/doorbell.h"

#include <utility>

namespace kite {

Doorbell::Doorbell(Executor& executor, std::function<void()> answer)
    : executor_(executor), shared_(std::make_shared<Shared>()) {
  shared_->answer = std::move(answer);
}

Doorbell::~Doorbell() { shared_->answer = nullptr; }

void Doorbell::ring() {
  if (shared_->rung.exchange(true, std::memory_order_acq_rel)) return;
  executor_.post([shared = shared_] {
    shared->rung.exchange(false, std::memory_order_acq_rel);  // before the answer looks: a later ring counts anew
    if (shared->answer) shared->answer();
  });
}

}  // namespace kite
