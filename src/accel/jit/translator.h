// Translator: host code for the warm blocks of one Cpu. Used by the thread that runs the Cpu.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "accel/jit/code_memory.h"
#include "accel/jit/perf_map.h"
#include "accel/jit/plan.h"
#include "accel/jit/runtime.h"
#include "metrics/metrics.h"
#include "support/pool.h"

namespace kite::jit {

struct EmitterSpace;

struct TranslatorOptions {
  size_t code_bytes = size_t{128} << 20;  // address space for code; it is committed as it is used
  uint32_t threshold = 16;                // entries after which a block is translated
  uint32_t first_entries = 500;           // for which its places ask the TLB; then they have ranges
  // Ranges are for blocks that are entered again within so many time-stamps, on average: those of the rest would push
  // each other out of the host's caches.
  uint64_t busy_cycles = 32'768;
  uint32_t trial_entries = 1000;                   // after which it is judged which of these are of use; at least 1
  uint8_t patience = cpu::RangeRecord::kPatience;  // misses until a range is filled
  bool profile = false;                            // code counts the blocks that are entered, and the time spent in it
  std::shared_ptr<PerfMap> perf_map = {};          // gets the names of all code; may be null
};

class Translator final : public cpu::BlockTranslator {
 public:
  // A translator for `cpu`, which must outlive it.
  static Result<std::unique_ptr<Translator>> create(cpu::Cpu& cpu, const TranslatorOptions& options);
  Translator(cpu::Cpu& cpu, const TranslatorOptions& options);
  ~Translator() override;
  Translator(const Translator&) = delete;
  Translator& operator=(const Translator&) = delete;

  [[nodiscard]] uint32_t threshold() const override { return options_.threshold; }
  bool translate(cpu::Cpu& cpu, cpu::Block& block) override;
  Entry enter(cpu::Cpu& cpu, cpu::Block& block) override;
  void code_written(cpu::Cpu& cpu, Gpa physical) override;
  void code_written_elsewhere(cpu::Cpu& cpu) override;
  void flush(cpu::Cpu& cpu) override;

  // What happened since the Cpu was made.
  struct Counters {
    metrics::Counter blocks, guest_bytes, host_bytes, links, runs, stale, revived, flushes;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  void add_metrics(metrics::Group& group) const;  // the counters, which must outlive it
  // How often the interpreter has executed instructions for translated code, by operation: those that nothing is
  // emitted for, and those that have left the fast path (a TLB miss, an operand that may fault).
  struct FallBacks {
    std::array<uint64_t, static_cast<size_t>(x86::Op::kCount)> not_emitted{}, slow{};
  };
  [[nodiscard]] FallBacks fall_backs() const;

  // --- for the emitter ---
  [[nodiscard]] Translation::Stage first_stage() const {
    return options_.first_entries == 0 ? Translation::Stage::kTrial : Translation::Stage::kFirst;
  }
  [[nodiscard]] bool profiles() const { return options_.profile; }
  [[nodiscard]] const Layout& layout() const { return layout_; }
  [[nodiscard]] const Runtime& runtime() const { return runtime_; }
  void save_eflags(Assembler& a) const;
  Site& new_site() { return sites_.add(); }
  Exit& new_exit() { return exits_.add(); }
  // For one place in the code, or for all that address the stack with up to 8 bytes.
  RangePlace new_range(unsigned bytes, bool writes, Translation& owner, uint16_t place);
  [[nodiscard]] RangePlace stack_range(size_t kind) const { return range_at(kind); }
  uint32_t& new_counter();
  // Whether the instruction there goes from page to page: a range is of no use to it.
  [[nodiscard]] bool moves(Gpa place) const { return moving_.contains(place); }
  // Binds the site's instruction to its handler.
  void bind_ops(Site& site);
  // Put before the addresses of a mode's code where indirect branches look for them.
  [[nodiscard]] uint64_t jump_salt(uint32_t mode_key);  // 0 for the most used of modes
  // Between instructions: what to go on with at rip, if that is known and nothing is due before.
  [[nodiscard]] const void* code_at_rip(const cpu::Cpu& cpu) const;

 private:
  // The translations of one physical page.
  struct Page {
    std::vector<Translation*> translations;
    const std::atomic<uint32_t>* generation_at = nullptr;
    uint32_t generation = 0;  // of those that are not stale
    bool live = false;        // some are not
  };

  struct PageState {
    Gpa address = 0;
    const std::atomic<uint32_t>* generation_at = nullptr;
    uint32_t generation = 0;
  };

  struct Span {
    const uint8_t* start;
    size_t bytes;
  };

  void start_code();
  // The data behind the code: ranges, their records, the counters of entries, and the ranges' patience.
  [[nodiscard]] size_t most_ranges() const { return memory_.data_size() / (4 * sizeof(cpu::AccessRange)); }
  [[nodiscard]] size_t most_counters() const { return most_ranges() * sizeof(cpu::AccessRange) / sizeof(uint32_t); }
  [[nodiscard]] RangePlace range_at(size_t number) const {
    const cpu::TranslationArea& area = cpu_.translation;
    return {area.ranges + number, area.records + number, area.patience + number};
  }
  void emit(cpu::Block& block, Translation& translation);
  void count_down(Translation& translation);
  [[nodiscard]] uint32_t entries_of(Translation::Stage stage) const;
  [[nodiscard]] bool is_busy(const Translation& translation) const;
  void try_again(Translation& translation);
  static void stop_counting(Translation& translation);
  void judge_places(const Translation& translation);
  void describe(const cpu::Block& block, const Span& hot, const Span& cold) const;
  void log_summary() const;
  [[nodiscard]] bool has_room() const;
  uint32_t exec_id(uint64_t linear_page, Gpa page);
  const uint8_t* entry_of(Translation& translation, const uint8_t* Translation::* entry);
  void link(Translation& translation, const cpu::Block& block);
  [[nodiscard]] uint64_t salt_of(size_t mode) const;
  template <class Function>
  static void for_pages(const Translation& translation, const Function& function);
  Page& renew_page(const PageState& state);
  void make_stale(Page& page);
  [[nodiscard]] RamBlock::Alarm alarm();
  void heed_watched();
  void begin_run();
  void translate_moved();
  void count_split(Translation& translation);
  Translation& alike(const Translation& old, Translation::Stage stage);
  void translate_again(Translation& old, Translation::Stage stage);
  void revive(Translation& translation);

  cpu::Cpu& cpu_;
  TranslatorOptions options_;
  Layout layout_;
  CodeMemory memory_;
  Assembler hot_, cold_;
  uint8_t* cold_start_ = nullptr;
  uint32_t* counters_of_entries_ = nullptr;
  size_t range_count_ = 0, counter_count_ = 0;
  std::unordered_set<Gpa> moving_;
  Runtime runtime_;
  std::unique_ptr<EmitterSpace> space_;
  Pool<Site> sites_{cpu_.blocks().slabs()};
  Pool<std::array<cpu::Op, 2>> site_ops_{cpu_.blocks().slabs()};
  Pool<Exit> exits_{cpu_.blocks().slabs()};
  Pool<x86::Insn> insns_{cpu_.blocks().slabs()};
  Pool<Translation> translations_{cpu_.blocks().slabs()};
  std::unordered_map<Gpa, Page> pages_;
  struct PlaceHash {
    size_t operator()(const std::pair<uint64_t, Gpa>& place) const {
      return (place.first ^ (place.second << 20 | place.second >> 44)) * 0x9e3779b97f4a7c15 >> 12;
    }
  };
  std::unordered_map<std::pair<uint64_t, Gpa>, uint32_t, PlaceHash> exec_ids_;
  uint32_t last_exec_id_ = 0;
  std::vector<uint32_t> modes_;
  std::optional<size_t> most_used_;  // of them
  Counters counters_;
  FallBacks earlier_fall_backs_;  // of code that is gone
};

}  // namespace kite::jit
