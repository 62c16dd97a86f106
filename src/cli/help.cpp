// SPDX-License-Identifier: Apache-2.0
#include "cli/help.h"

#include <CLI/CLI.hpp>
#include <string_view>

namespace oxbow {
namespace {

constexpr std::size_t k_columns = 80;

// The words of `text`, each line of them indented; no line is longer than the screen where that can be helped.
std::string wrapped(std::string_view text, std::size_t indent) {
  std::string out;
  std::size_t column = 0;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (column == 0 || column + 1 + word.size() > k_columns) {
      if (column != 0) out += '\n';
      out.append(indent, ' ');
      column = indent;
    } else {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out + '\n';
}

// "--size SIZE", "-h, --help", "LAYER".
std::string heading(const CLI::Option& option) {
  std::string text = option.get_positional() ? option.get_name(true, false) : option.get_name(false, true);
  for (std::size_t comma = text.find(','); comma != std::string::npos; comma = text.find(',', comma + 2)) {
    text.insert(comma + 1, " ");
  }
  // A flag that may have a value shows what it is without one: "--poll{50}".
  text.resize(std::min(text.find('{'), text.size()));
  const std::string type = option.get_type_name();
  if (!option.get_positional() && !type.empty()) text += (type.starts_with('[') ? "" : " ") + type;
  return text;
}

std::string options(const CLI::App& app, bool positional, const std::string& title) {
  const auto found =
      app.get_options([&](const CLI::Option* option) { return option->get_positional() == positional; });
  if (found.empty()) return {};
  std::string out = "\n" + title + ":\n";
  for (const CLI::Option* option : found) {
    out += "  " + heading(*option) + "\n" + wrapped(option->get_description(), 6);
  }
  return out;
}

std::string subcommands(const CLI::App& app) {
  const auto found = app.get_subcommands([](const CLI::App*) { return true; });
  if (found.empty()) return {};
  std::string out = "\nCommands:\n";
  for (const CLI::App* command : found) {
    out += "  " + command->get_name() + "\n" + wrapped(command->get_description() + ".", 6);
  }
  return out;
}

// Thread safety: immutable.
class HelpFormatter final : public CLI::FormatterBase {
 public:
  explicit HelpFormatter(std::string synopsis) : synopsis_(std::move(synopsis)) {}

  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode /*mode*/) const override {
    return wrapped("Usage: " + name + " " + synopsis_, 0) + "\n" + wrapped(app->get_description() + ".", 0) +
           options(*app, true, "Arguments") + options(*app, false, "Options") + subcommands(*app) +
           "\nThe manual has more: man " + name_of_manual(name) + "\n";
  }

 private:
  // "oxbow serve" is in oxbow-serve(1).
  static std::string name_of_manual(std::string name) {
    std::ranges::replace(name, ' ', '-');
    return name;
  }

  std::string synopsis_;
};

}  // namespace

std::shared_ptr<CLI::FormatterBase> make_help_formatter(std::string synopsis) {
  return std::make_shared<HelpFormatter>(std::move(synopsis));
}

}  // namespace oxbow
