#include "display/picture_file.h"

#include <fcntl.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "support/bytes.h"
#include "support/fd.h"

namespace kite::display {

namespace {

// `filter`: a zero in front of each row, as [PNG] 9.2 filter type None.
std::string rgb_bytes(const Surface& surface, bool filter) {
  std::string bytes;
  bytes.reserve(surface.pixels().size() * 3 + surface.height());
  for (uint32_t y = 0; y < surface.height(); ++y) {
    if (filter) bytes += '\0';
    for (const uint32_t pixel : surface.row(y))
      for (const unsigned shift : {16u, 8u, 0u}) bytes += static_cast<char>(pixel >> shift & 0xff);
  }
  return bytes;
}

void append_be32(std::string& to, uint32_t value) {
  for (const unsigned shift : {24u, 16u, 8u, 0u}) to += static_cast<char>(value >> shift & 0xff);
}

// [PNG] 5.3: length, type, data, CRC of the latter two.
void append_chunk(std::string& to, std::string_view type, std::string_view data) {
  append_be32(to, static_cast<uint32_t>(data.size()));
  const size_t start = to.size();
  to += type;
  to += data;
  append_be32(to, static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(&to[start]), to.size() - start)));
}

std::string png(const Surface& surface) {
  const std::string raw = rgb_bytes(surface, true);
  std::string packed(compressBound(raw.size()), '\0');
  uLongf bytes = packed.size();
  compress2(reinterpret_cast<Bytef*>(packed.data()), &bytes, reinterpret_cast<const Bytef*>(raw.data()), raw.size(), 6);
  packed.resize(bytes);
  std::string header;
  append_be32(header, surface.width());
  append_be32(header, surface.height());
  header += {8, 2, 0, 0, 0};  // [PNG] 11.2.2: 8 bits, RGB, deflate, the one filter method, no interlace
  std::string file = "\x89PNG\r\n\x1a\n";
  append_chunk(file, "IHDR", header);
  append_chunk(file, "IDAT", packed);
  append_chunk(file, "IEND", "");
  return file;
}

}  // namespace

std::string encode_picture(const Surface& surface, PictureFormat format) {
  if (format == PictureFormat::kPng) return png(surface);
  return fmt::format("P6\n{} {}\n255\n", surface.width(), surface.height()) + rgb_bytes(surface, false);
}

Result<> write_picture(const Surface& surface, PictureFormat format, const std::string& path) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.valid()) return fail("cannot open '{}' for the picture: {}", path, std::strerror(errno));
  const std::string bytes = encode_picture(surface, format);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail("cannot write the picture to '{}': {}", path, std::strerror(errno));
    done += static_cast<size_t>(count);
  }
  return {};
}

}  // namespace kite::display
