// What a peer would refuse in a certificate of ours, found before one does.
#pragma once

#include <string>
#include <vector>

#include "support/result.h"
#include "tls/credentials.h"
#include "tls/handles.h"

namespace kite::tls {

struct CertificateList {
  std::string path;  // for messages
  std::vector<CertificateHandle> certificates;

  [[nodiscard]] std::vector<gnutls_x509_crt_t> raw() const;
};

// Every certificate in a PEM file, one at least.
Result<CertificateList> read_certificates(std::string path, const std::string& text);

// [RFC 5280] 4.1.2.5, 4.2.1.3, 4.2.1.9: authorities are in their time, and may sign certificates.
Result<> check_authorities(const CertificateList& authorities);
// The same, and 4.2.1.12, for the first of `own`: one that this endpoint may show; the authorities vouch for it.
Result<> check_own(const CertificateList& own, Endpoint endpoint, const CertificateList& authorities);

}  // namespace kite::tls
