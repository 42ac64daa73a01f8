#include "support/suggest.h"

#include <algorithm>
#include <cstddef>

namespace kite {
namespace {

char fold(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
  return c == '_' ? '-' : c;
}

// Edit distance with swapped neighbours as one edit; case, '-' and '_' do not count.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) current[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(previous);
    previous.swap(current);
    current[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const char left = fold(a[i - 1]);
      const char right = fold(b[j - 1]);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (left == right ? 0u : 1u)});
      if (i > 1 && j > 1 && left == fold(b[j - 2]) && fold(a[i - 2]) == right) {
        current[j] = std::min(current[j], before[j - 2] + 1);
      }
    }
  }
  return current[b.size()];
}

}  // namespace

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
  std::string_view best;
  size_t best_distance = ~size_t{0};
  for (const std::string_view candidate : candidates) {
    const size_t longer = std::max(word.size(), candidate.size());
    const size_t shorter = std::min(word.size(), candidate.size());
    if ((longer - shorter) * 3 > longer) continue;  // the lengths alone are too far apart
    const size_t edits = distance(word, candidate);
    if (edits * 3 <= longer && edits < best_distance) {
      best = candidate;
      best_distance = edits;
    }
  }
  return best;
}

std::string suggestion(std::string_view word, std::span<const std::string_view> candidates) {
  constexpr size_t kMaxNames = 12;
  if (candidates.empty()) return {};
  if (const std::string_view near = nearest(word, candidates); !near.empty()) {
    return "; did you mean '" + std::string(near) + "'?";
  }
  std::string text = "; known: ";
  for (size_t i = 0; i < std::min(candidates.size(), kMaxNames); ++i) {
    if (i != 0) text += ", ";
    text += candidates[i];
  }
  if (candidates.size() > kMaxNames) text += ", ...";
  return text;
}

}  // namespace kite
