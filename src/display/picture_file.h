// A surface as a file for screenshots.
#pragma once

#include <string>

#include "display/surface.h"
#include "support/result.h"

namespace kite::display {

enum class PictureFormat : uint8_t { kPpm, kPng };

// "P6" with 8 bits a sample, or PNG with RGB of 8 bits.
std::string encode_picture(const Surface& surface, PictureFormat format);
// Writes the file anew.
Result<> write_picture(const Surface& surface, PictureFormat format, const std::string& path);

}  // namespace kite::display
