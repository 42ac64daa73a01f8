#include "support/result.h"

#include <cstring>

namespace kite {

std::string errno_text(int error) {
  char buffer[256];
  return strerror_r(error, buffer, sizeof buffer);
}

}  // namespace kite
