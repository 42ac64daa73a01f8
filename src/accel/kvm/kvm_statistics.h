// Metrics of KVM: its own binary statistics of a VM or a vCPU (provider "kvm") [Linux Documentation/virt/kvm/api.rst,
// 4.133], and what user space counts of a vCPU's exits (provider "kite").
#pragma once

#include <mutex>
#include <vector>

#include "accel/kvm/kvm_calls.h"
#include "metrics/metrics.h"
#include "support/result.h"

namespace kite {

class KvmVcpu;

class KvmStatistics final : public metrics::Source {
 public:
  // `owner` is the VM's or vCPU's descriptor and outlives this. The statistics file is opened when it is first read.
  KvmStatistics(const KvmFd& owner, metrics::Subject subject,
                metrics::Registry& registry = metrics::Registry::process());
  ~KvmStatistics() override;
  KvmStatistics(const KvmStatistics&) = delete;
  KvmStatistics& operator=(const KvmStatistics&) = delete;

  [[nodiscard]] std::string_view provider() const override { return "kvm"; }
  [[nodiscard]] metrics::Subject subject() const override { return subject_; }
  // Empty where KVM has no statistics, or describes them in a way that makes no sense.
  [[nodiscard]] std::vector<metrics::Sample> read() const override;

 private:
  struct Place {
    metrics::Description description;
    size_t offset;  // bytes into the data block
    size_t count;   // of 64-bit values
  };
  void open() const;
  [[nodiscard]] Result<> describe() const;
  [[nodiscard]] std::vector<uint8_t> bytes(size_t offset, size_t count) const;

  const KvmFd& owner_;
  const metrics::Subject subject_;
  metrics::Registry& registry_;
  mutable std::mutex mutex_;
  mutable bool opened_ = false;
  mutable KvmFd file_;
  mutable std::vector<Place> places_;
  mutable size_t data_offset_ = 0, data_bytes_ = 0;
};

// "kvm.runs", "kvm.exit.IO", ...: the exits of a vCPU by reason, and the instructions that its fall-back executed.
class KvmExitMetrics final : public metrics::Source {
 public:
  explicit KvmExitMetrics(const KvmVcpu& vcpu, metrics::Registry& registry = metrics::Registry::process());
  ~KvmExitMetrics() override;
  KvmExitMetrics(const KvmExitMetrics&) = delete;
  KvmExitMetrics& operator=(const KvmExitMetrics&) = delete;

  [[nodiscard]] metrics::Subject subject() const override;
  [[nodiscard]] std::vector<metrics::Sample> read() const override;

 private:
  const KvmVcpu& vcpu_;
  metrics::Registry& registry_;
};

}  // namespace kite
