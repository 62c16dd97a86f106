// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/continuity.h"

#include <fmt/format.h>

#include <cstdint>
#include <sstream>
#include <string_view>
#include <utility>

#include "device/device.h"
#include "os/file_identity.h"
#include "targets/target.h"

namespace oxbow::ublk {
namespace {

constexpr std::string_view k_layer = "layer";
constexpr std::string_view k_pair = "pair";
constexpr std::string_view k_memory = "memory";

// "DEVICE:INODE" of what has a path.
std::string file_text(const ChainPart& part) {
  if (!part.store.name.starts_with('/')) return "";
  const auto file = identify_path(part.store.name.c_str());
  return file ? fmt::format("{}:{}", file->dev, file->inode) : "";
}

std::string source_of(const TargetLine& line) {
  const std::string place = fmt::format("{} {} ", line.start, line.length);
  if (line.chain.empty()) return place + line.status.name;
  const ChainPart& own = line.chain.front();
  const std::string file = file_text(own);
  if (file.empty()) return place + std::string(k_memory);
  const char* const adopted = own.adopted ? "adopted" : "read";
  if (!own.uuid.empty()) return fmt::format("{}{} {} {} {}", place, k_layer, own.uuid, own.epoch, adopted);
  if (own.format == "cowloop") return fmt::format("{}{} {} {}", place, k_pair, file, adopted);
  return fmt::format("{}{} {}", place, own.format, file);
}

// A source taken apart again. Thread safety: a value.
struct Source {
  std::uint64_t start = 0;
  std::uint64_t length = 0;
  std::string kind;
  std::string which;  // uuid or file
  std::uint64_t epoch = 0;
  bool adopted = false;
};

Source parse(const std::string& text) {
  Source source;
  std::istringstream words(text);
  words >> source.start >> source.length >> source.kind >> source.which;
  if (source.kind == k_layer) words >> source.epoch;
  std::string state;
  words >> state;
  source.adopted = state == "adopted";
  return source;
}

Judgement judge(const Source& before, const Source& now) {
  const bool same = before.start == now.start && before.length == now.length && before.kind == now.kind &&
                    before.which == now.which;
  if (!same) return {Continuity::other, "it was made of something else"};
  if (now.kind == k_memory) return {Continuity::lost, "its contents were in memory, and are gone"};
  if (now.kind == k_layer) {
    // Nothing was written since; or one session began, which was the killed process's.
    const bool continues = now.epoch == before.epoch || (now.epoch == before.epoch + 1 && now.adopted);
    if (!continues) return {Continuity::lost, "its layer was changed in between, or has no live state"};
  }
  if (now.kind == k_pair && !now.adopted)
    return {Continuity::lost, "its cowfile was changed in between, or has no live state"};
  return {};
}

}  // namespace

std::vector<std::string> sources_of(const Device& device) {
  std::vector<std::string> sources;
  for (const TargetLine& line : device.target()->lines()) sources.push_back(source_of(line));
  return sources;
}

Judgement judge(const std::vector<std::string>& before, const std::vector<std::string>& now) {
  if (before.size() != now.size()) return {Continuity::other, "it was made of something else"};
  Judgement worst;
  for (std::size_t i = 0; i < now.size(); ++i) {
    Judgement each = judge(parse(before[i]), parse(now[i]));
    if (each.continuity == Continuity::other) return each;
    if (each.continuity == Continuity::lost) worst = std::move(each);
  }
  return worst;
}

}  // namespace oxbow::ublk
