// The table of named CPU models, as cpu_models.cc reads it. A model has the flags of its parent, those that it adds,
// and not those that it removes; flags are written with the names of feature_names(), separated by blanks.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace kite::x86 {

struct CpuModelRow {
  struct Identity {
    uint32_t family = 0, model = 0, stepping = 0;
  };
  std::string_view name = {};
  std::string_view parent = {};  // above it in the table, or empty
  std::string_view description = {};
  std::string_view vendor = {};
  Identity identity = {};
  uint32_t level = 0, xlevel = 0;
  std::string_view model_id = {};  // empty: the description
  std::string_view adds = {};
  std::string_view removes = {};
  bool takes_all_offered = false;
};
std::span<const CpuModelRow> cpu_model_rows();

}  // namespace kite::x86
