// A parallel NOR flash chip, 8 bits wide, with the Intel command set (CFI 0001h), as PC boards keep their firmware and
// its variables in. [28FxxxJ3] Intel 290667; [CFI] JESD68.01.
//
// In read-array mode it is ROM to the CPUs (mapped, never trapped) whose writes come here; in the other modes reads
// come here too. A program or an erase is done, in memory and in the file, when the write that starts it returns.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bus/device.h"
#include "devices/io_window.h"
#include "devices/pflash/flash_file.h"
#include "devices/pflash/pflash_regs.h"

namespace kite::devices {

class Pflash final : public bus::Device {
 public:
  // `file` holds the contents and outlives the chip; its size is a multiple of pflash_regs::kBlockBytes.
  static Result<std::unique_ptr<Pflash>> create(std::string path, FlashFile& file);
  ~Pflash() override;

  // The whole chip, for its place below 4 GiB.
  [[nodiscard]] const std::shared_ptr<Region>& region() const { return region_; }
  // What those see in its place who may only read.
  [[nodiscard]] std::shared_ptr<Region> rom() const { return Region::rom("pflash-rom", array_); }
  // For a machine that moves: the file is another process's from release() on, and after claim() this one's again, with
  // what the chip holds. Also where a snapshot was loaded: claim() brings its contents into the file.
  void release();
  Result<> claim();
  // The array, for a window that always shows it.
  [[nodiscard]] const std::shared_ptr<RamBlock>& array() const { return array_; }

  void reset() override;  // to read-array mode; contents stay
  void stop() override;   // what was written is on its way to the disk
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  enum class Mode : uint8_t {
    kArray,
    kStatus,
    kId,
    kQuery,
    kProgram,       // waits for the byte
    kErase,         // waits for the confirmation
    kLock,          // waits for what to do
    kBufferCount,   // waits for the number of bytes less one
    kBufferData,    // takes bytes
    kBufferConfirm  // waits for the confirmation
  };
  static constexpr uint8_t kLastMode = static_cast<uint8_t>(Mode::kBufferConfirm);
  struct State {
    Mode mode = Mode::kArray;
    uint8_t status = 0;
    uint32_t buffer_left = 0;                 // bytes that kBufferData still takes
    uint64_t buffer_block = 0;                // offset of the block that the buffer is for
    uint64_t buffer_from = 0, buffer_to = 0;  // offsets that were given, [from, to)
    std::vector<uint8_t> buffer;              // kBlockBytes: an image of the block
    std::vector<uint8_t> locks;               // one byte a block: 0, 1 locked, 2 locked down (and locked)
  };

  Pflash(std::string path, FlashFile& file, std::shared_ptr<RamBlock> array);
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);
  // The following hold lock_.
  void set_mode(Mode mode);
  void command(uint64_t offset, uint8_t value);
  void program_byte(uint64_t offset, uint8_t value);
  void erase_block(uint64_t offset);
  void lock_block(uint64_t offset, uint8_t value);
  void begin_buffer(uint64_t offset, uint8_t value);
  void buffer_byte(uint64_t offset, uint8_t value);
  void finish_buffer(uint8_t value);
  void finish(uint8_t errors);
  [[nodiscard]] bool writable(uint64_t offset) const;
  [[nodiscard]] bool commit(uint64_t offset, std::span<const uint8_t> bytes);
  [[nodiscard]] uint8_t read_id(uint64_t offset) const;
  [[nodiscard]] uint8_t read_query(uint64_t offset) const;
  [[nodiscard]] State fresh_state() const;

  // Wiring.
  FlashFile& file_;  // holds what the array holds, but for unwritten_
  std::shared_ptr<RamBlock> array_;
  IoWindow<Pflash> window_;
  std::shared_ptr<Region> region_, array_region_, command_region_;

  // State, with the array of a chip that can be written.
  std::mutex lock_;
  State state_;
  bool unwritten_ = false;  // the restored array waits for claim()
};

}  // namespace kite::devices
