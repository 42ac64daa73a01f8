// Saving and restoring a local APIC.
#include <utility>

#include "devices/apic/cpu_apic.h"
#include "devices/section.h"

namespace kite::devices {
namespace {

struct CpuApicStateV1 {
  static constexpr uint32_t kVersion = 1;
  uint64_t base = 0, icr = 0;
  uint32_t id = 0, tpr = 0, ldr = 0, dfr = 0, svr = 0, esr = 0, esr_pending = 0;
  std::array<uint32_t, apic::kLvtCount> lvt{};
  std::array<uint32_t, 8> isr{}, tmr{}, irr{};
  std::array<uint8_t, 2> lint_level{};
  uint8_t ext_int_message = 0;
  uint8_t timer_mode = 0, timer_divide = 0, timer_counting = 0;
  uint32_t timer_initial = 0, timer_count = 0;
  uint64_t timer_since = 0, deadline_tsc = 0;
  int64_t deadline_ns = 0, timer_not_before_ns = 0;
};

template <class Codec>
void visit(Codec& codec, CpuApicStateV1& s) {
  codec.field(1, s.base);
  codec.field(2, s.icr);
  codec.field(3, s.id);
  codec.field(4, s.tpr);
  codec.field(5, s.ldr);
  codec.field(6, s.dfr);
  codec.field(7, s.svr);
  codec.field(8, s.esr);
  codec.field(9, s.esr_pending);
  codec.field(10, s.lvt);
  codec.field(11, s.isr);
  codec.field(12, s.tmr);
  codec.field(13, s.irr);
  codec.field(14, s.lint_level);
  codec.field(15, s.ext_int_message);
  codec.field(16, s.timer_mode);
  codec.field(17, s.timer_divide);
  codec.field(18, s.timer_counting);
  codec.field(19, s.timer_initial);
  codec.field(20, s.timer_count);
  codec.field(21, s.timer_since);
  codec.field(22, s.deadline_tsc);
  codec.field(23, s.deadline_ns);
  codec.field(24, s.timer_not_before_ns);
}

template <class To, class From>
void copy_words(To& to, const From& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = from[i];
}

}  // namespace

CpuApic::State CpuApic::snapshot() const {
  State s;
  s.base = base_;
  s.id = id_;
  s.tpr = tpr_;
  s.ldr = ldr_;
  s.dfr = dfr_;
  s.svr = svr_;
  s.icr = icr_;
  s.esr = esr_;
  s.esr_pending = esr_pending_;
  copy_words(s.lvt, lvt_);
  copy_words(s.isr, isr_);
  copy_words(s.tmr, tmr_);
  copy_words(s.irr, irr_);
  copy_words(s.lint_level, lint_level_);
  s.ext_int_message = ext_int_message_;
  s.timer = timer_.state();
  return s;
}

void CpuApic::apply(const State& state) {
  const auto& [base, id, tpr, ldr, dfr, svr, icr, esr, esr_pending, lvt, isr, tmr, irr, lint_level, ext_int_message,
               timer] = state;
  base_ = base;
  id_ = id;
  tpr_ = tpr;
  ldr_ = ldr;
  dfr_ = dfr;
  svr_ = svr;
  icr_ = icr;
  esr_ = esr;
  esr_pending_ = esr_pending;
  copy_words(lvt_, lvt);
  copy_words(isr_, isr);
  copy_words(tmr_, tmr);
  copy_words(irr_, irr);
  copy_words(lint_level_, lint_level);
  ext_int_message_ = ext_int_message;
  timer_.set_state(timer);
}

const char* CpuApic::impossible_timer(const State& s) const {
  const ApicTimer::State& t = s.timer;
  if ((t.divide & ~0x0b) != 0) return "the divide configuration has reserved bits";
  if (static_cast<uint32_t>(t.mode) != (s.lvt[apic::kLvtTimer] >> 17 & 3)) return "the timer's mode is not its LVT's";
  if (t.counting != (t.count != 0)) return "the timer counts from nothing, or stands above 0";
  if (t.counting && (t.mode == ApicTimer::Mode::kTscDeadline || t.initial == 0)) return "the timer cannot be counting";
  if (t.deadline_tsc != 0 && t.mode != ApicTimer::Mode::kTscDeadline) return "a TSC deadline is armed in another mode";
  if (t.deadline_ns < 0 || (t.deadline_ns != 0 && t.deadline_tsc == 0)) return "the TSC deadline is at no time";
  if (t.not_before_ns < 0) return "the timer's pace lies before the beginning of time";
  return nullptr;
}

const char* CpuApic::impossible(const State& s) const {
  constexpr uint32_t kErrors = apic::kEsrSendIllegal | apic::kEsrReceiveIllegal | apic::kEsrIllegalRegister;
  const bool x2apic = (s.base & apic::kBaseX2Apic) != 0;
  if (!base_is_legal(s.base)) return "IA32_APIC_BASE cannot have that value";
  if (x2apic ? s.id != config_.id : s.id > 0xff) return "the id is not this processor's";
  if (s.tpr > 0xff || s.dfr > 0xf || (s.ldr & 0xffffff) != 0) return "TPR, DFR or LDR has reserved bits";
  if ((s.svr & ~svr_writable()) != 0) return "the spurious vector register has reserved bits";
  if ((s.icr & 0xffffffff & ~uint64_t{apic::kIcrWritable}) != 0) return "ICR has reserved bits";
  if (((s.esr | s.esr_pending) & ~kErrors) != 0) return "ESR has errors that do not exist";
  if (((s.isr[0] | s.irr[0] | s.tmr[0]) & 0xffff) != 0) return "an interrupt has a vector below 16";
  for (unsigned entry = 0; entry < apic::kLvtCount; ++entry) {
    const bool lint = entry == apic::kLvtLint0 || entry == apic::kLvtLint1;
    if ((s.lvt[entry] & ~(lvt_writable(entry) | (lint ? apic::kLvtRemoteIrr : 0))) != 0)
      return "a local vector table entry has reserved bits";
    if ((s.svr & apic::kSvrEnable) == 0 && (s.lvt[entry] & apic::kLvtMasked) == 0)
      return "a local interrupt is unmasked while the APIC is disabled";
  }
  return impossible_timer(s);
}

void CpuApic::save(StateWriter& writer) {
  const State state = snapshot();
  const auto& [base, id, tpr, ldr, dfr, svr, icr, esr, esr_pending, lvt, isr, tmr, irr, lint_level, ext_int_message,
               timer] = state;
  const auto& [mode, divide, initial, counting, count, since, deadline_tsc, deadline_ns, not_before_ns] = timer;
  CpuApicStateV1 wire{.base = base,
                      .icr = icr,
                      .id = id,
                      .tpr = tpr,
                      .ldr = ldr,
                      .dfr = dfr,
                      .svr = svr,
                      .esr = esr,
                      .esr_pending = esr_pending,
                      .lvt = lvt,
                      .isr = isr,
                      .tmr = tmr,
                      .irr = irr,
                      .lint_level = {lint_level[0], lint_level[1]},
                      .ext_int_message = ext_int_message,
                      .timer_mode = static_cast<uint8_t>(mode),
                      .timer_divide = divide,
                      .timer_counting = counting,
                      .timer_initial = initial,
                      .timer_count = count,
                      .timer_since = since,
                      .deadline_tsc = deadline_tsc,
                      .deadline_ns = deadline_ns,
                      .timer_not_before_ns = not_before_ns};
  save_section(writer, path(), wire);
}

void CpuApic::restore(StateReader& reader) {
  CpuApicStateV1 w;
  if (!restore_section(reader, path(), w)) return;
  if (w.lint_level[0] > 1 || w.lint_level[1] > 1 || w.ext_int_message > 1 || w.timer_counting > 1)
    reader.reject(fmt::format("{}: a flag is neither 0 nor 1", path()));
  const State state{.base = w.base,
                    .id = w.id,
                    .tpr = w.tpr,
                    .ldr = w.ldr,
                    .dfr = w.dfr,
                    .svr = w.svr,
                    .icr = w.icr,
                    .esr = w.esr,
                    .esr_pending = w.esr_pending,
                    .lvt = w.lvt,
                    .isr = w.isr,
                    .tmr = w.tmr,
                    .irr = w.irr,
                    .lint_level = {w.lint_level[0] != 0, w.lint_level[1] != 0},
                    .ext_int_message = w.ext_int_message != 0,
                    .timer = {.mode = static_cast<ApicTimer::Mode>(w.timer_mode),
                              .divide = w.timer_divide,
                              .initial = w.timer_initial,
                              .counting = w.timer_counting != 0,
                              .count = w.timer_count,
                              .since = w.timer_since,
                              .deadline_tsc = w.deadline_tsc,
                              .deadline_ns = w.deadline_ns,
                              .not_before_ns = w.timer_not_before_ns}};
  if (const char* reason = impossible(state)) reader.reject(fmt::format("{}: {}", path(), reason));
  if (!reader.ok()) return;
  apply(state);
  wake_if_pending();
}

}  // namespace kite::devices
