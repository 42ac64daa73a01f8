#include "block/nbd/wire.h"

#include <cerrno>

namespace kite::block::nbd {

int errno_of(uint32_t error) {
  switch (error) {
    case 0: return 0;
    case 1: return EPERM;
    case 5: return EIO;
    case 12: return ENOMEM;
    case 22: return EINVAL;
    case 28: return ENOSPC;
    case 75: return EOVERFLOW;
    case 95: return ENOTSUP;
    case 108: return ESHUTDOWN;
    default: return EINVAL;  // "SHOULD treat [others] as NBD_EINVAL"
  }
}

uint32_t error_value(int code) {
  switch (code) {
    case 0: return 0;
    case EPERM:
    case EACCES:
    case EROFS: return 1;
    case ENOMEM: return 12;
    case EINVAL: return 22;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return 28;
    case EOVERFLOW: return 75;
    case ENOTSUP: return 95;
    case ESHUTDOWN: return 108;
    default: return 5;
  }
}

}  // namespace kite::block::nbd
