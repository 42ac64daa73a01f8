// GnuTLS's objects as owners, for the sources of this room; and its texts.
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <memory>
#include <string>

#include "support/result.h"

namespace kite::tls {

template <auto Free>
struct FreedBy {
  template <class Object>
  void operator()(Object* object) const {
    Free(object);
  }
};
template <class Object, auto Free>
using Handle = std::unique_ptr<Object, FreedBy<Free>>;

using CertificateHandle = Handle<gnutls_x509_crt_int, gnutls_x509_crt_deinit>;
using KeyHandle = Handle<gnutls_x509_privkey_int, gnutls_x509_privkey_deinit>;
using SessionHandle = Handle<gnutls_session_int, gnutls_deinit>;

// A text as the library takes it; the text outlives it.
inline gnutls_datum_t datum_of(const std::string& text) {
  return {.data = reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
          .size = static_cast<unsigned>(text.size())};
}

// Why a certificate is not believed: "it has expired; its issuer is unknown".
std::string doubts_text(unsigned status);

// A certificate's subject: "CN=client,O=Example".
std::string subject_of(gnutls_x509_crt_t certificate);

}  // namespace kite::tls
