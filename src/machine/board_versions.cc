#include "machine/board_versions.h"

#include <algorithm>
#include <array>

namespace kite::machine {

bool version_has(std::string_view board, BoardFeature feature) {
  constexpr std::array<std::string_view, 1> kWithoutSmramAtSmbase = {"pc-q35-4.1"};
  switch (feature) {
    case BoardFeature::kSmramAtSmbase:
      return std::find(kWithoutSmramAtSmbase.begin(), kWithoutSmramAtSmbase.end(), board) ==
             kWithoutSmramAtSmbase.end();
  }
  return true;
}

}  // namespace kite::machine
