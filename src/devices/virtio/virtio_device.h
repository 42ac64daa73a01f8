// VirtioDevice: what every virtio device is, whatever its type and transport: features, status, queues, configuration,
// requests in flight. [VIRTIO 1.2] 2, 3. The transport (virtio_pci.h) shows it to the guest; a type derives from it.
//
// How a type is written (virtio_blk.h is one):
//  - Its constructor hands a Shape to VirtioDevice: type number, queues, sizes, the type's feature bits.
//  - serve(queue) runs on the home executor whenever the driver kicked: take chains with next() until it answers null,
//    start a request for each (a coroutine in a TaskScope of the type's own), hand each back with finish(). A chain
//    that does not make sense: break_device(). Not everything need be taken: kicks stay suppressed while chains are
//    left in the ring, until next() has answered null (then the driver's next kick calls serve() again).
//  - read_config() answers the configuration space, config_written() acts on what the driver wrote there;
//    config_changed() tells the driver that it is another one.
//  - driver_ready() when the driver is done with setting up; device_reset() when a life ends; and when chains of it are
//    in flight, cancel_requests(), on the home executor: ask what is under way to hurry. The status register shows 0
//    once every chain has come back to finish(), which forgets those of earlier lives by itself; nothing is served
//    before.
//  - Chains in flight are part of the saved state; a restored device gets them from next() again.
//  - Its destructor calls retire(), then waits until its requests have ended.
//
// Threads: registers are accessed on vCPU threads with lock() held, everything else happens on the home executor. The
// hooks marked "locked" are called with the lock held and take no other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/executor.h"
#include "bus/doorbell.h"
#include "devices/virtio/virtqueue.h"
#include "memory/guest_memory.h"
#include "object/live_property.h"
#include "state/codec.h"

namespace kite::devices {

// What a virtio device asks of the bus it is on. Called with the device's lock held, on any thread.
class VirtioTransport {
 public:
  virtual ~VirtioTransport() = default;
  virtual void queue_interrupt(uint16_t vector) = 0;
  virtual void config_interrupt() = 0;
  // The device may read and write guest memory.
  [[nodiscard]] virtual bool may_master() const = 0;
};

class VirtioDevice {
 public:
  struct Shape {
    uint16_t type = 0;          // 5: device id
    std::string name;           // for messages: the device's id and type
    uint16_t queues = 1;        // up to kMostQueues
    uint16_t queue_size = 256;  // descriptors, a power of two up to kMostQueueSize
    uint32_t config_bytes = 0;  // of the configuration space
    uint64_t features = 0;      // the type's own; those of VirtioOptions come to them
  };
  // Ring features to offer: properties common to all types.
  struct Options {
    bool indirect = true, event_index = true, notify_on_empty = true, any_layout = true;
    bool packed = false, queue_reset = true;
    bool access_platform = false;
  };

  virtual ~VirtioDevice();
  VirtioDevice(const VirtioDevice&) = delete;
  VirtioDevice& operator=(const VirtioDevice&) = delete;

  // --- the transport's side; lock() is held unless noted ---
  [[nodiscard]] std::mutex& lock() { return lock_; }
  void connect(VirtioTransport& transport) { transport_ = &transport; }  // while being built
  [[nodiscard]] const Shape& shape() const { return shape_; }            // no lock
  // `legacy`: as drivers of before 1.0 see it.
  [[nodiscard]] uint64_t offered(bool legacy) const;
  [[nodiscard]] uint64_t driver_features() const { return state_.features; }
  void write_driver_features(uint64_t features, uint64_t mask, bool legacy);
  [[nodiscard]] uint8_t status() const;
  // 3.1; 0 resets. A status that asks for what cannot be is not taken.
  void write_status(uint8_t status, bool legacy);
  [[nodiscard]] uint8_t config_generation() const { return state_.generation; }
  [[nodiscard]] uint64_t config_read(uint32_t offset, unsigned size);
  void config_write(uint32_t offset, unsigned size, uint64_t value);
  // Of an existing queue.
  [[nodiscard]] const Virtqueue::State& queue(uint16_t index) const { return queues_[index]->state; }
  void set_queue_vector(uint16_t index, uint16_t vector) { queues_[index]->state.vector = vector; }
  void set_queue_size(uint16_t index, uint16_t size);
  void set_queue_addresses(uint16_t index, uint64_t descriptors, uint64_t driver, uint64_t device);
  void enable_queue(uint16_t index);
  // Legacy: the page of all three parts; 0 takes the queue away.
  void set_queue_page(uint16_t index, uint32_t page);
  [[nodiscard]] uint32_t queue_page(uint16_t index) const;
  void reset_queue(uint16_t index);  // 2.6.1
  [[nodiscard]] bool queue_resetting(uint16_t index) const { return queues_[index]->stale != 0; }
  [[nodiscard]] Executor& home() const { return home_; }  // no lock

  // No lock: the driver says there is work; any thread. A number of no queue is ignored.
  void kick(uint16_t index);
  // No lock: rings of `bell` are kicks of a queue. While being built.
  void listen(bus::Doorbell bell, uint16_t index);
  // No lock: as bus::Device has it.
  [[nodiscard]] virtual std::vector<LiveProperty> live_properties() { return {}; }

  // The lifecycle of bus::Device; no lock. reset() is the machine's.
  void reset();
  void start();
  void stop();
  // Whoever may become allowed to master the bus looks at what waits.
  void kick_all();
  // Fields from `first` to `first`+9 of the section, and the type's. restore_fields() judges and keeps; nothing changes
  // before apply_restored().
  void save_fields(StateWriter& writer, uint16_t first);
  void restore_fields(StateReader& reader, uint16_t first);
  void apply_restored();
  // Of what restore_fields() read: no queue interrupts by a vector at or above `vectors`.
  [[nodiscard]] bool restored_vectors_below(uint16_t vectors) const;

 protected:
  VirtioDevice(Executor& home, GuestMemory& memory, Shape shape, const Options& options);

  // --- what a type implements ---
  virtual void serve(uint16_t queue) = 0;                                         // home executor, not locked
  virtual void read_config(std::span<uint8_t> config) = 0;                        // locked; all of it, zeroed before
  virtual void config_written(uint32_t offset, std::span<const uint8_t> bytes) {  // locked
    (void)offset, (void)bytes;
  }
  // Locked: whether these, a subset of what is offered, go together; 2.2.
  [[nodiscard]] virtual bool accepts(uint64_t features) const { return (void)features, true; }
  virtual void driver_ready() {}     // locked
  virtual void device_reset() {}     // locked; a life ends, chains of it may be in flight
  virtual void cancel_requests() {}  // home executor, not locked
  // Home executor, not locked: one queue was reset, chains of it are in flight. What waits for nothing but the guest or
  // the host goes to finish().
  virtual void queue_reset(uint16_t queue) { (void)queue; }
  // Locked: state of the type's own, in fields from 1 up.
  virtual void save_type(StateWriter& writer) { (void)writer; }
  virtual void restore_type(StateReader& reader) { (void)reader; }
  virtual void apply_type() {}

  // --- for a type to use; the lock is not held ---
  // The next request of a queue, or null. Home executor.
  [[nodiscard]] std::unique_ptr<VirtioChain> next(uint16_t queue);
  // Hands it back; `written` bytes of its writable part were written. Home executor.
  void finish(std::unique_ptr<VirtioChain> chain, uint64_t written);
  // Several of one queue: the driver sees all of them or none. Home executor.
  struct Finished {
    std::unique_ptr<VirtioChain> chain;
    uint64_t written;
  };
  void finish_together(std::vector<Finished> list);
  // Whether anybody waits for it: not those of an earlier life, whose memory is the guest's again.
  [[nodiscard]] bool current(const VirtioChain& chain) const {
    return queues_[chain.queue]->life.load(std::memory_order_acquire) == chain.life;
  }
  // The driver did what it must not: nothing happens any more until it resets the device. 2.1.2. Any thread.
  void break_device(std::string_view why);
  // Any thread: the configuration space is another one. 2.5.
  void config_changed();
  // Locked: between start() and stop(). For types that chains are held by: nothing of these is used while it is not.
  [[nodiscard]] bool running() const { return running_; }
  // What the driver accepted, once it is ready; any thread.
  [[nodiscard]] bool agreed(uint64_t feature) const { return (agreed_.load(std::memory_order_acquire) & feature) != 0; }
  [[nodiscard]] GuestMemory& memory() const { return memory_; }
  // Nothing is served from now on: for destructors, before they wait for their requests. Not on the home executor with
  // something of this device under way.
  void retire();

 private:
  struct State {
    uint64_t features = 0;  // the driver's
    uint8_t status = 0;
    uint8_t generation = 0;
    bool broken = false;
    bool operator==(const State&) const = default;
  };
  struct Queue {
    Virtqueue::State state;
    Virtqueue ring;
    // Not saved: follows from what is in flight, or is done again.
    std::atomic<bool> kicked{false};  // serve() is on its way
    bool exhausted = false;           // next() found nothing
    bool interrupt = false;           // chains were given since the driver's wishes were last looked at
    std::atomic<uint32_t> life{0};
    uint32_t in_flight = 0, stale = 0;                   // chains of this life, and of earlier ones
    std::vector<std::unique_ptr<VirtioChain>> restored;  // to be handed out by next(), the last first
  };
  // What callbacks on the home executor hold: the device is null once it has retired.
  struct Home {
    std::mutex mutex;  // held while serve() runs; before lock_
    VirtioDevice* device = nullptr;
  };

  void run_queue(uint16_t index);  // home executor, with Home's mutex
  void post_kick(uint16_t index);  // unless one is on its way
  void look_for_interrupts();
  void cancel_old_requests();
  // Locked.
  [[nodiscard]] bool ready(Queue& queue);
  void begin();
  void reset_locked();
  void end_reset();
  void end_life(Queue& queue);
  void end_life_alone(uint16_t index);
  [[nodiscard]] bool features_fit() const;
  void break_locked(std::string_view why);
  // False: the chain belongs to an earlier life, and nobody waits for it.
  bool land(Queue& queue, const VirtioChain& chain);
  void keep(std::unique_ptr<VirtioChain> chain);
  void give(Queue& queue, std::span<const Virtqueue::Given> list);
  void raise_interrupts();
  void kick_enabled();
  [[nodiscard]] std::unique_ptr<VirtioChain> fresh_chain();
  [[nodiscard]] std::vector<uint8_t> queue_bytes() const;
  [[nodiscard]] std::vector<uint8_t> chain_bytes() const;
  bool restore_queues(std::span<const uint8_t> bytes);
  bool restore_chains(std::span<const uint8_t> bytes);

  // Static configuration.
  const Shape shape_;
  const uint64_t offered_;

  // Wiring.
  Executor& home_;
  GuestMemory& memory_;
  VirtioTransport* transport_ = nullptr;
  std::shared_ptr<Home> shared_;
  struct Bell {
    bus::Doorbell bell;
    uint16_t queue;
  };
  std::vector<std::unique_ptr<Bell>> bells_;

  // State: this, the State of every queue, and the chains in flight.
  std::mutex lock_;
  State state_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::vector<VirtioChain*> flying_;  // of lives that go on; their owners are the type's requests

  // Derived, or bookkeeping.
  std::atomic<uint64_t> agreed_{0};
  bool running_ = false;
  bool begun_ = false;         // driver_ready() was called in this life
  bool serving_ = false;       // serve() is being called
  bool resetting_ = false;     // chains of the life before are in flight, or
  bool cancelling_ = false;    // cancel_requests() is on its way
  uint64_t stale_ = 0;         // of all queues
  uint8_t status_before_ = 0;  // shown until a reset is complete
  uint64_t sequence_ = 0;
  bool looking_ = false;  // look_for_interrupts() is on its way
  std::vector<std::unique_ptr<VirtioChain>> spare_;
  struct Restored {
    State state;
    std::vector<Virtqueue::State> queues;
    std::vector<std::unique_ptr<VirtioChain>> chains;
  };
  Restored restored_;
};

}  // namespace kite::devices
