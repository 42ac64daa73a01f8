// What a QMP command answers: a JSON value, or an error with one of the protocol's classes.
#pragma once

#include <expected>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "support/result.h"

namespace kite::monitor {

using Json = nlohmann::ordered_json;

struct QmpError {
  std::string_view error_class = "GenericError";  // GenericError, CommandNotFound, DeviceNotFound, DeviceNotActive
  std::string description;
};

using QmpReply = std::expected<Json, QmpError>;

template <class... Args>
std::unexpected<QmpError> qmp_fail(fmt::format_string<Args...> text, Args&&... args) {
  return std::unexpected(QmpError{.description = fmt::format(text, std::forward<Args>(args)...)});
}

}  // namespace kite::monitor
