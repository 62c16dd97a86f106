// SPDX-License-Identifier: Apache-2.0
#include "targets/table/table_text.h"

#include <fmt/format.h>

#include <limits>
#include <optional>

#include "oxbow/range.h"
#include "targets/argument.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_most_sectors = std::numeric_limits<std::int64_t>::max() / k_sector_bytes;

// Cuts a text into lines of words. Thread safety: none.
class Scanner {
 public:
  explicit Scanner(std::string_view text) noexcept : text_(text) {}

  [[nodiscard]] bool at_end() const noexcept { return at_ == text_.size(); }
  [[nodiscard]] unsigned line() const noexcept { return line_; }

  // The words of the next line, none for a blank one or a comment. An error says why the line cannot be read.
  [[nodiscard]] std::expected<std::vector<std::string>, std::string> next_line() {
    std::vector<std::string> words;
    skip_space();
    if (!at_end() && text_[at_] == '#') skip_comment();
    while (!at_end_of_line()) {
      auto word = next_word();
      if (!word) return std::unexpected(word.error());
      words.push_back(std::move(*word));
      skip_space();
    }
    if (!at_end()) advance();
    return words;
  }

 private:
  [[nodiscard]] bool at_end_of_line() const noexcept { return at_end() || text_[at_] == '\n'; }
  void advance() noexcept {
    if (text_[at_] == '\n') ++line_;
    ++at_;
  }
  void skip_space() noexcept {
    while (!at_end_of_line() && is_table_space(text_[at_])) advance();
  }
  void skip_comment() noexcept {
    while (!at_end_of_line()) advance();
  }
  [[nodiscard]] std::expected<std::string, std::string> next_word() {
    std::string word;
    while (!at_end() && !is_table_space(text_[at_])) {
      if (text_[at_] == '\\') {
        advance();
        if (at_end()) return std::unexpected("ends with a backslash that escapes nothing");
      }
      if (text_[at_] == '\0') return std::unexpected("has a NUL byte in it");
      word.push_back(text_[at_]);
      advance();
    }
    return word;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  unsigned line_ = 1;
};

// A line by itself; the error is the reason.
std::expected<TableLine, std::string> parse_line(unsigned number, std::vector<std::string> words) {
  if (words.size() < 3) return std::unexpected("START LENGTH TARGET are needed");
  TableLine line{.number = number};
  const auto start = parse_number(words[0]);
  if (!start) return std::unexpected(fmt::format("start {} {}", words[0], start.error()));
  const auto length = parse_number(words[1]);
  if (!length) return std::unexpected(fmt::format("length {} {}", words[1], length.error()));
  if (*length == 0) return std::unexpected("its length is 0");
  if (*start > k_most_sectors || *length > k_most_sectors - *start) {
    return std::unexpected("it ends beyond the largest possible device, 2^63 bytes");
  }
  line.start = *start;
  line.length = *length;
  line.type = std::move(words[2]);
  line.args.assign(std::move_iterator(words.begin() + 3), std::move_iterator(words.end()));
  return line;
}

// Why `line` cannot follow a table that is `end` sectors long so far; nothing when it can.
std::optional<std::string> misplaced(const TableLine& line, std::uint64_t end) {
  if (line.start == end) return std::nullopt;
  if (end == 0) return fmt::format("the first line starts at {}, it has to start at 0", line.start);
  if (line.start > end) {
    return fmt::format("a gap: it starts at {}, the line before it ends at {}", line.start, end);
  }
  return fmt::format("an overlap: it starts at {}, the line before it ends at {}", line.start, end);
}

}  // namespace

std::string table_place(std::string_view source, unsigned number) {
  return fmt::format("{} line {}", source, number);
}

Result<std::vector<TableLine>> parse_table(std::string_view text, std::string_view source) {
  const auto refuse = [&](unsigned number, std::string why) {
    return std::unexpected(Error("cannot load table", table_place(source, number), std::move(why)));
  };
  std::vector<TableLine> lines;
  std::uint64_t end = 0;
  Scanner scanner(text);
  while (!scanner.at_end()) {
    const unsigned number = scanner.line();
    auto words = scanner.next_line();
    if (!words) return refuse(number, words.error());
    if (words->empty()) continue;
    auto line = parse_line(number, std::move(*words));
    if (!line) return refuse(number, line.error());
    if (auto why = misplaced(*line, end)) return refuse(number, std::move(*why));
    end = line->start + line->length;
    lines.push_back(std::move(*line));
  }
  if (lines.empty())
    return std::unexpected(Error("cannot load table", std::string(source), "it has no lines"));
  return lines;
}

std::string print_arguments(const TableLine& line) {
  std::string text;
  for (const std::string& argument : line.args) {
    if (!text.empty()) text += ' ';
    text += escape_argument(argument);
  }
  return text;
}

std::string print_table(std::span<const TableLine> lines) {
  std::string text;
  for (const TableLine& line : lines) {
    text += fmt::format("{} {} {}", line.start, line.length, escape_argument(line.type));
    if (!line.args.empty()) text += " " + print_arguments(line);
    text += '\n';
  }
  return text;
}

}  // namespace oxbow
