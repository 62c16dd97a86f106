// SPDX-License-Identifier: Apache-2.0
#include "jobs/hash_base.h"

#include <fmt/format.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <algorithm>
#include <vector>

#include "device/device.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_piece_bytes = 1 << 20;

// SHA-256, piece by piece. Thread safety: none.
class Hasher {
 public:
  Hasher() { ok_ = gnutls_hash_init(&state_, GNUTLS_DIG_SHA256) == 0; }
  ~Hasher() {
    if (ok_) gnutls_hash_deinit(state_, nullptr);
  }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  Hasher(Hasher&&) = delete;
  Hasher& operator=(Hasher&&) = delete;

  // False when the library fails.
  [[nodiscard]] bool add(std::span<const std::byte> bytes) {
    return ok_ && gnutls_hash(state_, bytes.data(), bytes.size()) == 0;
  }
  [[nodiscard]] Sha256 result() {
    Sha256 hash{};
    gnutls_hash_output(state_, hash.data());
    return hash;
  }

 private:
  gnutls_hash_hd_t state_ = nullptr;
  bool ok_ = false;
};

}  // namespace

Result<Sha256> hash_base(Queue& queue, const std::shared_ptr<Target>& base, const std::string& name,
                         const TellProgress& progress) {
  Device device(base, {.name = name, .read_only = true});
  Hasher hasher;
  std::vector<std::byte> buffer(k_piece_bytes);
  const std::uint64_t size = device.size();
  for (std::uint64_t at = 0; at < size; at += k_piece_bytes) {
    const auto piece = std::span(buffer).first(std::min(k_piece_bytes, size - at));
    const IoStatus read = run_blocking(queue, [&](Io& io) { return device.read(io, at, piece); });
    if (!read.ok()) return std::unexpected(Error::from_errno("cannot read base", name, read.error_number()));
    if (!hasher.add(piece))
      return std::unexpected(Error("cannot hash base", name, "the library refuses SHA-256"));
    if (progress) progress(at + piece.size(), size);
  }
  if (size == 0 && !hasher.add({}))
    return std::unexpected(Error("cannot hash base", name, "the library refuses SHA-256"));
  return hasher.result();
}

std::string to_text(const Sha256& hash) {
  std::string text;
  for (const std::uint8_t each : hash) text += fmt::format("{:02x}", each);
  return text;
}

}  // namespace oxbow
