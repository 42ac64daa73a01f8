// Saved state of the floppy controller. A transfer whose disk is at work begins its disk's part anew.
#include "devices/fdc/fdc.h"
#include "devices/section.h"

namespace kite::devices {

using namespace fdc_regs;

struct Fdc::Saved {
  static constexpr uint32_t kVersion = 1;
  uint8_t dor, tdr, dsr, phase;
  bool resetting;
  std::array<uint8_t, kMostBytes> command, result;
  uint8_t command_bytes, result_bytes, result_at;
  std::array<uint8_t, 3> first;  // track, head, sector
  uint16_t sectors;
  std::vector<uint8_t> data;
  uint32_t data_at;
  bool cut_short;
  // specify (2), last count, config, precompensation, perpendicular, power, options
  std::array<uint8_t, 8> settings;
  bool locked;
  uint8_t reset_senses;
  std::array<uint8_t, 4> seek_ends;
  bool irq;
};

template <class Codec>
void visit(Codec& codec, Fdc::Saved& wire) {
  codec.field(1, wire.dor);
  codec.field(2, wire.tdr);
  codec.field(3, wire.dsr);
  codec.field(4, wire.phase);
  codec.field(5, wire.resetting);
  codec.field(6, wire.command);
  codec.field(7, wire.result);
  codec.field(8, wire.command_bytes);
  codec.field(9, wire.result_bytes);
  codec.field(10, wire.result_at);
  codec.field(11, wire.first);
  codec.field(12, wire.sectors);
  codec.field(13, wire.data);
  codec.field(14, wire.data_at);
  codec.field(15, wire.settings);
  codec.field(16, wire.locked);
  codec.field(17, wire.reset_senses);
  codec.field(18, wire.seek_ends);
  codec.field(19, wire.irq);
  codec.field(20, wire.cut_short);
}

void Fdc::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [dor, tdr, dsr, phase, resetting, command, command_bytes, result, result_bytes, result_at, first, sectors,
               data, data_at, cut_short, specify1, specify2, last_count, config, precompensation, perpendicular, power,
               options, locked, reset_senses, seek_ends, irq] = state_;
  save_section(
      writer, path(),
      Saved{.dor = dor,
            .tdr = tdr,
            .dsr = dsr,
            .phase = static_cast<uint8_t>(phase),
            .resetting = resetting,
            .command = command,
            .result = result,
            .command_bytes = command_bytes,
            .result_bytes = result_bytes,
            .result_at = result_at,
            .first = {first.track, first.head, first.sector},
            .sectors = sectors,
            .data = data,
            .data_at = data_at,
            .cut_short = cut_short,
            .settings = {specify1, specify2, last_count, config, precompensation, perpendicular, power, options},
            .locked = locked,
            .reset_senses = reset_senses,
            .seek_ends = seek_ends,
            .irq = irq});
}

bool Fdc::possible(const Saved& wire) {
  constexpr unsigned kMostSectors = 2 * 255;
  const size_t size = wire.data.size(), sectors = wire.sectors;
  const bool formats = (wire.command[0] & 0x1f) == kFormatTrack;
  if (wire.reset_senses > 4 || wire.first[1] > 1 || wire.first[2] == 0 || sectors > kMostSectors) {
    // A command that was refused may have named any place; its transfer never began.
    if (wire.reset_senses > 4 || wire.first[1] > 1 || sectors > 0) return false;
  }
  switch (static_cast<Phase>(wire.phase)) {
    case Phase::kCommand: return wire.command_bytes < kMostBytes && size == 0;
    case Phase::kResult: return wire.result_bytes <= kMostBytes && wire.result_at < wire.result_bytes && size == 0;
    case Phase::kLoading: return sectors != 0 && size == 0;
    case Phase::kToHost: return sectors != 0 && size == sectors * kSectorBytes && wire.data_at < size;
    case Phase::kFromHost:
    case Phase::kStoring: {
      const bool whole = size == sectors * (formats ? 4 : kSectorBytes) && wire.data_at <= size;
      return sectors != 0 && whole && (static_cast<Phase>(wire.phase) == Phase::kStoring || wire.data_at < size);
    }
    default: return false;
  }
}

void Fdc::restore(StateReader& reader) {
  Saved wire{};
  if (!restore_section(reader, path(), wire,
                       [&] { require(reader, possible(wire), "the floppy controller cannot be in this state"); }))
    return;
  const std::lock_guard lock(lock_);
  ++life_;
  state_ = State{.dor = wire.dor,
                 .tdr = wire.tdr,
                 .dsr = wire.dsr,
                 .phase = static_cast<Phase>(wire.phase),
                 .resetting = wire.resetting,
                 .command = wire.command,
                 .command_bytes = wire.command_bytes,
                 .result = wire.result,
                 .result_bytes = wire.result_bytes,
                 .result_at = wire.result_at,
                 .first = {.track = wire.first[0], .head = wire.first[1], .sector = wire.first[2]},
                 .sectors = wire.sectors,
                 .data = wire.data,
                 .data_at = wire.data_at,
                 .cut_short = wire.cut_short,
                 .specify1 = wire.settings[0],
                 .specify2 = wire.settings[1],
                 .last_count = wire.settings[2],
                 .config = wire.settings[3],
                 .precompensation = wire.settings[4],
                 .perpendicular = wire.settings[5],
                 .power = wire.settings[6],
                 .options = wire.settings[7],
                 .locked = wire.locked,
                 .reset_senses = wire.reset_senses,
                 .seek_ends = wire.seek_ends,
                 .irq = wire.irq};
  wiring_.irq.set(state_.irq);
}

}  // namespace kite::devices
