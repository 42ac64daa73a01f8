// SMBIOS tables [SMBIOS 3.6]: what the firmware and, through it, the guest learn of the machine as a product. The
// structures and an entry point of version 2.8 (32-bit) or 3.0 (64-bit); firmware places both and mends the address.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "support/result.h"

namespace kite::boot {

enum class SmbiosEntryPoint : uint8_t { k32, k64 };

// What -smbios says; an empty text or an absent number leaves the default.
struct SmbiosConfig {
  SmbiosEntryPoint entry_point = SmbiosEntryPoint::k32;
  struct {  // type 0: firmware; written only when something of it is given
    bool given = false;
    std::string vendor, version, date;
    std::optional<std::array<uint8_t, 2>> release;  // major, minor
    bool uefi = false;
  } bios;
  struct {  // type 1: system
    std::string manufacturer, product, version, serial, sku, family;
    std::optional<std::array<uint8_t, 16>> uuid;
  } system;
  struct {  // type 2: base board; written only when something of it is given
    bool given = false;
    std::string manufacturer, product, version, serial, asset, location;
  } board;
  struct {  // type 3: chassis
    std::string manufacturer, version, serial, asset, sku;
  } chassis;
  struct {  // type 4: processors
    std::string socket_prefix, manufacturer, version, serial, asset, part;
    uint16_t max_speed = 2000, current_speed = 2000;  // MHz
    std::optional<uint64_t> processor_id;
  } processor;
  std::vector<std::string> oem_strings;  // type 11; none: not written
  struct {                               // type 17: memory devices
    std::string locator_prefix, bank, manufacturer, serial, asset, part;
    uint16_t speed = 0;  // MT/s; 0: unknown
  } memory;
  std::vector<std::vector<uint8_t>> structures;  // -smbios file=: whole structures, with their strings
};

// What the machine itself says.
struct SmbiosMachine {
  std::string product;  // type 1 when the user gives none: "Standard PC (i440FX + PIIX, 1996)"
  std::array<uint8_t, 16> uuid{};
  uint32_t sockets = 1, cores = 1, threads = 1;      // of each socket; of each core
  uint64_t ram_low = 0, ram_high = 0;                // bytes from 0; from 4 GiB
  uint32_t cpuid_signature = 0, cpuid_features = 0;  // CPUID 1: EAX, EDX
};

struct SmbiosTables {
  std::vector<uint8_t> structures;  // etc/smbios/smbios-tables
  std::vector<uint8_t> anchor;      // etc/smbios/smbios-anchor: checksums in place for an address of 0
};
SmbiosTables build_smbios(const SmbiosConfig& config, const SmbiosMachine& machine);

// Checks a file of structures (-smbios file=): header, length, terminated strings. The error tells what is wrong.
Result<> check_smbios_structure(const std::vector<uint8_t>& bytes);

}  // namespace kite::boot
