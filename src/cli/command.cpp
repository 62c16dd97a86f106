// SPDX-License-Identifier: Apache-2.0
#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <bit>
#include <cerrno>
#include <cstdio>

#include "cli/help.h"
#include "cli/size.h"

namespace oxbow {

CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& synopsis) {
  CLI::App* command = app.add_subcommand(name, description);
  command->formatter(make_help_formatter(synopsis));
  return *command;
}

CLI::Option* add_size_option(CLI::App& app, const std::string& name, std::function<void(std::uint64_t)> store,
                             const std::string& value_name, const std::string& description) {
  const CLI::callback_t parse = [name, store = std::move(store)](const CLI::results_t& words) {
    const auto size = parse_size(words.front());
    if (!size) refuse_usage(name + " " + words.front(), size.error());
    store(*size);
    return true;
  };
  return app.add_option(name, parse, description)->type_name(value_name);
}

CLI::Option* add_base_format_option(CLI::App& app, native::BaseKind& kind) {
  const CLI::callback_t parse = [&kind](const CLI::results_t& words) {
    const std::string& text = words.front();
    if (text != "raw" && text != "oxb") refuse_usage("--base-format " + text, "the formats are raw and oxb");
    kind = text == "raw" ? native::BaseKind::raw : native::BaseKind::layer;
    return true;
  };
  return app
      .add_option("--base-format", parse,
                  "What IMAGE is: raw, an image or block device byte for byte, or oxb, a layer. It is raw "
                  "without this "
                  "option, and is never guessed.")
      ->type_name("FORMAT");
}

void add_accept_base_flag(CLI::App& app, bool& accept) {
  app.add_flag(
      "--accept-base", accept,
      "Take a base whose modification time is not the recorded one, when its size and samples of its content "
      "are.");
}

void add_allow_base_option(CLI::App& app, std::vector<std::string>& directories) {
  app.add_option(
         "--allow-base", directories,
         "Let layers have their bases in that directory or below, and nowhere else. May be given several "
         "times.")
      ->type_name("DIR")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

CLI::Option* add_cluster_option(CLI::App& app, std::function<void(std::uint32_t)> store) {
  constexpr std::uint64_t k_smallest = std::uint64_t{1} << native::k_smallest_cluster_shift;
  constexpr std::uint64_t k_largest = std::uint64_t{1} << native::k_largest_cluster_shift;
  return add_size_option(
      app, "--cluster",
      [store = std::move(store)](std::uint64_t bytes) {
        if (!std::has_single_bit(bytes) || bytes < k_smallest || bytes > k_largest)
          refuse_usage("--cluster", "a cluster is a power of two from 4K to 1M");
        store(static_cast<std::uint32_t>(std::countr_zero(bytes)));
      },
      "SIZE",
      "How much of a layer is copied at the least when a part of it is written: a power of two from 4K to "
      "1M; 4K "
      "without this option.");
}

void add_discard_live_flag(CLI::App& app, bool& discard) {
  app.add_flag("--discard-live", discard,
               "Open a layer that was not closed cleanly although the live state that has its last writes is "
               "missing or "
               "can't be used: what was written since the last flush is given up.");
}

void refuse_usage(const std::string& option, const std::string& why) {
  throw CLI::ValidationError(option, why);
}

ExitStatus fail(const Error& error) {
  std::fprintf(stderr, "oxbow: %s\n", error.text().c_str());
  return ExitStatus::failed;
}

Result<void> print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return std::unexpected(Error::from_errno("cannot print", "standard output", errno));
  }
  return {};
}

}  // namespace oxbow
