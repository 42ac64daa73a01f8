// A guest that sends anything to two equal units, of which one is saved and restored on the way: they stay equal.
#include <cstdlib>
#include <random>

#include "devices/scsi/test_scsi.h"
#include "devices/storage/removable.h"
#include "devices/test_device.h"

namespace kite::devices {
namespace {

using namespace kite::testing;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kBytes = 128 << 10;
constexpr uint64_t kMostBytes = 256 << 10;

struct Pair {
  ScsiWorld world;
  const char* type;
  block::Drive& drive = world.add_drive(kBytes);
  ScsiDevice& unit;
  explicit Pair(const char* type_name) : type(type_name), unit(world.add(type_name, {{"serial", "S"}}, &drive)) {}
};

class Storm {
 public:
  explicit Storm(uint64_t seed) : random_(seed) {}

  // Opcodes that exist, most of the time; small numbers in the fields, most of the time.
  Bytes cdb() {
    static constexpr uint8_t kKnown[] = {0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28,
                                         0x2a, 0x2e, 0x2f, 0x35, 0x37, 0x41, 0x42, 0x43, 0x46, 0x4a, 0x51,
                                         0x52, 0x55, 0x5a, 0x88, 0x8a, 0x8e, 0x8f, 0x91, 0x93, 0x9e, 0xa0,
                                         0xa3, 0xa8, 0xaa, 0xac, 0xad, 0xae, 0xaf, 0xb9, 0xbd, 0xbe};
    Bytes cdb(kCdbBytes);
    cdb[0] = random_() % 16 == 0 ? byte() : kKnown[random_() % std::size(kKnown)];
    for (size_t i = 1; i < cdb.size(); ++i) cdb[i] = random_() % 4 != 0 ? 0 : byte();
    return cdb;
  }
  Bytes data(uint64_t bytes) {
    Bytes data(bytes);
    for (uint8_t& at : std::span(data).first(std::min<size_t>(bytes, 64))) at = random_() % 2 == 0 ? 0 : byte();
    return data;
  }
  uint8_t byte() { return static_cast<uint8_t>(random_() % 4 == 0 ? random_() : random_() % 24); }
  bool chance(unsigned of) { return random_() % of == 0; }

  void host_event(Pair& pair, unsigned kind) {
    auto* const tray = dynamic_cast<Removable*>(&pair.unit);
    switch (kind % 5) {
      case 0: return pair.unit.post_attention(sense::kBusReset);
      case 1: return pair.unit.logical_reset(sense::kDeviceReset);
      case 2: return pair.unit.reset();
      case 3: return tray == nullptr ? void() : tray->set_tray((kind & 8) != 0);
      default: return tray == nullptr ? void() : tray->request_eject();
    }
  }
  unsigned number() { return static_cast<unsigned>(random_() % 64); }

 private:
  std::mt19937_64 random_;
};

class ScsiStormTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Types, ScsiStormTest, ::testing::Values("scsi-hd", "scsi-cd"),
                         [](const auto& with) { return with.param[5] == 'h' ? "hd" : "cd"; });

TEST_P(ScsiStormTest, EqualUnitsStayEqual) {
  const uint64_t seeds = std::getenv("KITE_LONG") != nullptr ? 200 : 5;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    Storm storm(seed);
    Pair one(GetParam()), other(GetParam());
    for (int step = 0; step < 600; ++step) {
      if (storm.chance(20)) {
        const unsigned kind = storm.number();
        storm.host_event(one, kind);
        storm.host_event(other, kind);
      }
      if (storm.chance(30)) {
        const Bytes state = saved_state(other.unit);
        other.unit.reset();
        ASSERT_TRUE(restore_state(other.unit, state));
      }
      const Bytes cdb = storm.cdb();
      Cdb array{};
      std::copy(cdb.begin(), cdb.end(), array.begin());
      const ScsiTransfer transfer = one.unit.transfer_of(array);
      if (transfer.bytes > kMostBytes) continue;
      const bool out = transfer.direction == ScsiDirection::kFromGuest;
      const Bytes data = storm.data(out ? transfer.bytes : 0);

      const auto first = one.world.run(one.unit, cdb, data), second = other.world.run(other.unit, cdb, data);

      ASSERT_EQ(first.reply.status, second.reply.status) << "seed " << seed << " step " << step;
      ASSERT_EQ(first.sense(), second.sense()) << "seed " << seed << " step " << step;
      ASSERT_EQ(first.data, second.data) << "seed " << seed << " step " << step;
      ASSERT_LE(first.reply.moved, transfer.bytes);
    }
    ASSERT_EQ(saved_state(one.unit), saved_state(other.unit)) << "seed " << seed;
    ASSERT_EQ(one.world.content(one.drive, 0, kBytes), other.world.content(other.drive, 0, kBytes)) << "seed " << seed;
  }
}

TEST_P(ScsiStormTest, RefusedStateChangesNothing) {
  Storm storm(7);
  Pair pair(GetParam());
  unsigned refused = 0;
  for (int round = 0; round < 500; ++round) {
    const Bytes before = saved_state(pair.unit);
    Bytes damaged = before;
    damaged[storm.number() % damaged.size()] ^= static_cast<uint8_t>(1u << storm.number() % 8);
    if (restore_state(pair.unit, damaged)) continue;
    ++refused;
    ASSERT_EQ(saved_state(pair.unit), before);
  }
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace kite::devices
