// fw_cfg: named and numbered blobs for the guest's firmware and kernel, through ports and DMA.
// [FW_CFG] QEMU's docs/specs/fw_cfg.txt.
//
// The board fills it while the machine is built. Integers are little-endian, the directory and the DMA interface
// big-endian. Files are sorted by name and numbered from 0x20 in that order, so adding one may renumber those after it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "bus/device.h"
#include "devices/io_window.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace kite::devices {

class FwCfg final : public bus::Device {
 public:
  // DMA goes to `memory`. Keys 0 (signature), 1 (id) and 0x19 (directory) are there from the start.
  FwCfg(std::string path, GuestMemory& memory);
  ~FwCfg() override;

  // Numbered blobs: a key again replaces its contents. `key` is below 0x20, or 0x8000 | a number below 0x20.
  void add_bytes(uint16_t key, std::vector<uint8_t> bytes);
  void add_string(uint16_t key, std::string_view text);  // with its terminating zero
  void add_u16(uint16_t key, uint16_t value);
  void add_u32(uint16_t key, uint32_t value);
  void add_u64(uint16_t key, uint64_t value);

  enum class FileAccess : uint8_t { kReadOnly, kWritable };  // writable: by the guest, through DMA
  // A name of 1..55 bytes ("etc/e820", "opt/org.example/x"); fails on a bad or repeated one, or when all files are
  // taken.
  Result<> add_file(std::string name, std::vector<uint8_t> bytes, FileAccess access = FileAccess::kReadOnly);
  // Replaces the contents of a file, which may be new (a bootorder that follows hot-plug).
  Result<> set_file(std::string name, std::vector<uint8_t> bytes);
  // `refresh` is asked for the contents whenever the guest selects the file: what depends on how firmware has set up
  // the machine. It runs with this device's lock held; an answer of another size than the file's is not taken.
  void refresh_file(std::string_view name, std::function<std::vector<uint8_t>()> refresh);
  // For a `refresh` of another file: what this one holds now.
  [[nodiscard]] std::vector<uint8_t> file_while_refreshing(std::string_view name) const;
  // A copy of what the guest would read; empty when there is no such file.
  [[nodiscard]] std::vector<uint8_t> file(std::string_view name);

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  // For port 0x510, 2 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& port_region() const { return port_region_; }
  // For port 0x514, 8 bytes.
  [[nodiscard]] const std::shared_ptr<Region>& dma_region() const { return dma_region_; }

 private:
  static constexpr size_t kMaxFiles = 0x1000;
  static constexpr uint64_t kMaxBlob = uint64_t{1} << 31;
  struct Item {
    std::vector<uint8_t> bytes;
    FileAccess access = FileAccess::kReadOnly;
    std::function<std::vector<uint8_t>()> refresh = {};
  };
  struct DmaRequest {
    uint32_t control;
    uint32_t length;
    uint64_t address;
  };

  uint64_t read_ports(uint64_t offset, unsigned size);
  void write_ports(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_dma_port(uint64_t offset, unsigned size);
  void write_dma_port(uint64_t offset, unsigned size, uint64_t value);
  // The following hold lock_.
  [[nodiscard]] Item* selected();
  void select(uint16_t key);
  uint8_t read_byte();
  void rebuild_directory();
  [[nodiscard]] Result<> check_file(std::string_view name, size_t size) const;
  [[nodiscard]] uint32_t left(const Item* item) const;
  void advance(const Item* item, uint32_t length);
  void run_dma(uint64_t address);
  [[nodiscard]] bool transfer(const DmaRequest& request);
  [[nodiscard]] bool dma_read(Item* item, uint64_t address, uint32_t length);
  [[nodiscard]] bool dma_write(Item* item, uint64_t address, uint32_t length);

  // Static configuration: what the board filled in. Only writable files change afterwards (and are saved).
  std::map<uint16_t, Item> keys_;
  std::map<std::string, Item, std::less<>> files_;
  std::vector<Item*> file_by_number_;  // kFirstFile + index

  // Wiring.
  GuestMemory& memory_;
  IoWindow<FwCfg> ports_, dma_;
  std::shared_ptr<Region> port_region_, dma_region_;

  // State, with the bytes of writable files.
  struct State {
    uint16_t key = 0;
    uint32_t offset = 0;
    uint64_t dma_address = 0;
  };
  std::mutex lock_;
  State state_;
};

}  // namespace kite::devices
