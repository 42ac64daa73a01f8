#include "block/nbd/handshake.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <string_view>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::block::nbd {
namespace {

constexpr uint32_t kLongestReply = 65536;
constexpr unsigned kMostReplies = 64;  // to one option
constexpr uint64_t kMaxExportBytes = uint64_t{1} << 62;
constexpr std::string_view kAllocation = "base:allocation";

struct OptionReply {
  uint32_t type = 0;
  std::vector<uint8_t> data;
};

// A server's text, fit for a terminal.
std::string printable(const std::vector<uint8_t>& data) {
  std::string text;
  for (const uint8_t byte : data) {
    if (text.size() == kLongestString) break;
    text += byte >= 0x20 && byte != 0x7f ? static_cast<char>(byte) : '?';
  }
  return text;
}

std::string refusal(uint32_t type, const std::string& export_name, const std::vector<uint8_t>& data) {
  std::string text;
  switch (type) {
    case kErrorUnsupported: text = "the server does not know the option"; break;
    case kErrorPolicy: text = "denied by the server's configuration"; break;
    case kErrorInvalid: text = "the server calls the request invalid"; break;
    case kErrorPlatform: text = "not supported on the server's platform"; break;
    case kErrorTlsRequired:
      text = "the server accepts only encrypted connections (TLS), which are not supported";
      break;
    case kErrorUnknown:
      text = fmt::format("Requested export not available: the server has no export '{}'", export_name);
      break;
    case kErrorShutdown: text = "the server is shutting down"; break;
    case kErrorBlockSizeRequired: text = "the server asks for other block sizes"; break;
    case kErrorTooBig: text = "the request is too large for the server"; break;
    default: text = fmt::format("error {:#x}", type); break;
  }
  if (!data.empty()) text += fmt::format(" (server reported: {})", printable(data));
  return text;
}

// One run of the handshake; its methods follow the sequence on the wire.
class Handshake {
 public:
  Handshake(Stream& stream, std::string name) : stream_(stream), name_(std::move(name)) {}
  Task<Result<ExportFacts>> run();

 private:
  Task<Result<>> receive(void* to, size_t bytes);
  Task<Result<>> send(std::vector<uint8_t> bytes);
  Task<Result<>> send_option(Option option, std::vector<uint8_t> data);
  Task<Result<OptionReply>> receive_reply(Option option);
  Task<Result<>> oldstyle();
  Task<Result<>> ask_structured();
  Task<Result<>> ask_context();
  Task<Result<bool>> go();  // false: the server does not know the option
  Task<Result<>> export_name();
  Result<> take_info(const std::vector<uint8_t>& data);
  Result<> check();

  Stream& stream_;
  std::string name_;
  ExportFacts export_;
  bool has_export_ = false;
  bool no_zeroes_ = false;
};

Task<Result<>> Handshake::receive(void* to, size_t bytes) {
  const auto done = co_await stream_.read(IoSlice(to, bytes));
  if (!done) co_return fail("Failed to read from the NBD server: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<Result<>> Handshake::send(std::vector<uint8_t> bytes) {
  const auto done = co_await stream_.write(std::move(bytes), {});
  if (!done) co_return fail("Failed to write to the NBD server: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<Result<>> Handshake::send_option(Option option, std::vector<uint8_t> data) {
  std::vector<uint8_t> out;
  append_be(out, kOptionMagic, 8);
  append_be(out, static_cast<uint32_t>(option), 4);
  append_be(out, data.size(), 4);
  out.insert(out.end(), data.begin(), data.end());
  co_return co_await send(std::move(out));
}

Task<Result<OptionReply>> Handshake::receive_reply(Option option) {
  uint8_t head[20];
  KITE_CO_TRY(co_await receive(head, sizeof head));
  if (load_be64(head) != kOptionReplyMagic) co_return fail("Unexpected option reply magic {:#x}", load_be64(head));
  if (load_be32(head + 8) != static_cast<uint32_t>(option)) {
    co_return fail("Unexpected option type {} in the answer to {}", load_be32(head + 8), static_cast<uint32_t>(option));
  }
  OptionReply reply{.type = load_be32(head + 12), .data = {}};
  const uint32_t bytes = load_be32(head + 16);
  if (bytes > kLongestReply) co_return fail("the server's answer to an option has {} bytes: too long", bytes);
  reply.data.resize(bytes);
  KITE_CO_TRY(co_await receive(reply.data.data(), bytes));
  co_return reply;
}

Task<Result<ExportFacts>> Handshake::run() {
  uint8_t head[16];
  KITE_CO_TRY(co_await receive(head, sizeof head));
  if (load_be64(head) != kServerMagic) co_return fail("Bad initial magic received: {:#018x}", load_be64(head));
  const uint64_t style = load_be64(head + 8);
  if (style == kOldstyleMagic) {
    KITE_CO_TRY(co_await oldstyle());
  } else if (style == kOptionMagic) {
    uint8_t flags[2];
    KITE_CO_TRY(co_await receive(flags, sizeof flags));
    const uint16_t offered = load_be16(flags);
    const bool fixed = (offered & kServerFixedNewstyle) != 0;
    no_zeroes_ = (offered & kServerNoZeroes) != 0;
    std::vector<uint8_t> ours;
    append_be(ours, (fixed ? kClientFixedNewstyle : 0) | (no_zeroes_ ? kClientNoZeroes : 0), 4);
    KITE_CO_TRY(co_await send(std::move(ours)));
    bool known = false;
    if (fixed) {
      KITE_CO_TRY(co_await ask_structured());
      if (export_.structured) KITE_CO_TRY(co_await ask_context());
      KITE_CO_ASSIGN(known, co_await go());
    }
    if (!known) KITE_CO_TRY(co_await export_name());
  } else {
    co_return fail("Bad server magic received: {:#018x}", style);
  }
  KITE_CO_TRY(check());
  co_return export_;
}

// [NBD] "Oldstyle negotiation": the size and the flags come at once.
Task<Result<>> Handshake::oldstyle() {
  if (!name_.empty()) co_return fail("Server does not support non-empty export names");
  uint8_t rest[12 + kExportPadding];
  KITE_CO_TRY(co_await receive(rest, sizeof rest));
  export_.bytes = load_be64(rest);
  export_.flags = load_be16(rest + 10);
  co_return Result<>{};
}

Task<Result<>> Handshake::ask_structured() {
  KITE_CO_TRY(co_await send_option(Option::kStructuredReply, {}));
  KITE_CO_ASSIGN(const OptionReply reply, co_await receive_reply(Option::kStructuredReply));
  if (reply.type == kErrorTlsRequired) co_return fail("{}", refusal(reply.type, name_, reply.data));
  if (reply.type == kReplyAck && !reply.data.empty()) co_return fail("the server's answer to an option is malformed");
  if (reply.type != kReplyAck && (reply.type & kReplyError) == 0)
    co_return fail("Unexpected option reply type {}", reply.type);
  export_.structured = reply.type == kReplyAck;
  co_return Result<>{};
}

Task<Result<>> Handshake::ask_context() {
  std::vector<uint8_t> data;
  append_be(data, name_.size(), 4);
  data.insert(data.end(), name_.begin(), name_.end());
  append_be(data, 1, 4);
  append_be(data, kAllocation.size(), 4);
  data.insert(data.end(), kAllocation.begin(), kAllocation.end());
  KITE_CO_TRY(co_await send_option(Option::kSetMetaContext, std::move(data)));
  for (unsigned i = 0; i < kMostReplies; ++i) {
    KITE_CO_ASSIGN(const OptionReply reply, co_await receive_reply(Option::kSetMetaContext));
    // Without contexts the disk is all data; whether the export exists is asked next.
    if ((reply.type & kReplyError) != 0 || reply.type == kReplyAck) co_return Result<>{};
    if (reply.type != kReplyMetaContext) co_return fail("Unexpected option reply type {}", reply.type);
    if (reply.data.size() < 4 ||
        std::string_view(reinterpret_cast<const char*>(reply.data.data()) + 4, reply.data.size() - 4) != kAllocation) {
      co_return fail("the server named a metadata context that was not asked for");
    }
    if (export_.allocation_context) co_return fail("the server named a metadata context twice");
    export_.allocation_context = load_be32(reply.data.data());
  }
  co_return fail("the server does not stop answering an option");
}

Task<Result<bool>> Handshake::go() {
  std::vector<uint8_t> data;
  append_be(data, name_.size(), 4);
  data.insert(data.end(), name_.begin(), name_.end());
  append_be(data, 1, 2);
  append_be(data, kInfoBlockSize, 2);
  KITE_CO_TRY(co_await send_option(Option::kGo, std::move(data)));
  for (unsigned i = 0; i < kMostReplies; ++i) {
    KITE_CO_ASSIGN(const OptionReply reply, co_await receive_reply(Option::kGo));
    if (reply.type == kErrorUnsupported) co_return false;
    if ((reply.type & kReplyError) != 0) co_return fail("{}", refusal(reply.type, name_, reply.data));
    if (reply.type == kReplyAck) {
      if (!has_export_) co_return fail("Broken server: it did not say how large the export is");
      co_return true;
    }
    if (reply.type != kReplyInfo) co_return fail("Unexpected option reply type {}", reply.type);
    KITE_CO_TRY(take_info(reply.data));
  }
  co_return fail("the server does not stop answering an option");
}

// [NBD] NBD_REP_INFO: what is not known is left aside.
Result<> Handshake::take_info(const std::vector<uint8_t>& data) {
  if (data.size() < 2) return fail("the server's description of the export is malformed");
  const uint16_t kind = load_be16(data.data());
  if (kind == kInfoExport) {
    if (data.size() != 12) return fail("the server's description of the export is malformed");
    export_.bytes = load_be64(data.data() + 2);
    export_.flags = load_be16(data.data() + 10);
    has_export_ = true;
  } else if (kind == kInfoBlockSize) {
    if (data.size() != 14) return fail("the server's block sizes are malformed");
    export_.min_block = load_be32(data.data() + 2);
    export_.preferred_block = load_be32(data.data() + 6);
    export_.max_block = load_be32(data.data() + 10);
  }
  return {};
}

// [NBD] NBD_OPT_EXPORT_NAME: a refusal is the end of the connection.
Task<Result<>> Handshake::export_name() {
  KITE_CO_TRY(co_await send_option(Option::kExportName, {name_.begin(), name_.end()}));
  uint8_t head[10];
  if (const auto done = co_await receive(head, sizeof head); !done) {
    co_return fail("Requested export not available: '{}' ({})", name_, done.error().message);
  }
  export_.bytes = load_be64(head);
  export_.flags = load_be16(head + 8);
  if (no_zeroes_) co_return Result<>{};
  uint8_t padding[kExportPadding];
  co_return co_await receive(padding, sizeof padding);
}

Result<> Handshake::check() {
  constexpr uint32_t kLargestMinimum = 65536;  // [NBD] "Block size constraints"
  if (export_.bytes > kMaxExportBytes) return fail("export length {} is too large", export_.bytes);
  const uint32_t min = export_.min_block;
  if (!std::has_single_bit(min) || min > kLargestMinimum) {
    return fail("server minimum block size {} is not a power of two up to {}", min, kLargestMinimum);
  }
  if (!std::has_single_bit(export_.preferred_block) || export_.preferred_block < min) {
    return fail("server preferred block size {} is not a power of two from {} on", export_.preferred_block, min);
  }
  if (export_.max_block < min) return fail("server maximum block size {} is not valid", export_.max_block);
  export_.max_block = static_cast<uint32_t>(align_down(std::min(export_.max_block, kUsualMaxBlock), min));
  if (!is_aligned(export_.bytes, min)) {
    return fail("export size {} is not multiple of minimum block size {}", export_.bytes, min);
  }
  if ((export_.flags & kHasFlags) == 0) export_.flags = 0;
  return {};
}

}  // namespace

Task<Result<ExportFacts>> negotiate(Stream& stream, std::string export_name) {
  Handshake handshake(stream, std::move(export_name));
  co_return co_await handshake.run();
}

}  // namespace kite::block::nbd
