#include "block/nbd/server_handshake.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "support/bytes.h"

namespace kite::block::nbd {
namespace {

constexpr uint32_t kLongestOption = 65536;  // of its data; what is longer is skipped and refused
constexpr unsigned kMostOptions = 1024;     // of one client

// The data of an option, read from the front. What is not there makes it not ok, and reads as nothing.
class OptionData {
 public:
  explicit OptionData(std::span<const uint8_t> bytes) : left_(bytes) {}
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return ok_ && left_.empty(); }
  uint32_t be32() { return take(4) ? load_be32(last_.data()) : 0; }
  uint16_t be16() { return take(2) ? load_be16(last_.data()) : 0; }
  std::string_view text(uint32_t bytes) {
    if (!take(bytes)) return {};
    return {reinterpret_cast<const char*>(last_.data()), last_.size()};
  }
  std::string_view rest() { return text(static_cast<uint32_t>(left_.size())); }

 private:
  bool take(size_t bytes) {
    ok_ = ok_ && bytes <= left_.size();
    if (!ok_) return false;
    last_ = left_.first(bytes);
    left_ = left_.subspan(bytes);
    return true;
  }
  std::span<const uint8_t> left_, last_;
  bool ok_ = true;
};

std::vector<uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

// One client's run of it.
class Haggling {
 public:
  Haggling(Stream& stream, const ExportList& exports) : stream_(stream), exports_(exports) {}
  Task<Result<Agreement>> run();

 private:
  enum class Next : uint8_t { kOption, kTransmission, kEnd };
  struct Row {
    Option option;
    Next (Haggling::*answer)(OptionData data);
  };
  static std::span<const Row> rows();

  Task<Result<>> greet();
  Task<Result<Next>> one_option();
  Task<Result<>> skip(uint32_t bytes);
  Task<Result<>> receive(void* to, size_t bytes);
  Task<Result<>> send();
  Next answer(std::span<const uint8_t> data);
  Next abort(OptionData data);
  Next list(OptionData data);
  Next export_name(OptionData data);
  Next info(OptionData data);
  Next structured_reply(OptionData data);
  Next meta_context(OptionData data);

  [[nodiscard]] std::shared_ptr<Export> find(std::string_view name) const;
  [[nodiscard]] uint16_t flags_of(const Export& disk) const;
  void reply(uint32_t type, const std::vector<uint8_t>& data = {});
  Next refuse(uint32_t type, std::string_view why);
  void describe(const Export& disk, std::span<const uint16_t> wanted);
  void choose(const Export& disk, std::string_view query, std::vector<uint32_t>& chosen) const;
  void take(std::shared_ptr<Export> disk);

  Stream& stream_;
  const ExportList& exports_;
  Agreement agreed_;
  std::shared_ptr<Export> context_owner_;  // the export that agreed_.contexts are of
  bool fixed_ = false, no_zeroes_ = false;
  uint32_t option_ = 0;
  std::vector<uint8_t> out_;  // the answer, as far as it is made
};

std::span<const Haggling::Row> Haggling::rows() {
  static constexpr Row kRows[] = {{Option::kExportName, &Haggling::export_name},
                                  {Option::kAbort, &Haggling::abort},
                                  {Option::kList, &Haggling::list},
                                  {Option::kInfo, &Haggling::info},
                                  {Option::kGo, &Haggling::info},
                                  {Option::kStructuredReply, &Haggling::structured_reply},
                                  {Option::kListMetaContext, &Haggling::meta_context},
                                  {Option::kSetMetaContext, &Haggling::meta_context}};
  return kRows;
}

Task<Result<>> Haggling::receive(void* to, size_t bytes) {
  const auto done = co_await stream_.read(IoSlice(to, bytes));
  if (!done) co_return fail("cannot receive: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<Result<>> Haggling::send() {
  const auto done = co_await stream_.write(std::exchange(out_, {}), {});
  if (!done) co_return fail("cannot send: {}", errno_text(done.error().code));
  co_return Result<>{};
}

Task<Result<Agreement>> Haggling::run() {
  KITE_CO_TRY(co_await greet());
  for (unsigned options = 0; options < kMostOptions; ++options) {
    KITE_CO_ASSIGN(const Next next, co_await one_option());
    if (next == Next::kTransmission) co_return std::move(agreed_);
    if (next == Next::kEnd) co_return fail("it left");
    co_await stream_.executor().schedule();  // others have their turn, however much it has sent at once
  }
  co_return fail("it does not stop sending options");
}

Task<Result<>> Haggling::greet() {
  append_be(out_, kServerMagic, 8);
  append_be(out_, kOptionMagic, 8);
  append_be(out_, kServerFixedNewstyle | kServerNoZeroes, 2);
  KITE_CO_TRY(co_await send());
  uint8_t raw[4];
  KITE_CO_TRY(co_await receive(raw, sizeof raw));
  const uint32_t flags = load_be32(raw);
  fixed_ = (flags & kClientFixedNewstyle) != 0;
  no_zeroes_ = (flags & kClientNoZeroes) != 0;
  // [NBD] "Client flags": the server MUST drop the connection when there is one that it does not know.
  if ((flags & ~(kClientFixedNewstyle | kClientNoZeroes)) != 0) co_return fail("unknown flags {:#x}", flags);
  co_return Result<>{};
}

Task<Result<Haggling::Next>> Haggling::one_option() {
  uint8_t head[16];
  KITE_CO_TRY(co_await receive(head, sizeof head));
  if (load_be64(head) != kOptionMagic) co_return fail("no option begins with {:#x}", load_be64(head));
  option_ = load_be32(head + 8);
  const uint32_t bytes = load_be32(head + 12);
  // [NBD] "Termination of the session during option haggling": what would take too much is a reason to hang up, and so
  // is anything but a name before both sides are fixed newstyle.
  const bool name = option_ == static_cast<uint32_t>(Option::kExportName);
  if (bytes > kUsualMaxBlock || (name && bytes > kLongestString)) co_return fail("an option of {} bytes", bytes);
  if (!name && !fixed_) co_return fail("option {} of a client that is not fixed newstyle", option_);
  Next next = Next::kOption;
  if (bytes > kLongestOption) {
    KITE_CO_TRY(co_await skip(bytes));
    refuse(kErrorTooBig, "the option is too long");
  } else {
    std::vector<uint8_t> data(bytes);
    KITE_CO_TRY(co_await receive(data.data(), bytes));
    next = answer(data);
  }
  KITE_CO_TRY(co_await send());
  co_return next;
}

Task<Result<>> Haggling::skip(uint32_t bytes) {
  std::vector<uint8_t> nowhere(kLongestOption);
  while (bytes != 0) {
    const uint32_t here = std::min(bytes, kLongestOption);
    KITE_CO_TRY(co_await receive(nowhere.data(), here));
    bytes -= here;
  }
  co_return Result<>{};
}

Haggling::Next Haggling::answer(std::span<const uint8_t> data) {
  for (const Row& row : rows())
    if (static_cast<uint32_t>(row.option) == option_) return (this->*row.answer)(OptionData(data));
  return refuse(kErrorUnsupported, "this server does not know the option");
}

void Haggling::reply(uint32_t type, const std::vector<uint8_t>& data) {
  append_be(out_, kOptionReplyMagic, 8);
  append_be(out_, option_, 4);
  append_be(out_, type, 4);
  append_be(out_, data.size(), 4);
  out_.insert(out_.end(), data.begin(), data.end());
}

Haggling::Next Haggling::refuse(uint32_t type, std::string_view why) {
  reply(type, bytes_of(why));
  return Next::kOption;
}

std::shared_ptr<Export> Haggling::find(std::string_view name) const {
  const auto found = std::ranges::find_if(exports_, [name](const auto& disk) { return disk->name() == name; });
  return found == exports_.end() || (*found)->ending() ? nullptr : *found;
}

// --- the options

Haggling::Next Haggling::abort(OptionData) {
  reply(kReplyAck);
  return Next::kEnd;
}

Haggling::Next Haggling::list(OptionData data) {
  if (!data.at_end()) return refuse(kErrorInvalid, "NBD_OPT_LIST has no data");
  for (const auto& disk : exports_) {
    if (disk->ending()) continue;
    std::vector<uint8_t> entry;
    append_be(entry, disk->name().size(), 4);
    entry.insert(entry.end(), disk->name().begin(), disk->name().end());
    entry.insert(entry.end(), disk->description().begin(), disk->description().end());
    reply(kReplyServer, entry);
  }
  reply(kReplyAck);
  return Next::kOption;
}

// [NBD] NBD_OPT_EXPORT_NAME: there is no way to say no but to hang up.
Haggling::Next Haggling::export_name(OptionData data) {
  auto disk = find(data.rest());
  if (disk == nullptr) return Next::kEnd;
  append_be(out_, disk->facts().bytes, 8);
  append_be(out_, flags_of(*disk), 2);
  if (!no_zeroes_) out_.resize(out_.size() + kExportPadding);
  take(std::move(disk));
  return Next::kTransmission;
}

// NBD_OPT_INFO and NBD_OPT_GO.
Haggling::Next Haggling::info(OptionData data) {
  const std::string name(data.text(data.be32()));
  std::vector<uint16_t> wanted(data.be16());
  for (uint16_t& each : wanted) each = data.be16();
  if (!data.at_end()) return refuse(kErrorInvalid, "the option's lengths do not fit together");
  auto disk = find(name);
  if (disk == nullptr) return refuse(kErrorUnknown, "export '" + name + "' not present");
  describe(*disk, wanted);
  reply(kReplyAck);
  if (option_ == static_cast<uint32_t>(Option::kInfo)) return Next::kOption;
  take(std::move(disk));
  return Next::kTransmission;
}

uint16_t Haggling::flags_of(const Export& disk) const {
  return static_cast<uint16_t>(disk.facts().flags | (agreed_.structured ? kSendDf : 0));
}

void Haggling::describe(const Export& disk, std::span<const uint16_t> wanted) {
  const auto tell = [this](uint16_t kind, const std::string& text) {
    std::vector<uint8_t> data;
    append_be(data, kind, 2);
    data.insert(data.end(), text.begin(), text.end());
    reply(kReplyInfo, data);
  };
  const auto is_wanted = [wanted](uint16_t kind) { return std::ranges::find(wanted, kind) != wanted.end(); };
  if (is_wanted(kInfoName)) tell(kInfoName, disk.name());
  if (is_wanted(kInfoDescription) && !disk.description().empty()) tell(kInfoDescription, disk.description());
  const ExportFacts& facts = disk.facts();
  std::vector<uint8_t> sizes;
  append_be(sizes, kInfoBlockSize, 2);
  for (const uint32_t size : {facts.min_block, facts.preferred_block, facts.max_block}) append_be(sizes, size, 4);
  reply(kReplyInfo, sizes);
  std::vector<uint8_t> whole;
  append_be(whole, kInfoExport, 2);
  append_be(whole, facts.bytes, 8);
  append_be(whole, flags_of(disk), 2);
  reply(kReplyInfo, whole);
}

Haggling::Next Haggling::structured_reply(OptionData data) {
  if (!data.at_end()) return refuse(kErrorInvalid, "NBD_OPT_STRUCTURED_REPLY has no data");
  if (agreed_.structured) return refuse(kErrorInvalid, "structured replies are agreed on already");
  agreed_.structured = true;
  reply(kReplyAck);
  return Next::kOption;
}

// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. The latter replaces what was chosen before, even when it
// fails.
Haggling::Next Haggling::meta_context(OptionData data) {
  const bool sets = option_ == static_cast<uint32_t>(Option::kSetMetaContext);
  if (sets) {
    agreed_.contexts.clear();
    context_owner_.reset();
  }
  if (!agreed_.structured) return refuse(kErrorInvalid, "structured replies are to be agreed on first");
  const std::string name(data.text(data.be32()));
  const uint32_t count = data.be32();
  std::vector<std::string> queries;
  for (uint32_t i = 0; i < count && data.ok(); ++i) queries.emplace_back(data.text(data.be32()));
  if (!data.at_end()) return refuse(kErrorInvalid, "the option's lengths do not fit together");
  auto disk = find(name);
  if (disk == nullptr) return refuse(kErrorUnknown, "export '" + name + "' not present");
  std::vector<uint32_t> chosen;
  for (const std::string& query : queries) choose(*disk, query, chosen);
  if (queries.empty() && !sets)
    for (uint32_t id = 0; id < disk->contexts().size(); ++id) chosen.push_back(id);
  for (const uint32_t id : chosen) {
    std::vector<uint8_t> entry;
    append_be(entry, sets ? id : 0, 4);
    const std::string& context = disk->contexts()[id];
    entry.insert(entry.end(), context.begin(), context.end());
    reply(kReplyMetaContext, entry);
  }
  reply(kReplyAck);
  if (sets) {
    agreed_.contexts = std::move(chosen);
    context_owner_ = std::move(disk);
  }
  return Next::kOption;
}

// [NBD] "Metadata querying": a list may be asked for with the beginning of names, up to a colon.
void Haggling::choose(const Export& disk, std::string_view query, std::vector<uint32_t>& chosen) const {
  const bool begins = option_ == static_cast<uint32_t>(Option::kListMetaContext) && query.ends_with(':');
  for (uint32_t id = 0; id < disk.contexts().size(); ++id) {
    const std::string& context = disk.contexts()[id];
    if (context != query && !(begins && context.starts_with(query))) continue;
    if (std::ranges::find(chosen, id) == chosen.end()) chosen.push_back(id);
  }
}

void Haggling::take(std::shared_ptr<Export> disk) {
  // [NBD] NBD_CMD_BLOCK_STATUS: contexts that were chosen for another export do not count.
  if (disk != context_owner_) agreed_.contexts.clear();
  agreed_.disk = std::move(disk);
}

}  // namespace

Task<Result<Agreement>> receive_client(Stream& stream, const ExportList& exports) {
  Haggling haggling(stream, exports);
  co_return co_await haggling.run();
}

}  // namespace kite::block::nbd
