// Errors are values. A function that can fail returns Result<T>; the message is written for the person who reads it:
// what was asked, what is wrong, what to do.
#pragma once

#include <fmt/format.h>

#include <expected>
#include <string>
#include <utility>

namespace kite {

struct Error {
  std::string message;
};

template <class T = void>
using Result = std::expected<T, Error>;

using Failure = std::unexpected<Error>;

// `return fail("cannot open '{}': {}", path, errno_text(errno));`
template <class... Args>
[[nodiscard]] Failure fail(fmt::format_string<Args...> text, Args&&... args) {
  return Failure(Error{fmt::format(text, std::forward<Args>(args)...)});
}

// The C library's text for an errno value; thread-safe.
std::string errno_text(int error);

}  // namespace kite

#define KITE_CONCAT_(a, b) a##b
#define KITE_CONCAT(a, b) KITE_CONCAT_(a, b)

// Returns the error of a Result<> expression to the caller, or goes on.
#define KITE_TRY(expression)                                                \
  do {                                                                      \
    if (auto kite_try_result = (expression); !kite_try_result) [[unlikely]] \
      return ::kite::Failure(std::move(kite_try_result).error());           \
  } while (false)

// `KITE_ASSIGN(auto fd, open_file(path));` binds the value or returns the error.
#define KITE_ASSIGN(declaration, expression) KITE_ASSIGN_(KITE_CONCAT(kite_result_, __LINE__), declaration, expression)
#define KITE_ASSIGN_(name, declaration, expression)  \
  auto name = (expression);                          \
  if (!name) [[unlikely]]                            \
    return ::kite::Failure(std::move(name).error()); \
  declaration = std::move(*name)
