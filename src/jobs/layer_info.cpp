// SPDX-License-Identifier: Apache-2.0
#include "jobs/layer_info.h"

#include <sys/stat.h>

#include <cerrno>

#include "formats/native/codec.h"
#include "stores/file/file_store.h"
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

// The layers below `superblock`, whose file is `path`, up to the first that cannot be looked at.
void follow(Queue& queue, std::string path, native::Superblock superblock, std::vector<ChainLink>& chain) {
  while (superblock.base.kind != native::BaseKind::none) {
    path = resolve_base_path(path, native::base_path(superblock));
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
    const auto head = read_layer_head(queue, **store);
    link.size_bytes = head ? head->superblock.size : 0;
    if (!head) link.problem = head.error().why();
    chain.push_back(std::move(link));
    if (!head) return;
    superblock = head->superblock;
  }
}

std::vector<ChainLink> chain_from(Queue& queue, const std::string& path,
                                  const native::Superblock& superblock) {
  std::vector<ChainLink> chain;
  chain.push_back({.path = path,
                   .layer = true,
                   .size_bytes = superblock.size,
                   .allocated_bytes = allocated_bytes(path),
                   .problem = {}});
  follow(queue, path, superblock, chain);
  return chain;
}

}  // namespace

Result<LayerInfo> layer_info(Queue& queue, const std::string& path) {
  const auto store = FileStore::open(path, {});
  if (!store) return std::unexpected(store.error());
  auto report = check_layer(queue, **store);
  if (!report) return std::unexpected(report.error());
  if (report->unusable) return std::unexpected(*report->unusable);
  if (const auto head = read_layer_head(queue, **store); !head) return std::unexpected(head.error());
  auto chain = chain_from(queue, path, report->superblock);
  return LayerInfo{std::move(*report), std::move(chain)};
}

Result<std::vector<ChainLink>> layer_chain(Queue& queue, const std::string& path) {
  const auto store = FileStore::open(path, {});
  if (!store) return std::unexpected(store.error());
  const auto head = read_layer_head(queue, **store);
  if (!head) return std::unexpected(head.error());
  return chain_from(queue, path, head->superblock);
}

}  // namespace oxbow
