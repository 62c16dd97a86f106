// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/create_cowfile.h"

#include <sys/stat.h>

#include "jobs/cowloop/open_cowfile.h"
#include "jobs/output_file.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot create cowfile";

}  // namespace

Result<CreatedCowfile> create_cowfile(Queue& queue, const CreateCowfile& spec) {
  const auto base = open_base(k_what, spec.base, Use::read);
  if (!base) return std::unexpected(base.error());
  const auto blocks = base_blocks(k_what, **base, spec.layout);
  if (!blocks) return std::unexpected(blocks.error());
  const auto fingerprint = fingerprint_of(queue, k_what, **base);
  if (!fingerprint) return std::unexpected(fingerprint.error());
  struct stat found{};
  const bool exists = ::lstat(spec.path.c_str(), &found) == 0;
  if (exists && (!S_ISREG(found.st_mode) || found.st_size != 0))
    return std::unexpected(Error(k_what, spec.path, "it exists already, and is not an empty file"));
  auto file = OutputFile::make(k_what, spec.path, exists);
  if (!file) return std::unexpected(file.error());
  const auto store = FileStore::open(file->path_for_opening(), {.writable = true});
  if (!store) return std::unexpected(Error(k_what, spec.path, store.error().why()));
  const Head head = fresh_head(spec.layout, *blocks, *fingerprint);
  if (auto written = write_fresh(queue, k_what, **store, head); !written)
    return std::unexpected(Error(k_what, spec.path, written.error().why()));
  if (auto published = file->publish(); !published) return std::unexpected(published.error());
  return CreatedCowfile{head, cut_off_bytes((*base)->size())};
}

}  // namespace oxbow::cowloop
