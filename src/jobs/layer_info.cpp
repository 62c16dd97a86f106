// SPDX-License-Identifier: Apache-2.0
#include "jobs/layer_info.h"

#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "formats/native/codec.h"
#include "stores/file/file_store.h"
#include "stores/packed/packed_index.h"
#include "targets/cow/layer_head.h"
#include "targets/cow/open_layer.h"

namespace oxbow {
namespace {

constexpr std::size_t k_longest_chain = 64;  // what can be opened; a longer one may be a circle
constexpr std::uint64_t k_stat_block_bytes = 512;

std::uint64_t allocated_bytes(const std::string& path) {
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return 0;
  return static_cast<std::uint64_t>(found.st_blocks) * k_stat_block_bytes;
}

ChainLink raw_link(const std::string& path) {
  ChainLink link{.path = path, .allocated_bytes = allocated_bytes(path)};
  const auto store = FileStore::open(path, {});
  if (store) {
    link.size_bytes = (*store)->size();
  } else {
    link.problem = store.error().why();
  }
  return link;
}

// The superblock of a layer, or of a packed one what its header has of it.
Result<native::Superblock> identity_of(Queue& queue, Store& store, bool& packed) {
  const auto is_packed = has_packed_magic(queue, store);
  if (!is_packed) return std::unexpected(is_packed.error());
  packed = *is_packed;
  if (packed) {
    const auto header = read_packed_header(queue, store);
    if (!header) return std::unexpected(header.error());
    return packed::as_superblock(*header);
  }
  const auto head = read_layer_head(queue, store);
  if (!head) return std::unexpected(head.error());
  return head->superblock;
}

// The layers below `superblock`, whose file is `path`, up to the first that cannot be looked at.
void follow(Queue& queue, std::string path, FileIdentity identity, native::Superblock superblock,
            const BasePolicy& bases, std::vector<ChainLink>& chain) {
  while (superblock.base.kind != native::BaseKind::none) {
    const std::string above = std::exchange(path, resolve_base_path(path, native::base_path(superblock)));
    const auto admitted = admit_base(bases, above, &identity, path);
    if (!admitted) {
      chain.push_back({.path = path,
                       .layer = superblock.base.kind == native::BaseKind::layer,
                       .problem = admitted.error().why()});
      return;
    }
    if (superblock.base.kind == native::BaseKind::raw) {
      chain.push_back(raw_link(path));
      return;
    }
    ChainLink link{.path = path, .layer = true, .allocated_bytes = allocated_bytes(path)};
    if (chain.size() == k_longest_chain) link.problem = "the chain is too long";
    const auto store = FileStore::open(path, {});
    if (link.problem.empty() && !store) link.problem = store.error().why();
    if (!link.problem.empty()) {
      chain.push_back(std::move(link));
      return;
    }
    const auto found = identity_of(queue, **store, link.packed);
    link.size_bytes = found ? found->size : 0;
    if (!found) link.problem = found.error().why();
    chain.push_back(std::move(link));
    if (!found) return;
    superblock = *found;
    identity = (*store)->identity();
  }
}

std::vector<ChainLink> chain_from(Queue& queue, const std::string& path, const FileStore& store,
                                  const native::Superblock& superblock, bool packed,
                                  const BasePolicy& bases) {
  std::vector<ChainLink> chain;
  chain.push_back({.path = path,
                   .layer = true,
                   .packed = packed,
                   .size_bytes = superblock.size,
                   .allocated_bytes = allocated_bytes(path),
                   .problem = {}});
  follow(queue, path, store.identity(), superblock, bases, chain);
  return chain;
}

Result<LayerInfo> packed_info(Queue& queue, FileStore& store, const std::string& path,
                              const BasePolicy& bases) {
  const auto index = read_packed_index(queue, store);
  if (!index) return std::unexpected(index.error());
  const packed::Header& header = index->header();
  LayerInfo info;
  info.report.superblock = packed::as_superblock(header);
  info.report.data_clusters = index->data_clusters();
  info.report.zero_clusters = index->zero_clusters();
  info.packed = PackedFacts{.version = header.version,
                            .packed_ns = header.packed_ns,
                            .file_bytes = index->trailer().file_bytes,
                            .frames = index->frames().size(),
                            .frame_bytes = index->frame_bytes()};
  info.chain = chain_from(queue, path, store, info.report.superblock, true, bases);
  return info;
}

}  // namespace

Result<LayerInfo> layer_info(Queue& queue, const std::string& path, const BasePolicy& bases) {
  const auto store = FileStore::open(path, {});
  if (!store) return std::unexpected(store.error());
  const auto is_packed = has_packed_magic(queue, **store);
  if (!is_packed) return std::unexpected(is_packed.error());
  if (*is_packed) return packed_info(queue, **store, path, bases);
  auto report = check_layer(queue, **store);
  if (!report) return std::unexpected(report.error());
  if (report->unusable) return std::unexpected(*report->unusable);
  if (const auto head = read_layer_head(queue, **store); !head) return std::unexpected(head.error());
  auto chain = chain_from(queue, path, **store, report->superblock, false, bases);
  return LayerInfo{.report = std::move(*report), .packed = std::nullopt, .chain = std::move(chain)};
}

Result<std::vector<ChainLink>> layer_chain(Queue& queue, const std::string& path, const BasePolicy& bases) {
  const auto store = FileStore::open(path, {});
  if (!store) return std::unexpected(store.error());
  bool packed = false;
  const auto superblock = identity_of(queue, **store, packed);
  if (!superblock) return std::unexpected(superblock.error());
  return chain_from(queue, path, **store, *superblock, packed, bases);
}

}  // namespace oxbow
