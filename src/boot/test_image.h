// What the tests of this room share: a guest's memory, files, and hand-made kernels.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "boot/linux_params.h"
#include "boot/loader.h"
#include "memory/address_space.h"
#include "support/bytes.h"

namespace kite::boot::testing {

using Bytes = std::vector<uint8_t>;

template <class T>
void put(Bytes& bytes, uint64_t offset, T value) {
  if (bytes.size() < offset + sizeof value) bytes.resize(offset + sizeof value);
  store(&bytes[offset], value);
}

// A file that is gone at the end of the test.
class TempFile {
 public:
  explicit TempFile(const Bytes& bytes) {
    static int counter = 0;
    const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = ::testing::TempDir() + "kite_boot_" + std::to_string(::getpid()) + "_" + test->name() + "_" +
            std::to_string(counter++);
    write(bytes);
  }
  ~TempFile() { std::remove(path_.c_str()); }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  void write(const Bytes& bytes) const {
    std::FILE* const file = std::fopen(path_.c_str(), "wb");
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(std::fwrite(bytes.data(), 1, bytes.size(), file), bytes.size());
    std::fclose(file);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Guest {
 public:
  static constexpr uint64_t kMib = uint64_t{1} << 20;

  // The memory map has the PC's hole below 1 MiB, and 128 KiB of ACPI tables at the top of low RAM.
  explicit Guest(uint64_t mib) : bytes(mib * kMib) {
    auto block = RamBlock::create("ram", bytes);
    EXPECT_TRUE(block);
    space.root().add(0, Region::ram("ram", *block));
    space.commit();
    request.ram_below_4g = bytes;
    request.e820 = {{0, 0x9fc00, E820Type::kRam},
                    {0x9fc00, 0x400, E820Type::kReserved},
                    {0xf0000, 0x10000, E820Type::kReserved},
                    {kMib, bytes - kMib - 0x20000, E820Type::kRam},
                    {bytes - 0x20000, 0x20000, E820Type::kAcpi}};
    request.acpi_rsdp = 0xe0000;
  }

  Result<LoadedKernel> boot(const Bytes& kernel) {
    const TempFile file(kernel);
    request.kernel_path = file.path();
    return load_kernel(request, memory);
  }
  template <class T>
  T at(uint64_t address) {
    return memory.load<T>(address).value();
  }
  std::string text(uint64_t address) {
    std::string result;
    while (const char c = static_cast<char>(at<uint8_t>(address++))) result += c;
    return result;
  }

  uint64_t bytes;
  AddressSpace space{"memory", uint64_t{1} << 52};
  GuestMemory memory{space};
  KernelRequest request;
};

// A bzImage of protocol 2.15 with a 64-bit entry, one setup sector and `payload`.
inline Bytes make_bzimage(Bytes payload = Bytes(0x1000, 0x90)) {
  using namespace linux_params;
  Bytes image(1024);
  image[kSetupSects] = 1;
  put<uint16_t>(image, kBootFlag, kBootFlagValue);
  put<uint16_t>(image, kJump, 0x6aeb);  // jmp past the header, which ends at 0x26c
  put(image, kMagic, kMagicValue);
  put<uint16_t>(image, kVersion, 0x20f);
  image[kLoadFlags] = kLoadedHigh;
  put<uint32_t>(image, kInitrdAddrMax, 0x7fffffff);
  put<uint32_t>(image, kKernelAlignment, 0x200000);
  image[kRelocatable] = 1;
  put<uint16_t>(image, kXloadFlags, kXlfKernel64);
  put<uint32_t>(image, kCmdlineSize, 2047);
  put<uint64_t>(image, kPrefAddress, 0x1000000);
  put<uint32_t>(image, kInitSize, 0x800000);
  put<uint32_t>(image, kSysSize, static_cast<uint32_t>((payload.size() + 15) / 16));
  image.insert(image.end(), payload.begin(), payload.end());
  return image;
}

struct Segment {
  uint64_t physical;
  Bytes bytes;
  uint64_t memory_size;
  uint32_t type = 1;
  uint64_t virtual_address = UINT64_MAX;  // as `physical`
};

inline Bytes make_elf32(uint32_t entry, const std::vector<Segment>& segments, uint16_t machine = 3) {
  Bytes image;
  put<uint32_t>(image, 0, 0x464c457f);
  put<uint32_t>(image, 4, 0x00010101);  // 32 bits, little-endian, version 1
  put<uint16_t>(image, 16, 2);
  put<uint16_t>(image, 18, machine);
  put<uint32_t>(image, 24, entry);
  put<uint32_t>(image, 28, 52);
  put<uint16_t>(image, 42, 32);
  put<uint16_t>(image, 44, static_cast<uint16_t>(segments.size()));
  image.resize(52 + 32 * segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const uint64_t at = 52 + 32 * i;
    const uint64_t linear = segment.virtual_address == UINT64_MAX ? segment.physical : segment.virtual_address;
    put(image, at, segment.type);
    put(image, at + 4, static_cast<uint32_t>(image.size()));
    put(image, at + 8, static_cast<uint32_t>(linear));
    put(image, at + 12, static_cast<uint32_t>(segment.physical));
    put(image, at + 16, static_cast<uint32_t>(segment.bytes.size()));
    put(image, at + 20, static_cast<uint32_t>(segment.memory_size));
    image.insert(image.end(), segment.bytes.begin(), segment.bytes.end());
  }
  return image;
}

inline Bytes make_elf64(uint64_t entry, const std::vector<Segment>& segments) {
  Bytes image;
  put<uint32_t>(image, 0, 0x464c457f);
  put<uint32_t>(image, 4, 0x00010102);  // 64 bits, little-endian, version 1
  put<uint16_t>(image, 16, 2);
  put<uint16_t>(image, 18, 62);
  put<uint64_t>(image, 24, entry);
  put<uint64_t>(image, 32, 64);
  put<uint16_t>(image, 54, 56);
  put<uint16_t>(image, 56, static_cast<uint16_t>(segments.size()));
  image.resize(64 + 56 * segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const uint64_t at = 64 + 56 * i;
    const uint64_t linear = segment.virtual_address == UINT64_MAX ? segment.physical : segment.virtual_address;
    put(image, at, segment.type);
    put<uint64_t>(image, at + 8, image.size());
    put(image, at + 16, linear);
    put(image, at + 24, segment.physical);
    put<uint64_t>(image, at + 32, segment.bytes.size());
    put(image, at + 40, segment.memory_size);
    image.insert(image.end(), segment.bytes.begin(), segment.bytes.end());
  }
  return image;
}

// The bytes of a note segment with the PVH entry point.
inline Bytes make_pvh_note(uint32_t entry) {
  Bytes note;
  put<uint32_t>(note, 0, 4);
  put<uint32_t>(note, 4, 4);
  put<uint32_t>(note, 8, 18);
  put<uint32_t>(note, 12, 0x006e6558);  // "Xen"
  put(note, 16, entry);
  return note;
}

// A multiboot header of three words.
inline Bytes make_multiboot_header(uint32_t flags) {
  Bytes header;
  put<uint32_t>(header, 0, 0x1badb002);
  put(header, 4, flags);
  put(header, 8, static_cast<uint32_t>(0 - 0x1badb002U - flags));
  return header;
}

}  // namespace kite::boot::testing
