#include "tls/certificate_check.h"

#include <array>
#include <ctime>
#include <string_view>
#include <utility>

namespace kite::tls {

namespace {

constexpr size_t kLongestOid = 128;

// What a certificate says of its use, or `otherwise` where it does not.
struct Usage {
  unsigned bits;
  bool critical;
};
Usage usage_of(gnutls_x509_crt_t certificate, unsigned otherwise) {
  unsigned bits = 0, critical = 0;
  if (gnutls_x509_crt_get_key_usage(certificate, &bits, &critical) < 0) return {otherwise, false};
  return {bits, critical != 0};
}

Result<> check_times(const std::string& path, gnutls_x509_crt_t certificate) {
  const time_t now = ::time(nullptr);
  if (gnutls_x509_crt_get_expiration_time(certificate) < now) return fail("{}: the certificate has expired", path);
  if (gnutls_x509_crt_get_activation_time(certificate) > now) return fail("{}: the certificate is not valid yet", path);
  return {};
}

// Purposes that the certificate has; none of either: it is for all.
Result<> check_purpose(const std::string& path, gnutls_x509_crt_t certificate, Endpoint endpoint) {
  const std::string_view wanted = endpoint == Endpoint::kServer ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
  bool any = false, critical_one = false;
  for (unsigned index = 0;; ++index) {
    std::array<char, kLongestOid> oid{};
    size_t length = oid.size();
    unsigned critical = 0;
    const int done = gnutls_x509_crt_get_key_purpose_oid(certificate, index, oid.data(), &length, &critical);
    if (done == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
    if (done < 0) return fail("{}: the certificate's purposes: {}", path, gnutls_strerror(done));
    const std::string_view purpose = oid.data();
    if (purpose == wanted || purpose == GNUTLS_KP_ANY) return {};
    any = true;
    critical_one = critical_one || critical != 0;
  }
  if (!any || !critical_one) return {};
  return fail("{}: the certificate's purposes do not allow a TLS {}", path,
              endpoint == Endpoint::kServer ? "server" : "client");
}

}  // namespace

std::vector<gnutls_x509_crt_t> CertificateList::raw() const {
  std::vector<gnutls_x509_crt_t> all;
  for (const CertificateHandle& certificate : certificates) all.push_back(certificate.get());
  return all;
}

Result<CertificateList> read_certificates(std::string path, const std::string& text) {
  const gnutls_datum_t data = datum_of(text);
  gnutls_x509_crt_t* found = nullptr;
  unsigned count = 0;
  const int done = gnutls_x509_crt_list_import2(&found, &count, &data, GNUTLS_X509_FMT_PEM, 0);
  if (done < 0) return fail("{}: no certificate in PEM's form: {}", path, gnutls_strerror(done));
  CertificateList list{.path = std::move(path), .certificates = {}};
  for (unsigned index = 0; index < count; ++index) list.certificates.emplace_back(found[index]);
  gnutls_free(found);
  if (list.certificates.empty()) return fail("{}: it holds no certificate", list.path);
  return list;
}

Result<> check_authorities(const CertificateList& authorities) {
  for (const gnutls_x509_crt_t certificate : authorities.raw()) {
    KITE_TRY(check_times(authorities.path, certificate));
    unsigned is_authority = 0;
    if (gnutls_x509_crt_get_basic_constraints(certificate, nullptr, &is_authority, nullptr) < 0 || is_authority == 0)
      return fail("{}: the certificate of '{}' is not that of an authority (its basic constraints lack CA)",
                  authorities.path, subject_of(certificate));
    const Usage usage = usage_of(certificate, GNUTLS_KEY_KEY_CERT_SIGN);
    if (usage.critical && (usage.bits & GNUTLS_KEY_KEY_CERT_SIGN) == 0)
      return fail("{}: the certificate of '{}' may not sign others", authorities.path, subject_of(certificate));
  }
  return {};
}

Result<> check_own(const CertificateList& own, Endpoint endpoint, const CertificateList& authorities) {
  const gnutls_x509_crt_t first = own.certificates.front().get();
  KITE_TRY(check_times(own.path, first));
  unsigned is_authority = 0;
  if (gnutls_x509_crt_get_basic_constraints(first, nullptr, &is_authority, nullptr) >= 0 && is_authority != 0)
    return fail("{}: the certificate is that of an authority; one for a {} is wanted", own.path,
                endpoint == Endpoint::kServer ? "server" : "client");
  const Usage usage = usage_of(first, GNUTLS_KEY_DIGITAL_SIGNATURE);
  if (usage.critical && (usage.bits & (GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_ENCIPHERMENT)) == 0)
    return fail("{}: the certificate's key usage allows neither signatures nor key encipherment", own.path);
  KITE_TRY(check_purpose(own.path, first, endpoint));

  const std::vector<gnutls_x509_crt_t> chain = own.raw(), believed = authorities.raw();
  unsigned doubts = 0;
  if (const int done = gnutls_x509_crt_list_verify(chain.data(), static_cast<unsigned>(chain.size()), believed.data(),
                                                   static_cast<unsigned>(believed.size()), nullptr, 0, 0, &doubts);
      done < 0)
    return fail("{}: it cannot be checked against {}: {}", own.path, authorities.path, gnutls_strerror(done));
  if (doubts != 0) return fail("{}: {} does not vouch for it: {}", own.path, authorities.path, doubts_text(doubts));
  return {};
}

}  // namespace kite::tls
