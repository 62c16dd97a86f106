// SPDX-License-Identifier: Apache-2.0
// What is told of a cowfile: info, check and repair.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/cowfile.h"
#include "cli/findings.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "jobs/cowloop/check_cowfile.h"
#include "jobs/cowloop/repair_cowfile.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;
using cowloop::CowfileCheck;
using cowloop::CowfileInfo;
using cowloop::CowfileRepair;
using cowloop::Head;
using cowloop::k_block_bytes;

std::string dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string state_text(const CowfileInfo& info) {
  const Head& head = info.head;
  std::string text = !head.dirty            ? "clean"
                     : head.kept_in_order() ? "in use, or not closed; kept in order"
                                            : "dirty";
  if (head.packed) text += info.gzip ? ", packed and compressed" : ", packed";
  if (head.merging) text += ", a merge is not finished";
  return text;
}

std::string bytes_text(std::uint64_t bytes) {
  return fmt::format("{} ({} bytes)", format_size(bytes), bytes);
}

// A dirty head's number of blocks is not the number of bits.
std::uint64_t blocks_in_use(const CowfileInfo& info) {
  return info.gzip ? info.head.used_blocks : info.survey.used;
}

std::string to_text(const CowfileInfo& info) {
  const Head& head = info.head;
  std::string out;
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("{:<13}{}\n", name, value);
  };
  line("cowfile", info.path);
  line("format", fmt::format("cowloop, version {}, {} layout", head.version, cowloop::name_of(head.layout)));
  line("state", state_text(info));
  line("size", fmt::format("{} blocks, {}", head.base_blocks, bytes_text(head.device_bytes())));
  line("block", fmt::format("{} bytes", head.block_bytes));
  line("bitmap", fmt::format("{} blocks, {} bytes", head.map_bytes / head.block_bytes, head.map_bytes));
  line("data", fmt::format("from byte {} on", head.data_offset));
  line("in use",
       fmt::format("{} blocks, {}", blocks_in_use(info), bytes_text(blocks_in_use(info) * k_block_bytes)));
  line("fingerprint", fmt::format("{:#010x}", head.fingerprint));
  line("length", bytes_text(info.file_bytes));
  line("allocated", bytes_text(info.allocated_bytes));
  if (info.contradiction) line("damage", "yes: " + *info.contradiction);
  return out;
}

std::string to_json(const CowfileInfo& info) {
  const Head& head = info.head;
  Json all{{"file", info.path},
           {"format", "cowloop"},
           {"version", head.version},
           {"layout", head.layout == cowloop::Layout::bytes_8 ? 64 : 32},
           {"dirty", head.dirty},
           {"kept_in_order", head.kept_in_order()},
           {"packed", head.packed},
           {"compressed", info.gzip},
           {"merging", head.merging.has_value()},
           {"size", head.device_bytes()},
           {"mapunit", head.block_bytes},
           {"mapsize", head.map_bytes},
           {"doffset", head.data_offset},
           {"rdoblocks", head.base_blocks},
           {"rdofingerprint", head.fingerprint},
           {"cowused", head.used_blocks},
           {"blocks_in_use", blocks_in_use(info)},
           {"length", info.file_bytes},
           {"allocated", info.allocated_bytes},
           {"damaged", info.contradiction.has_value()}};
  if (info.contradiction) all["problem"] = *info.contradiction;
  return dump(all);
}

std::string to_text(const CowfileCheck& check, bool data) {
  std::string out;
  for (const Finding& finding : check.findings) out += to_text(finding, 0) + "\n";
  out += fmt::format("checked: head, bitmap of {} blocks; {} blocks in use\n", check.head.base_blocks,
                     check.used);
  if (data && check.unmarked > 0)
    out += fmt::format("{} blocks hold something and are not marked in the bitmap\n", check.unmarked);
  return out;
}

std::string to_json(const CowfileCheck& check, const std::string& path, bool data) {
  Json findings = Json::array();
  for (const Finding& finding : check.findings) findings.push_back(to_json(finding));
  Json all{{"file", path},
           {"damaged", check.damaged()},
           {"blocks", check.head.base_blocks},
           {"blocks_in_use", check.used},
           {"findings", std::move(findings)}};
  if (data) all["blocks_not_marked"] = check.unmarked;
  return dump(all);
}

// Prints as it goes, for there may be many. Thread safety: none.
class Corrections {
 public:
  // `bar` stands in the way of what is printed; borrowed.
  Corrections(bool dry_run, bool json, ProgressBar& bar)
      : word_(dry_run ? "would mark" : "marked"), json_(json), bar_(bar) {}

  void add(Range blocks) {
    if (json_) {
      list_.push_back({{"block", blocks.offset}, {"count", blocks.length}});
      return;
    }
    text_ += blocks.length == 1
                 ? fmt::format("{}: block {}\n", word_, blocks.offset)
                 : fmt::format("{}: blocks {} to {}\n", word_, blocks.offset, blocks.end() - 1);
    if (text_.size() >= k_print_bytes) flush();
  }
  void flush() {
    bar_.clear();
    if (auto printed = print(std::exchange(text_, {})); !printed && !failed_) failed_ = printed.error();
  }
  [[nodiscard]] const std::optional<Error>& failed() const noexcept { return failed_; }
  [[nodiscard]] const Json& list() const noexcept { return list_; }

 private:
  static constexpr std::size_t k_print_bytes = 64 << 10;
  const char* word_;
  bool json_;
  ProgressBar& bar_;
  std::string text_;
  Json list_ = Json::array();
  std::optional<Error> failed_;
};

std::string to_text(const CowfileRepair& repair, bool dry_run) {
  if (!repair.needed) return "nothing to mend: it is not dirty\n";
  std::string out;
  const char* const would = dry_run ? "would be " : "";
  if (repair.bitmap_added > 0)
    out +=
        fmt::format("{}added: {} bytes of the bitmap, which the file lacked\n", would, repair.bitmap_added);
  if (repair.cleared > 0)
    out += fmt::format("{}cleared: {} bits behind the last block\n", would, repair.cleared);
  if (repair.blocks_added > 0)
    out += fmt::format(
        "{}added: {} blocks that are marked and that the file's end cut off; what it lacked of them is "
        "zeros\n",
        would, repair.blocks_added);
  return out + fmt::format("{}{} corrections in the bitmap; {} blocks in use\n", would, repair.corrected,
                           repair.after.used_blocks);
}

std::string to_json(const CowfileRepair& repair, const std::string& path, bool dry_run,
                    const Json& corrections) {
  return dump({{"file", path},
               {"dry_run", dry_run},
               {"needed", repair.needed},
               {"corrections", repair.corrected},
               {"bits_cleared", repair.cleared},
               {"bitmap_bytes_added", repair.bitmap_added},
               {"blocks_added", repair.blocks_added},
               {"blocks_in_use", repair.needed ? repair.after.used_blocks : repair.before.used_blocks},
               {"corrected", corrections}});
}

}  // namespace

ExitStatus show_cowfile(const std::string& path, bool json) {
  Queue queue;
  const auto info = cowloop::cowfile_info(queue, path);
  if (!info) return fail(info.error());
  const auto printed = print(json ? to_json(*info) : to_text(*info));
  return printed ? ExitStatus::done : fail(printed.error());
}

ExitStatus check_cowfile(const std::string& path, const std::optional<std::string>& base, bool data,
                         bool json) {
  Queue queue;
  ProgressBar bar("reading");
  const auto check =
      cowloop::check_cowfile(queue, path, {.base = base, .data = data, .progress = bar.feed()});
  bar.clear();
  if (!check) return fail(check.error());
  if (auto printed = print(json ? to_json(*check, path, data) : to_text(*check, data)); !printed)
    return fail(printed.error());
  if (!check->damaged()) return ExitStatus::done;
  const auto count = std::ranges::count(check->findings, Gravity::damage, &Finding::gravity);
  return fail(Error("checked cowfile", path,
                    fmt::format("it is damaged in {} {}", count, count == 1 ? "place" : "places")));
}

ExitStatus repair_cowfile(const std::string& path, bool dry_run, bool force, bool json) {
  Queue queue;
  ProgressBar bar("reading");
  Corrections corrections(dry_run, json, bar);
  const auto repair = cowloop::repair_cowfile(queue, path,
                                              {.dry_run = dry_run,
                                               .force = force,
                                               .on_corrected = [&](Range blocks) { corrections.add(blocks); },
                                               .progress = bar.feed()});
  corrections.flush();
  if (!repair) return fail(repair.error());
  if (corrections.failed()) return fail(*corrections.failed());
  const auto printed =
      print(json ? to_json(*repair, path, dry_run, corrections.list()) : to_text(*repair, dry_run));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace oxbow
