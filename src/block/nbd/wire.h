// The network block device protocol as it is on the wire ([NBD] doc/proto.md of the NetworkBlockDevice project). All
// numbers are big-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kite::block::nbd {

constexpr uint16_t kDefaultPort = 10809;

// [NBD] "Handshake"
constexpr uint64_t kServerMagic = 0x4e42444d41474943;    // "NBDMAGIC"
constexpr uint64_t kOptionMagic = 0x49484156454f5054;    // "IHAVEOPT": newstyle
constexpr uint64_t kOldstyleMagic = 0x0000420281861253;  // a server without options
constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
constexpr uint16_t kServerFixedNewstyle = 1u << 0;
constexpr uint16_t kServerNoZeroes = 1u << 1;
constexpr uint32_t kClientFixedNewstyle = 1u << 0;
constexpr uint32_t kClientNoZeroes = 1u << 1;
constexpr uint64_t kExportPadding = 124;  // zeroes behind the answer to NBD_OPT_EXPORT_NAME

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

// [NBD] "Option reply types"
constexpr uint32_t kReplyAck = 1;
constexpr uint32_t kReplyServer = 2;
constexpr uint32_t kReplyInfo = 3;
constexpr uint32_t kReplyMetaContext = 4;
constexpr uint32_t kReplyError = 1u << 31;
constexpr uint32_t kErrorUnsupported = kReplyError + 1;
constexpr uint32_t kErrorPolicy = kReplyError + 2;
constexpr uint32_t kErrorInvalid = kReplyError + 3;
constexpr uint32_t kErrorPlatform = kReplyError + 4;
constexpr uint32_t kErrorTlsRequired = kReplyError + 5;
constexpr uint32_t kErrorUnknown = kReplyError + 6;
constexpr uint32_t kErrorShutdown = kReplyError + 7;
constexpr uint32_t kErrorBlockSizeRequired = kReplyError + 8;
constexpr uint32_t kErrorTooBig = kReplyError + 9;

constexpr uint16_t kInfoExport = 0;
constexpr uint16_t kInfoName = 1;
constexpr uint16_t kInfoDescription = 2;
constexpr uint16_t kInfoBlockSize = 3;

// [NBD] "Transmission flags"
enum ExportFlag : uint16_t {
  kHasFlags = 1u << 0,
  kReadOnly = 1u << 1,
  kSendFlush = 1u << 2,
  kSendFua = 1u << 3,
  kSendTrim = 1u << 5,
  kSendWriteZeroes = 1u << 6,
  kSendDf = 1u << 7,
  kCanMultiConn = 1u << 8,
  kSendCache = 1u << 10,
  kSendFastZero = 1u << 11,
};

// [NBD] "Request types"
enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};
enum CommandFlag : uint16_t {
  kFlagFua = 1u << 0,
  kFlagNoHole = 1u << 1,
  kFlagDf = 1u << 2,
  kFlagRequestOne = 1u << 3,
  kFlagFastZero = 1u << 4,
};

constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kSimpleReplyMagic = 0x67446698;
constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
constexpr size_t kRequestBytes = 28;
constexpr size_t kSimpleReplyBytes = 16;
constexpr size_t kStructuredReplyBytes = 20;

// [NBD] "Structured reply types"
constexpr uint16_t kChunkDone = 1u << 0;
constexpr uint16_t kChunkNone = 0;
constexpr uint16_t kChunkData = 1;
constexpr uint16_t kChunkHole = 2;
constexpr uint16_t kChunkBlockStatus = 5;
constexpr uint16_t kChunkErrorBit = 1u << 15;
constexpr uint16_t kChunkError = kChunkErrorBit + 1;
constexpr uint16_t kChunkErrorOffset = kChunkErrorBit + 2;

// [NBD] "base:allocation" metadata context
constexpr uint32_t kStateHole = 1u << 0;
constexpr uint32_t kStateZero = 1u << 1;
// "qemu:dirty-bitmap:NAME"
constexpr uint32_t kStateDirty = 1u << 0;

// [NBD] "Size constraints": what every server takes in one request, and every client sends.
constexpr uint32_t kUsualMaxBlock = uint32_t{32} << 20;

// The names of exports and contexts, and messages, have at most this many bytes.
constexpr uint32_t kLongestString = 4096;

inline void append_be(std::vector<uint8_t>& out, uint64_t value, unsigned bytes) {
  for (unsigned i = bytes; i-- > 0;) out.push_back(static_cast<uint8_t>(value >> (i * 8)));
}

// [NBD] "Error values": those of Linux, whatever the server's system is.
int errno_of(uint32_t error);
// The one that stands for an errno of ours.
uint32_t error_value(int code);

}  // namespace kite::block::nbd
