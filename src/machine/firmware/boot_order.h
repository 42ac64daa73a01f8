// BootOrder: which devices firmware shall try, in the order of their bootindex. Boards hand it a device's place as an
// OpenFirmware path, as the firmware forms it; the file "bootorder" in fw_cfg lists these.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "support/result.h"

namespace kite::machine {

class BootOrder {
 public:
  // `index` is bootindex=; `path` as "/pci@i0cf8/ethernet@3/ethernet-phy@0". `owner` is for the message when the index
  // is taken.
  Result<> add(uint64_t index, std::string path, std::string owner);
  // What comes before every device: a kernel given by -kernel.
  void prefer(std::string path) { first_ = std::move(path); }
  [[nodiscard]] bool empty() const { return devices_.empty() && first_.empty(); }
  // The geometry that the BIOS shows of the disk at that path.
  void add_geometry(std::string path, std::string owner, uint64_t cylinders, uint64_t heads, uint64_t sectors);
  // The device is gone.
  void remove(std::string_view owner);
  [[nodiscard]] bool has_geometry() const { return !geometries_.empty(); }
  // The file "bios-geometry": a line a disk, "PATH CYLINDERS HEADS SECTORS"; ends with a zero.
  [[nodiscard]] std::vector<uint8_t> geometry_file() const;
  // The file: one path a line, with `strict` a last line that stops the firmware there; ends with a zero.
  [[nodiscard]] std::vector<uint8_t> file(bool strict) const;

  // "/pci@i0cf8/NAME@SLOT[,FUNCTION]" and what lies behind it; slot and function in hexadecimal without leading zeros.
  [[nodiscard]] static std::string pci_path(std::string_view name, uint8_t devfn, std::string_view rest = "");

 private:
  struct Entry {
    std::string path, owner;
  };
  std::string first_;
  std::map<uint64_t, Entry> devices_;
  std::vector<Entry> geometries_;  // path: the whole line
};

}  // namespace kite::machine
