// "Did you mean": the nearest known name to a mistyped one.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kite {

// The candidate with the smallest edit distance, or empty when none is near (more than a third of the length away).
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

// "; did you mean 'x'?" or, when nothing is near, "; known: a, b, c" (clipped to 12 names). Empty for no candidates.
std::string suggestion(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace kite
