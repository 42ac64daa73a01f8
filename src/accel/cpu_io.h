// CpuIo: how an accelerator reaches the machine in the middle of an instruction. A callback, not an exit code: a
// translated block calls out and goes on. No access waits for I/O: slowness is a status bit, as in hardware.
//
// Called on the vCPU's own thread while it is inside Vcpu::run(). Any call may end with the memory map changed and the
// vCPU's translations flushed ("before the instruction retires"): pointers obtained from a TLB before the call are
// dead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "memory/guest_types.h"

namespace kite {

class CpuIo {
 public:
  virtual ~CpuIo() = default;

  // `size` is 1, 2 or 4. Unassigned ports read all ones.
  virtual uint32_t pio_read(uint16_t port, unsigned size) = 0;
  virtual void pio_write(uint16_t port, unsigned size, uint32_t value) = 0;
  // Repeated INS and OUTS: as many accesses of one port as the span has room for, if the device there does several at
  // once. Answers the bytes that were moved; with 0 they are to be done one by one.
  virtual size_t pio_read_many(uint16_t port, unsigned size, std::span<uint8_t> to) {
    return (void)port, (void)size, (void)to, 0;
  }
  virtual size_t pio_write_many(uint16_t port, unsigned size, std::span<const uint8_t> from) {
    return (void)port, (void)size, (void)from, 0;
  }
  // `size` is 1, 2, 4 or 8; not crossing a page. Only for addresses without direct memory behind them.
  virtual uint64_t mmio_read(Gpa address, unsigned size) = 0;
  virtual void mmio_write(Gpa address, unsigned size, uint64_t value) = 0;
  // The same for a CPU in system management mode, which sees its own view of memory (VcpuConfig::smm_memory).
  virtual uint64_t smm_read(Gpa address, unsigned size) { return mmio_read(address, size); }
  virtual void smm_write(Gpa address, unsigned size, uint64_t value) { mmio_write(address, size, value); }
  // Runs `work` while no other vCPU executes guest code (locked accesses that the host cannot make atomic).
  virtual void exclusive(const std::function<void()>& work) = 0;
  // Writes to coalesced regions that wait reach their devices. Called when a queue of the accelerator's own has some.
  virtual void drain_coalesced() {}
  // FERR#: an unmasked x87 exception with CR0.NE clear; the board turns it into IRQ 13.
  virtual void fpu_error() = 0;
};

}  // namespace kite
