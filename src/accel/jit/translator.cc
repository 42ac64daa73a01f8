#include "accel/jit/translator.h"

#include <asm/prctl.h>
#include <immintrin.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>

#include "accel/jit/emitter.h"
#include "cpu/events.h"
#include "support/log.h"

namespace kite::jit {
namespace {

// More than the longest block takes of either half.
constexpr size_t kLargestBlock = size_t{64} << 10;

// More than a block has places that access memory.
constexpr size_t kMostRangesOfBlock = 4 * cpu::BlockCache::kMaxOps;

// Above canonical addresses; the modes that fit there.
constexpr unsigned kSaltShift = 57;
constexpr size_t kMostModes = 120;
// A block that was not busy for so often is not looked at again.
constexpr uint8_t kMostIdleCounts = 4;
// How often a block is on trial at most.
constexpr uint8_t kMostTrials = 8;

constexpr uint64_t page_offset_mask = kPageSize - 1;

// Whose thread-local GS base is set.
thread_local const cpu::Cpu* gs_cpu = nullptr;

__attribute__((target("fsgsbase"))) void write_gs_base(uint64_t base) { __builtin_ia32_wrgsbase64(base); }

void point_gs_to(const cpu::Cpu& cpu) {
  if (gs_cpu == &cpu) return;
  constexpr unsigned long kFsgsbase = 1ul << 1;  // HWCAP2: user programs may execute WRGSBASE
  if ((::getauxval(AT_HWCAP2) & kFsgsbase) != 0)
    write_gs_base(reinterpret_cast<uintptr_t>(&cpu));
  else
    ::syscall(SYS_arch_prctl, ARCH_SET_GS, &cpu);
  gs_cpu = &cpu;
}

TranslatorOptions checked(TranslatorOptions options) {
  options.code_bytes = std::clamp(options.code_bytes & ~page_offset_mask, size_t{1} << 20, size_t{1} << 30);
  options.threshold = std::max(options.threshold, 1u);
  options.trial_entries = std::max(options.trial_entries, 1u);
  return options;
}

// Exceptions of the SSE unit are.
bool unmasked(const cpu::Cpu& cpu) {
  return (cpu.arch.fx.bytes[24] & 0x80) == 0 || (cpu.arch.fx.bytes[25] & 0x1f) != 0x1f;
}

}  // namespace

Result<std::unique_ptr<Translator>> Translator::create(cpu::Cpu& cpu, const TranslatorOptions& options) {
  auto translator = std::make_unique<Translator>(cpu, options);
  KITE_TRY(translator->memory_.map(translator->options_.code_bytes, translator->options_.code_bytes / 2,
                                   std::as_bytes(std::span(&cpu, 1))));
  translator->start_code();
  return translator;
}

Translator::Translator(cpu::Cpu& cpu, const TranslatorOptions& options)
    : cpu_(cpu), options_(checked(options)), layout_(cpu), space_(std::make_unique<EmitterSpace>()) {
  RamBlock::add_alarm(alarm());
}

Translator::~Translator() {
  RamBlock::remove_alarm(alarm());
  if (log::enabled(log::Category::kTranslator)) log_summary();
}

Translator::FallBacks Translator::fall_backs() const {
  FallBacks all = earlier_fall_backs_;
  sites_.for_each([&all](const Site& site) {
    (site.emitted ? all.slow : all.not_emitted)[static_cast<size_t>(site.code)] += site.calls;
  });
  return all;
}

void Translator::log_summary() const {
  using log::Category;
  log::print(Category::kTranslator,
             "cpu {}: {} blocks of {} bytes as {}, {} links, {} runs, {} stale, {} revived, {} flushes",
             cpu_.config.index, counters_.blocks.value(), counters_.guest_bytes.value(), counters_.host_bytes.value(),
             counters_.links.value(), counters_.runs.value(), counters_.stale.value(), counters_.revived.value(),
             counters_.flushes.value());
  const FallBacks all = fall_backs();
  std::vector<size_t> order;
  for (size_t i = 0; i < all.slow.size(); ++i)
    if (all.slow[i] + all.not_emitted[i] != 0) order.push_back(i);
  std::ranges::sort(order, std::greater{}, [&](size_t i) { return all.slow[i] + all.not_emitted[i]; });
  for (const size_t i : order)
    log::print(Category::kTranslator, "  {:<12} interpreted {:>12}, left the fast path {:>12}",
               x86::op_name(static_cast<x86::Op>(i)), all.not_emitted[i], all.slow[i]);
}

void Translator::add_metrics(metrics::Group& group) const {
  constexpr auto kBytes = metrics::Unit::kBytes;
  group.add("blocks-translated", counters_.blocks, {.help = "blocks that were warm and became host code"});
  group.add("guest-bytes", counters_.guest_bytes, {.help = "guest code of translated blocks", .unit = kBytes});
  group.add("host-bytes", counters_.host_bytes, {.help = "host code emitted for them", .unit = kBytes});
  group.add("runs", counters_.runs, {.help = "times that the run loop entered translated code"});
  group.add("links", counters_.links, {.help = "branches that were made to lead from block to block"});
  group.add("blocks-stale", counters_.stale, {.help = "translated blocks whose page was written"});
  group.add("blocks-revived", counters_.revived, {.help = "of these, whose bytes were found unchanged"});
  if (options_.profile) {
    const cpu::TranslationArea& area = cpu_.translation;
    group.add("blocks-entered", area.blocks_entered,
              {.help = "times that a translated block was entered, from anywhere"});
    group.add("cycles-translated", area.cycles, {.help = "spent in translated code", .unit = metrics::Unit::kCycles});
  }
  group.add("code-flushes", counters_.flushes, {.help = "times that all translated code was dropped"});
}

// A third for what runs, the rest for the ways out of it.
void Translator::start_code() {
  hot_.start(memory_.write(), memory_.run());
  cold_start_ = memory_.write() + (memory_.size() / 3 & ~page_offset_mask);
  cold_.start(cold_start_, cold_start_ + memory_.delta());
  for (Assembler* const code : {&hot_, &cold_}) code->set_cpu(&cpu_, sizeof(cpu::Cpu));
  cpu_.translation.drop_ranges(false);
  cpu_.translation.moved_count = 0;
  moving_.clear();
  range_count_ = counter_count_ = 0;
  cpu::TranslationArea& area = cpu_.translation;
  area.ranges = reinterpret_cast<cpu::AccessRange*>(memory_.data());
  area.records = reinterpret_cast<cpu::RangeRecord*>(area.ranges + most_ranges());
  counters_of_entries_ = reinterpret_cast<uint32_t*>(area.records + most_ranges());
  area.patience = reinterpret_cast<uint8_t*>(counters_of_entries_ + most_counters());
  for (; range_count_ < static_cast<size_t>(cpu::TlbKind::kCount); ++range_count_) {
    const RangePlace stack = range_at(range_count_);
    *stack.range = {};
    *stack.record = {.last_in_page = kPageSize - cpu::RangeRecord::kStackBytes,
                     .max_bytes = cpu::RangeRecord::kStackBytes,
                     .writes = true,
                     .shared = true};
    *stack.patience = stack.record->tolerance;
  }
  runtime_.emit(hot_, cpu_, layout_, options_.profile);
  if (options_.perf_map != nullptr)
    options_.perf_map->add(memory_.run(), static_cast<size_t>(hot_.here() - memory_.run()), "kite runtime");
}

// For perf, by the guest's address; the ways out of line apart.
void Translator::describe(const cpu::Block& block, const Span& hot, const Span& cold) const {
  if (options_.perf_map == nullptr) return;
  options_.perf_map->add(hot.start, hot.bytes, fmt::format("guest {:x}", block.rip));
  options_.perf_map->add(cold.start, cold.bytes, fmt::format("guest {:x} out of line", block.rip));
}

RangePlace Translator::new_range(unsigned bytes, bool writes, Translation& owner, uint16_t place) {
  const RangePlace made = range_at(range_count_++);
  *made.range = {};
  *made.record = {.last_in_page = static_cast<uint16_t>(kPageSize - bytes),
                  .max_bytes = static_cast<uint8_t>(bytes),
                  .writes = writes,
                  .tolerance = options_.patience,
                  .least = options_.patience,
                  .place = place,
                  .owner = &owner};
  *made.patience = options_.patience;
  return made;
}

uint32_t& Translator::new_counter() { return counters_of_entries_[counter_count_++]; }

// STI looks whether its block goes on, at the length of what is behind it.
void Translator::bind_ops(Site& site) {
  const cpu::Block& block = *site.block;
  const bool wide = (block.mode_key & cpu::mode::kWidthMask) == cpu::mode::kWidth64;
  const std::span<const uint8_t> code(block.code, block.bytes);
  x86::Insn& insn = insns_.add();
  x86::decode(code.subspan(site.place), {wide ? x86::CodeWidth::k64 : x86::CodeWidth::k32}, insn);
  auto& [op, end] = site_ops_.add();
  cpu::bind(cpu_, block.rip + site.place, insn, op);
  op.insn = &insn;
  end.handler = site.leaves ? cpu::fall_through : resume;
  end.rip = wide ? op.next_rip() : static_cast<uint32_t>(op.next_rip());
  end.link = &cpu::no_block;
  end.length = site.leaves || site.is_last ? 0 : 1;
  site.ops = &op;
}

bool Translator::has_room() const {
  return range_count_ + kMostRangesOfBlock < most_ranges() && counter_count_ < most_counters() &&
         hot_.cursor() + kLargestBlock < cold_start_ &&
         cold_.cursor() + kLargestBlock < memory_.write() + memory_.size();
}

uint32_t Translator::exec_id(uint64_t linear_page, Gpa page) {
  uint32_t& id = exec_ids_[{linear_page, page}];
  if (id == 0) id = ++last_exec_id_;
  return id;
}

uint64_t Translator::jump_salt(uint32_t mode_key) {
  const auto found = std::ranges::find(modes_, mode_key);
  const auto number = static_cast<size_t>(found - modes_.begin());
  if (found == modes_.end()) modes_.push_back(mode_key);
  constexpr uint32_t kUser64 = cpu::mode::kUser | cpu::mode::kWidth64;
  if (!most_used_ && (mode_key & (cpu::mode::kUser | cpu::mode::kWidthMask)) == kUser64) most_used_ = number;
  return salt_of(number);
}

// The first mode of 64-bit user code has none.
uint64_t Translator::salt_of(size_t mode) const { return mode == most_used_ ? 0 : (uint64_t{mode} + 1) << kSaltShift; }

bool Translator::translate(cpu::Cpu& cpu, cpu::Block& block) {
  if (!can_translate(block) || modes_.size() > kMostModes) return false;
  if (!has_room()) {
    cpu.blocks().flush_later();
    return false;
  }
  const uint64_t linear = cpu.code_linear();
  Translation& translation = translations_.add();
  translation.block = &block;
  translation.page = cpu::page_of(block.physical);
  translation.exec_id = exec_id(cpu::page_of(linear), translation.page);
  if (block.generation2_at != nullptr) {
    translation.page2 = cpu::page_of(block.physical2);
    translation.exec_id2 = exec_id(cpu::page_of(linear) + kPageSize, translation.page2);
  }
  for_pages(translation, [&](const PageState& state) { renew_page(state).translations.push_back(&translation); });
  translation.jump_salt = jump_salt(block.mode_key);
  translation.stage = first_stage();
  const auto* const exit = static_cast<const Exit*>(cpu.translation.exit);
  translation.entered_with_flags = exit != nullptr && exit->flags_in_host && !exit->crosses;
  emit(block, translation);
  counters_.guest_bytes.add(block.bytes);
  return true;
}

void Translator::emit(cpu::Block& block, Translation& translation) {
  const Span hot{hot_.here(), 0}, cold{cold_.here(), 0};
  translation.first_range = range_count_;
  BlockEmitter(*this, cpu_, block, translation, hot_, cold_, *space_).emit();
  for (const Assembler* const code : {&hot_, &cold_}) memory_.written_to(code->cursor());
  translation.range_count = range_count_ - translation.first_range;
  if (translation.entries_left != nullptr) {
    translation.is_counted = true;
    *translation.entries_left = entries_of(translation.stage);
    translation.counted_since = __rdtsc();
  }
  describe(block, {hot.start, static_cast<size_t>(hot_.here() - hot.start)},
           {cold.start, static_cast<size_t>(cold_.here() - cold.start)});
  block.translation = &translation;
  counters_.blocks.add();
  counters_.host_bytes.add(translation.host_bytes);
}

// With the pages that the block is on, as they were when it was decoded, or found unchanged.
template <class Function>
void Translator::for_pages(const Translation& translation, const Function& function) {
  const cpu::Block& block = *translation.block;
  function(PageState{translation.page, block.generation_at, block.generation});
  if (translation.exec_id2 != 0) function(PageState{translation.page2, block.generation2_at, block.generation2});
}

// What else is on the page and older than its last change is stale.
Translator::Page& Translator::renew_page(const PageState& state) {
  Page& page = pages_[state.address];
  make_stale(page);
  page.generation_at = state.generation_at;
  page.generation = state.generation;
  page.live = true;
  return page;
}

const void* Translator::code_at_rip(const cpu::Cpu& cpu) const {
  if (cpu.exception || cpu.attention() || cpu.translation.alarm.load(std::memory_order_relaxed) != 0 ||
      cpu.halt_requested || cpu.interrupt_shadow || cpu.arch.nmi_pending != 0 ||
      cpu.arch.activity != x86::Activity::kActive || must_step(cpu) || unmasked(cpu) ||
      cpu.translation.pages_watched.load(std::memory_order_relaxed) != 0)
    return nullptr;
  const auto mode = std::ranges::find(modes_, cpu.mode_key);
  if (mode == modes_.end()) return nullptr;
  const uint64_t rip = cpu.state.rip, salt = salt_of(static_cast<size_t>(mode - modes_.begin()));
  const auto& jump = cpu.translation.jumps[cpu::TranslationArea::jump_number(rip)];
  return jump.tag == (rip ^ salt) ? jump.code : nullptr;
}

// With the TLB asked in line where ranges were of no use.
void Translator::translate_moved() {
  cpu::TranslationArea& area = cpu_.translation;
  std::vector<Translation*> owners;
  for (uint32_t i = 0; i < area.moved_count; ++i) {
    auto* const owner = static_cast<Translation*>(area.moved[i].owner);
    if (area.moved[i].doubted) {
      try_again(*owner);
      continue;
    }
    moving_.insert(owner->block->physical + area.moved[i].place);
    if (std::ranges::find(owners, owner) == owners.end()) owners.push_back(owner);
  }
  area.moved_count = 0;
  for (Translation* const owner : owners) translate_again(*owner, owner->stage);
}

// Windows that are on two pages now and then are left to the interpreter; where they often are, there is a version of
// the block to go on in.
void Translator::count_split(Translation& translation) {
  constexpr uint8_t kOften = 16;
  if (++translation.splits == kOften) translate_again(translation, translation.stage);
}

// The entries of the translation's stage are used up.
void Translator::count_down(Translation& translation) {
  if (translation.stage == Translation::Stage::kFirst) {
    if (is_busy(translation)) return translate_again(translation, Translation::Stage::kTrial);
    if (++translation.idle_counts == kMostIdleCounts) return stop_counting(translation);
    translation.counted_since = __rdtsc();
    *translation.entries_left = options_.first_entries;
    return;
  }
  judge_places(translation);
  translate_again(translation, Translation::Stage::kLast);
}

uint32_t Translator::entries_of(Translation::Stage stage) const {
  return stage == Translation::Stage::kFirst ? options_.first_entries : options_.trial_entries;
}

// Whether the entries that were counted came one soon after the other.
bool Translator::is_busy(const Translation& translation) const {
  return (__rdtsc() - translation.counted_since) / std::max(entries_of(translation.stage), 1u) < options_.busy_cycles;
}

// Back to the trial: a block that was busy may have places that are of no use by now.
void Translator::try_again(Translation& translation) {
  if (translation.stage == Translation::Stage::kLast && translation.trials < kMostTrials)
    translate_again(translation, Translation::Stage::kTrial);
}

void Translator::stop_counting(Translation& translation) {
  static constexpr uint8_t kNop6[] = {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00};
  static_assert(2 * sizeof kNop6 == Translation::kCountBytes);
  translation.is_counted = false;
  for (size_t i = 0; i < 2; ++i) std::memcpy(translation.count + i * sizeof kNop6, kNop6, sizeof kNop6);
}

// A range that misses more often than once in so many times costs more than the TLB does.
void Translator::judge_places(const Translation& translation) {
  const uint32_t most_misses = options_.trial_entries / 32;
  const bool busy = is_busy(translation);
  for (size_t i = translation.first_range; i < translation.first_range + translation.range_count; ++i) {
    const cpu::RangeRecord& record = *range_at(i).record;
    const uint32_t misses = record.missed + static_cast<uint8_t>(record.tolerance - *range_at(i).patience);
    if (!busy || misses > most_misses) moving_.insert(translation.block->physical + record.place);
  }
}

// Another translation of the block that `old` is of.
Translation& Translator::alike(const Translation& old, Translation::Stage stage) {
  Translation& fresh = translations_.add();
  fresh.block = old.block;
  fresh.page = old.page;
  fresh.page2 = old.page2;
  fresh.exec_id = old.exec_id;
  fresh.exec_id2 = old.exec_id2;
  fresh.jump_salt = old.jump_salt;
  fresh.stage = stage;
  const auto with_flags = std::ranges::count(old.incoming, &Translation::entry_flags, &Translation::Incoming::entry);
  fresh.entered_with_flags = with_flags != 0;
  return fresh;
}

// Translated code is not running. What leads to the old code goes on in the new.
void Translator::translate_again(Translation& old, Translation::Stage stage) {
  cpu::Block& block = *old.block;
  if (old.stale || block.removed || block.translation != &old || !has_room()) return;
  Translation* plain = old.plain;
  if (plain == nullptr) {
    plain = &alike(old, Translation::Stage::kPlain);
    emit(block, *plain);
    block.translation = &old;
    if (!has_room()) return;
  }
  Translation& fresh = alike(old, stage);
  fresh.plain = plain;
  fresh.trials = static_cast<uint8_t>(old.trials + (stage == Translation::Stage::kTrial ? 1 : 0));
  emit(block, fresh);
  for_pages(fresh,
            [&](const PageState& state) { std::ranges::replace(pages_[state.address].translations, &old, &fresh); });
  for (const Translation* const other : {&old, plain}) {
    *other->start = 0xe9;  // jmp
    Assembler::patch(other->start + 1, memory_.delta(), fresh.entry_saved);
  }
  fresh.incoming = std::move(old.incoming);
  for (const Translation::Incoming& way : fresh.incoming)
    Assembler::patch(way.jump, memory_.delta(), entry_of(fresh, way.entry));
}

RamBlock::Alarm Translator::alarm() {
  cpu::TranslationArea& area = cpu_.translation;
  return {.raised = &area.alarm,
          .written = cpu::TranslationArea::kCodeWritten,
          .leave = cpu::TranslationArea::kRequest,
          .pages_watched = &area.pages_watched,
          .runs = &area.runs};
}

void Translator::heed_watched() {
  if (cpu_.translation.pages_watched.load(std::memory_order_relaxed) == 0) return;
  cpu_.translation.drop_watched([this](const uint8_t* host, uint64_t bytes) { cpu_.maybe_stored_at(host, bytes); });
}

// Code runs, which stores by ranges.
void Translator::begin_run() {
  cpu::TranslationArea& area = cpu_.translation;
  area.next_run();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  while (area.pages_watched.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    area.next_run();
    heed_watched();
    area.next_run();
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
}

Translator::Entry Translator::enter(cpu::Cpu& cpu, cpu::Block& block) {
  if (cpu.translation.moved_count != 0) [[unlikely]]
    translate_moved();
  if (const auto* const exit = static_cast<const Exit*>(cpu.translation.exit);
      exit != nullptr && exit->split != nullptr)
    count_split(*exit->split);
  cpu::TranslationArea& area = cpu.translation;
  if (area.alarm.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return nullptr;
  if (unmasked(cpu)) [[unlikely]] {
    area.exit = nullptr;  // exceptions of the SSE unit are unmasked: by its own handlers
    return cpu::interpret_block;
  }
  auto* current = static_cast<Translation*>(block.translation);
  if (current->stale) [[unlikely]]
    revive(*current);
  if (current->is_counted && *current->entries_left == 0) [[unlikely]]
    count_down(*current);
  auto& translation = *static_cast<Translation*>(block.translation);
  if (area.exit != nullptr) link(translation, block);
  cpu::TlbTable& tlb = cpu.tlb();
  if (tlb.at(block.rip).exec_tag == cpu::page_of(block.rip)) tlb.exec_id_at(block.rip) = translation.exec_id;
  if (translation.exec_id2 != 0) {
    const uint64_t second = cpu::page_of(block.rip) + kPageSize;
    const cpu::TlbEntry& entry2 = tlb.at(second);
    if (entry2.exec_tag != second || entry2.page != translation.page2) [[unlikely]] {
      area.exit = nullptr;  // gone since it was looked at
      return cpu::interpret_block;
    }
    tlb.exec_id_at(second) = translation.exec_id2;
  }
  const uint64_t rip = block.rip;
  area.jumps[cpu::TranslationArea::jump_number(rip)] = {.tag = rip ^ translation.jump_salt,
                                                        .code = translation.entry_checked};
  counters_.runs.add();
  point_gs_to(cpu);
  area.code = translation.entry_saved;
  area.returns_lost = 0;  // there are none
  begin_run();
  return runtime_.enter;
}

// RAX is lost.
void Translator::save_eflags(Assembler& a) const {
  a.byte(0x9f);              // lahf
  a.rr(1, 0x0f90, 0, kRax);  // seto al
  a.store(4, in_cpu(layout_.saved_flags), kRax);
}

// Where a way that expects `entry` leads to. Few blocks are entered with flags in EFLAGS: the others get that entry
// when the first way wants it.
const uint8_t* Translator::entry_of(Translation& translation, const uint8_t* Translation::* entry) {
  if (translation.*entry == nullptr) {
    translation.*entry = hot_.here();
    save_eflags(hot_);
    hot_.jmp(translation.entry_saved);
  }
  return translation.*entry;
}

void Translator::link(Translation& translation, const cpu::Block& block) {
  const Exit& exit = *static_cast<const Exit*>(std::exchange(cpu_.translation.exit, nullptr));
  if (exit.jump == nullptr || exit.target != block.rip || exit.mode_key != block.mode_key || &exit == &translation.self)
    return;
  const uint8_t* Translation::* entry = &Translation::entry_checked;
  if (!exit.crosses) {
    if (exit.page != translation.page) return;
    entry = exit.flags_in_host ? &Translation::entry_flags : &Translation::entry_saved;
  }
  if (!has_room()) return;
  Assembler::patch(exit.jump, memory_.delta(), entry_of(translation, entry));
  if (!exit.of_stale) translation.incoming.push_back({exit.jump, entry});
  counters_.links.add();
}

void Translator::code_written(cpu::Cpu&, Gpa physical) {
  const auto found = pages_.find(cpu::page_of(physical));
  if (found != pages_.end()) make_stale(found->second);
}

void Translator::code_written_elsewhere(cpu::Cpu&) {
  heed_watched();
  for (auto& [address, page] : pages_) make_stale(page);
}

void Translator::make_stale(Page& page) {
  if (!page.live || page.generation_at->load(std::memory_order_relaxed) == page.generation) return;
  page.live = false;
  for (Translation* translation : page.translations) {
    if (translation->stale) continue;
    translation->stale = true;
    std::memcpy(translation->first_bytes.data(), translation->start, translation->first_bytes.size());
    *translation->start = 0xe9;  // jmp
    translation->self.jump = translation->start + 1;
    Assembler::patch(translation->self.jump, memory_.delta(), translation->way_out);
    counters_.stale.add();
  }
}

// Its bytes have been found unchanged.
void Translator::revive(Translation& translation) {
  std::memcpy(translation.start, translation.first_bytes.data(), translation.first_bytes.size());
  translation.stale = false;
  translation.self.jump = nullptr;
  for_pages(translation, [this](const PageState& state) { renew_page(state); });
  counters_.revived.add();
}

void Translator::flush(cpu::Cpu& cpu) {
  earlier_fall_backs_ = fall_backs();
  cpu.translation.exit = nullptr;
  cpu.translation.forget_jumps();
  pages_.clear();
  translations_.clear();
  exits_.clear();
  sites_.clear();
  site_ops_.clear();
  insns_.clear();
  exec_ids_.clear();
  start_code();
  counters_.flushes.add();
}

}  // namespace kite::jit
