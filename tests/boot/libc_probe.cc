// Runs the C library's string, memory and math functions over fixed pseudo-random data and prints one digest for each.
// The library chooses variants by CPUID, so a guest and its host may run different code: the digests must be the same.
// Half of the operands end at a page behind which there is nothing.
#include <sys/mman.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <string_view>

namespace {

constexpr size_t kPage = 4096, kArea = 4 * kPage;
constexpr unsigned kRounds = 1500;

uint64_t random_state = 1;
uint64_t next() {  // splitmix64
  uint64_t z = (random_state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}
size_t below(size_t limit) { return next() % limit; }

class Digest {
 public:
  void add(const void* bytes, size_t count) {
    const auto* const at = static_cast<const unsigned char*>(bytes);
    for (size_t i = 0; i < count; ++i) value_ = (value_ ^ at[i]) * 0x100000001b3;
  }
  void add(uint64_t number) { add(&number, sizeof number); }
  [[nodiscard]] uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

// Memory with an inaccessible page behind it.
char* guarded() {
  void* const place = mmap(nullptr, kArea + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED || mprotect(static_cast<char*>(place) + kArea, kPage, PROT_NONE) != 0) {
    std::perror("mmap");
    std::exit(1);
  }
  return static_cast<char*>(place);
}

char* first;
char* second;

// `size` bytes of an area: at its end, or anywhere.
char* place_in(char* area, size_t size) { return area + (below(2) == 0 ? kArea - size : below(kArea - size)); }

size_t some_length() {
  switch (below(4)) {
    case 0: return below(16);
    case 1: return below(80);
    case 2: return below(600);
    default: return below(5000);
  }
}

void fill(char* at, size_t size, unsigned letters) {
  for (size_t i = 0; i < size; ++i) at[i] = static_cast<char>('a' + below(letters));
}

// The compiler must not know which function is called: it would do the work itself.
template <class F>
F hidden(F function) {
  F volatile copy = function;
  return copy;
}

uint64_t offset_of(const char* found, const char* from) {
  return found == nullptr ? ~uint64_t{0} : static_cast<uint64_t>(found - from);
}
int sign(int value) { return value < 0 ? -1 : value > 0 ? 1 : 0; }

template <class Work>
void probe(const char* name, Work work) {
  random_state = 7;
  fill(first, kArea, 26);
  fill(second, kArea, 26);
  Digest digest;
  for (unsigned i = 0; i < kRounds; ++i) work(digest);
  std::printf("%-12s %016llx\n", name, static_cast<unsigned long long>(digest.value()));
}

// A string of `length` letters out of `letters`, placed in `area`.
char* string_in(char* area, size_t length, unsigned letters) {
  char* const at = place_in(area, length + 1);
  fill(at, length, letters);
  at[length] = 0;
  return at;
}

void probe_memory() {
  probe("memcpy", [copy = hidden(std::memcpy)](Digest& digest) {
    const size_t size = some_length();
    char* const to = place_in(second, size);
    copy(to, place_in(first, size), size);
    digest.add(to, size);
  });
  probe("memmove", [move = hidden(std::memmove)](Digest& digest) {
    const size_t size = some_length();
    char* const from = place_in(first, size);
    const size_t room = static_cast<size_t>(first + kArea - from) - size;
    move(from + below(room < 200 ? room + 1 : 200), from, size);
    digest.add(from, size);
  });
  probe("memset", [set = hidden(std::memset)](Digest& digest) {
    const size_t size = some_length();
    char* const to = place_in(first, size);
    set(to, static_cast<int>(next() & 0xff), size);
    digest.add(to, size);
    digest.add(first, 64);
  });
  probe("memcmp", [compare = hidden(std::memcmp)](Digest& digest) {
    const size_t size = some_length() + 1;
    char *const a = place_in(first, size), *const b = place_in(second, size);
    std::memcpy(b, a, size);
    if (below(4) != 0) b[below(size)] ^= static_cast<char>(1 + below(255));
    digest.add(static_cast<uint64_t>(sign(compare(a, b, size))));
  });
  probe("memchr", [find = hidden(static_cast<const void* (*)(const void*, int, size_t)>(std::memchr))](Digest& digest) {
    const size_t size = some_length() + 1;
    char* const at = place_in(first, size);
    fill(at, size, 26);
    if (below(2) == 0) at[below(size)] = '#';
    digest.add(offset_of(static_cast<const char*>(find(at, '#', size)), at));
  });
  probe("memrchr", [find = hidden(static_cast<const void* (*)(const void*, int, size_t)>(memrchr))](Digest& digest) {
    const size_t size = some_length() + 1;
    char* const at = place_in(first, size);
    digest.add(offset_of(static_cast<const char*>(find(at, 'q', size)), at));
  });
  probe("memmem", [find = hidden(memmem)](Digest& digest) {
    const size_t size = some_length() + 16;
    char* const at = place_in(first, size);
    fill(at, size, 3);
    const char* const needle = string_in(second, 1 + below(9), 3);
    digest.add(offset_of(static_cast<const char*>(find(at, size, needle, std::strlen(needle))), at));
  });
}

void probe_searches() {
  probe("strlen",
        [length = hidden(std::strlen)](Digest& digest) { digest.add(length(string_in(first, some_length(), 26))); });
  probe("strnlen", [length = hidden(strnlen)](Digest& digest) {
    digest.add(length(string_in(first, some_length(), 26), below(700)));
  });
  probe("strchr", [find = hidden(static_cast<const char* (*)(const char*, int)>(std::strchr))](Digest& digest) {
    const char* const at = string_in(first, some_length(), 26);
    digest.add(offset_of(find(at, static_cast<int>('a' + below(30))), at));
  });
  probe("strrchr", [find = hidden(static_cast<const char* (*)(const char*, int)>(std::strrchr))](Digest& digest) {
    const char* const at = string_in(first, some_length(), 26);
    digest.add(offset_of(find(at, static_cast<int>('a' + below(30))), at));
  });
  probe("strstr", [find = hidden(static_cast<const char* (*)(const char*, const char*)>(std::strstr))](Digest& digest) {
    const char* const at = string_in(first, some_length(), 4);
    digest.add(offset_of(find(at, string_in(second, 1 + below(12), 4)), at));
  });
  probe("strspn", [span = hidden(std::strspn)](Digest& digest) {
    digest.add(span(string_in(first, some_length(), 12), string_in(second, below(20), 12)));
  });
  probe("strcspn", [span = hidden(std::strcspn)](Digest& digest) {
    digest.add(span(string_in(first, some_length(), 26), string_in(second, below(4), 30)));
  });
  probe("strpbrk",
        [find = hidden(static_cast<const char* (*)(const char*, const char*)>(std::strpbrk))](Digest& digest) {
          const char* const at = string_in(first, some_length(), 26);
          digest.add(offset_of(find(at, string_in(second, below(4), 30)), at));
        });
}

// Two strings that are the same up to a place.
void alike(char*& a, char*& b) {
  const size_t size = some_length() + 1;
  a = string_in(first, size, 26);
  b = place_in(second, size + 1);
  std::memcpy(b, a, size + 1);
  if (below(3) != 0) b[below(size)] ^= 0x20;
}

void probe_comparisons() {
  probe("strcmp", [compare = hidden(std::strcmp)](Digest& digest) {
    char *a = nullptr, *b = nullptr;
    alike(a, b);
    digest.add(static_cast<uint64_t>(sign(compare(a, b))));
  });
  probe("strncmp", [compare = hidden(std::strncmp)](Digest& digest) {
    char *a = nullptr, *b = nullptr;
    alike(a, b);
    digest.add(static_cast<uint64_t>(sign(compare(a, b, below(600)))));
  });
  probe("strcasecmp", [compare = hidden(strcasecmp)](Digest& digest) {
    char *a = nullptr, *b = nullptr;
    alike(a, b);
    digest.add(static_cast<uint64_t>(sign(compare(a, b))));
  });
  probe("strcpy", [copy = hidden(std::strcpy)](Digest& digest) {
    const char* const from = string_in(first, some_length(), 26);
    char* const to = place_in(second, std::strlen(from) + 1);
    digest.add(copy(to, from), std::strlen(from) + 1);
  });
  probe("strncpy", [copy = hidden(std::strncpy)](Digest& digest) {
    const size_t room = below(700);
    char* const to = place_in(second, room);
    digest.add(copy(to, string_in(first, some_length(), 26), room), room);
  });
  probe("strcat", [append = hidden(std::strcat)](Digest& digest) {
    const char* const tail = string_in(first, below(600), 26);
    const size_t head = below(600), size = head + std::strlen(tail) + 1;
    char* const to = place_in(second, size);
    to[head < size ? head : 0] = 0;
    fill(to, head, 26);
    digest.add(append(to, tail), size);
  });
  probe("wcslen", [length = hidden(std::wcslen)](Digest& digest) {
    const size_t size = below(700);
    auto* const at = reinterpret_cast<wchar_t*>(first + kArea) - size - 1;
    for (size_t i = 0; i < size; ++i) at[i] = static_cast<wchar_t>(1 + below(100000));
    at[size] = 0;
    digest.add(length(at));
  });
  probe("wmemset", [set = hidden(std::wmemset)](Digest& digest) {
    const size_t size = below(700);
    auto* const at = reinterpret_cast<wchar_t*>(first + kArea) - size;
    digest.add(set(at, static_cast<wchar_t>(next() & 0xffffff), size), size * sizeof(wchar_t));
  });
}

void probe_math() {
  struct Function {
    const char* name;
    double (*call)(double);
  };
  constexpr Function kFunctions[] = {
      {"sin", std::sin}, {"cos", std::cos},   {"tan", std::tan},     {"exp", std::exp},
      {"log", std::log}, {"atan", std::atan}, {"floor", std::floor}, {"nearbyint", std::nearbyint}};
  for (const Function& function : kFunctions)
    probe(function.name, [&function](Digest& digest) {
      const double x =
          static_cast<double>(next() >> 11) * 0x1p-53 * std::pow(2.0, static_cast<double>(below(24)) - 8.0);
      const double result = hidden(function.call)(x);
      digest.add(&result, sizeof result);
    });
  probe("pow", [power = hidden(static_cast<double (*)(double, double)>(std::pow))](Digest& digest) {
    const double result =
        power(static_cast<double>(below(100000)) / 777.0, static_cast<double>(below(4000)) / 100.0 - 20.0);
    digest.add(&result, sizeof result);
  });
  probe("fma", [fused = hidden(static_cast<double (*)(double, double, double)>(std::fma))](Digest& digest) {
    const double result =
        fused(static_cast<double>(next()), static_cast<double>(next()) * 0x1p-40, -static_cast<double>(next()));
    digest.add(&result, sizeof result);
  });
}

}  // namespace

int main() {
  first = guarded();
  second = guarded();
  probe_memory();
  probe_searches();
  probe_comparisons();
  probe_math();
  return 0;
}
