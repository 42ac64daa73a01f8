// Saved state of the LPC bridge: its own registers, power management and the TCO timer, in one section.
#include "devices/ich9/ich9_lpc.h"
#include "devices/ich9/ich9_lpc_regs.h"
#include "devices/section.h"

namespace kite::devices {

using namespace ich9_lpc_regs;

namespace {

struct Ich9LpcV2 {
  static constexpr uint32_t kVersion = 2;
  // Lines by number: bit n%64 of word n/64.
  std::array<uint64_t, 3> levels;
  std::array<uint16_t, 7> routes;
  uint16_t oic;
  uint32_t hptc, gcs, smi_enable, smi_status;
  uint8_t apm_command, apm_status, reset_control;
  uint16_t pm1_status, pm1_enable, pm1_control;
  int64_t overflow_tick;
  uint64_t gpe_status, gpe_enable;
  std::array<uint8_t, 6> tco_bytes;   // data in, data out, messages, watchdog, software IRQ
  std::array<uint16_t, 6> tco_words;  // status, control, initial, left
  int64_t tco_deadline_ns;
  bool tco_loaded;
  uint8_t tco_timeouts;
  bool smi_features_taken;
  uint64_t smi_features;
};
template <class Codec>
void visit(Codec& codec, Ich9LpcV2& wire) {
  codec.field(1, wire.levels);
  codec.field(2, wire.routes);
  codec.field(3, wire.oic);
  codec.field(4, wire.hptc);
  codec.field(5, wire.gcs);
  codec.field(6, wire.smi_enable);
  codec.field(7, wire.smi_status);
  codec.field(8, wire.apm_command);
  codec.field(9, wire.apm_status);
  codec.field(10, wire.reset_control);
  codec.field(11, wire.pm1_status);
  codec.field(12, wire.pm1_enable);
  codec.field(13, wire.pm1_control);
  codec.field(14, wire.overflow_tick);
  codec.field(15, wire.gpe_status);
  codec.field(16, wire.gpe_enable);
  codec.field(17, wire.tco_bytes);
  codec.field(18, wire.tco_words);
  codec.field(19, wire.tco_deadline_ns);
  codec.field(20, wire.tco_loaded);
  codec.field(21, wire.tco_timeouts);
  codec.field(22, wire.smi_features_taken);
  codec.field(23, wire.smi_features);
}

void put_tco(Ich9LpcV2& wire, const Tco::State& tco) {
  const auto& [data_in, data_out, status1, status2, control1, control2, message1, message2, watchdog, sw_irq, initial,
               loaded, left, deadline, timeouts] = tco;
  wire.tco_bytes = {data_in, data_out, message1, message2, watchdog, sw_irq};
  wire.tco_words = {status1, status2, control1, control2, initial, left};
  wire.tco_deadline_ns = deadline;
  wire.tco_loaded = loaded;
  wire.tco_timeouts = timeouts;
}

Tco::State tco_of(const Ich9LpcV2& wire) {
  return {.data_in = wire.tco_bytes[0],
          .data_out = wire.tco_bytes[1],
          .status1 = wire.tco_words[0],
          .status2 = wire.tco_words[1],
          .control1 = wire.tco_words[2],
          .control2 = wire.tco_words[3],
          .message1 = wire.tco_bytes[2],
          .message2 = wire.tco_bytes[3],
          .watchdog = wire.tco_bytes[4],
          .sw_irq = wire.tco_bytes[5],
          .initial = wire.tco_words[4],
          .loaded = wire.tco_loaded,
          .left = wire.tco_words[5],
          .deadline_ns = wire.tco_deadline_ns,
          .timeouts = wire.tco_timeouts};
}

AcpiPm::State pm_of(const Ich9LpcV2& wire) {
  return {.pm1_status = wire.pm1_status,
          .pm1_enable = wire.pm1_enable,
          .pm1_control = wire.pm1_control,
          .overflow_tick = wire.overflow_tick,
          .gpe_status = wire.gpe_status,
          .gpe_enable = wire.gpe_enable};
}

}  // namespace

void Ich9Lpc::save(StateWriter& writer) {
  const State state = [this] {
    const std::lock_guard lock(lock_);
    return state_;
  }();
  const auto& [levels, routes, oic, hptc, gcs, smi_enable, smi_status, apm_command, apm_status, smi_features_taken,
               smi_features] = state;
  const auto [pm1_status, pm1_enable, pm1_control, overflow, gpe_status, gpe_enable] = pm_.snapshot();
  Ich9LpcV2 wire{};
  wire.routes = routes;
  wire.oic = oic;
  wire.hptc = hptc;
  wire.gcs = gcs;
  wire.smi_enable = smi_enable;
  wire.smi_status = smi_status;
  wire.apm_command = apm_command;
  wire.apm_status = apm_status;
  wire.smi_features_taken = smi_features_taken;
  wire.smi_features = smi_features;
  wire.reset_control = reset_control_.value();
  wire.pm1_status = pm1_status;
  wire.pm1_enable = pm1_enable;
  wire.pm1_control = pm1_control;
  wire.overflow_tick = overflow;
  wire.gpe_status = gpe_status;
  wire.gpe_enable = gpe_enable;
  for (uint32_t line = 0; line < kSources; ++line)
    if (levels[line]) wire.levels[line / 64] |= uint64_t{1} << (line % 64);
  put_tco(wire, tco_.snapshot());
  save_section(writer, path(), wire, [&] { save_config(writer); });
}

void Ich9Lpc::restore(StateReader& reader) {
  Ich9LpcV2 wire{};
  const auto possible = [&] {
    bool routes = true;
    for (const uint16_t route : wire.routes) routes = routes && (route & ~0x7777) == 0;
    return require(reader, wire.levels[2] >> (kSources - 128) == 0, "a line is driven that does not exist") &&
           require(reader, routes, "an interrupt route has reserved bits") &&
           require(reader, (wire.smi_enable & ~kSmiEnBits) == 0 && (wire.smi_status & ~kSmiStsBits) == 0,
                   "SMI enable or status has unknown bits") &&
           require(reader, static_config_.smm || (wire.smi_enable & kApmcEn) != 0,
                   "SMI_EN.APMC_EN is clear, which it cannot be here") &&
           require(reader, (wire.smi_features & ~kSmiFeatures) == 0, "an SMI feature is unknown") &&
           require(reader, wire.oic <= 0x03ff && (wire.hptc & ~0x83u) == 0 && wire.gcs <= 0xfff,
                   "a root complex register has reserved bits") &&
           require(reader, (wire.reset_control & ~reset_control_.writable()) == 0, "reset control has unknown bits") &&
           pm_.possible(reader, pm_of(wire)) && Tco::possible(reader, tco_of(wire));
  };
  if (!restore_section(reader, path(), wire, [&] {
        if (possible()) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(config_lock_);
  reset_control_.set_value(wire.reset_control);
  pm_.restore(pm_of(wire));
  tco_.restore(tco_of(wire));
  {
    const std::lock_guard state_lock(lock_);
    std::bitset<kSources> levels;
    for (uint32_t line = 0; line < kSources; ++line) levels.set(line, (wire.levels[line / 64] >> (line % 64) & 1) != 0);
    state_ = State{.levels = levels,
                   .routes = wire.routes,
                   .oic = wire.oic,
                   .hptc = wire.hptc,
                   .gcs = wire.gcs,
                   .smi_enable = wire.smi_enable,
                   .smi_status = wire.smi_status,
                   .apm_command = wire.apm_command,
                   .apm_status = wire.apm_status,
                   .smi_features_taken = wire.smi_features_taken,
                   .smi_features = wire.smi_features};
  }
  if ((config_.bytes[kGenPmcon1] & kSmiLock) != 0) config_.writable[kGenPmcon1] = 0xf7 & ~kSmiLock;
  map_spaces();
  load_routes();
}

}  // namespace kite::devices
