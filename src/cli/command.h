// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every subcommand of `oxbow` is made with.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/cli11.h"
#include "formats/native/layout.h"
#include "oxbow/error.h"

namespace oxbow {

// `redundancy_lost`: what `oxbow check` found is sound, but stored only once where it should be twice.
enum class ExitStatus : int { done = 0, failed = 1, wrong_usage = 2, redundancy_lost = 3 };

// Set by the subcommand that was given; runs after the whole command line was understood.
using Chosen = std::function<ExitStatus()>;

// Adds the subcommand `name`. `synopsis` is everything after "oxbow NAME " in the manual's SYNOPSIS,
// `description` a sentence without a full stop.
CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& synopsis);

// Adds an option that takes a size (cli/size.h).
CLI::Option* add_size_option(CLI::App& app, const std::string& name, std::function<void(std::uint64_t)> store,
                             const std::string& value_name, const std::string& description);

// Adds --base-format.
CLI::Option* add_base_format_option(CLI::App& app, native::BaseKind& kind);

// Adds --cluster. `store` gets the shift that makes a cluster.
CLI::Option* add_cluster_option(CLI::App& app, std::function<void(std::uint32_t)> store);

// Adds --accept-base.
void add_accept_base_flag(CLI::App& app, bool& accept);
// Adds --discard-live.
void add_discard_live_flag(CLI::App& app, bool& discard);

// Adds --allow-base.
void add_allow_base_option(CLI::App& app, std::vector<std::string>& directories);

// Ends the parsing with a message about wrong usage. `option` is what is wrong.
[[noreturn]] void refuse_usage(const std::string& option, const std::string& why);

// Prints "oxbow: what: where: why" to stderr.
ExitStatus fail(const Error& error);

// Prints text to stdout, all of it or an error.
[[nodiscard]] Result<void> print(const std::string& text);

// The subcommands.
void add_attach(CLI::App& app, Chosen& chosen);
void add_check(CLI::App& app, Chosen& chosen);
void add_clear(CLI::App& app, Chosen& chosen);
void add_close(CLI::App& app, Chosen& chosen);
void add_convert(CLI::App& app, Chosen& chosen);
void add_create(CLI::App& app, Chosen& chosen);
void add_detach(CLI::App& app, Chosen& chosen);
void add_info(CLI::App& app, Chosen& chosen);
void add_list(CLI::App& app, Chosen& chosen);
void add_map(CLI::App& app, Chosen& chosen);
void add_merge(CLI::App& app, Chosen& chosen);
void add_pack(CLI::App& app, Chosen& chosen);
void add_reopen_ro(CLI::App& app, Chosen& chosen);
void add_reset(CLI::App& app, Chosen& chosen);
void add_resize(CLI::App& app, Chosen& chosen);
void add_repair(CLI::App& app, Chosen& chosen);
void add_resume(CLI::App& app, Chosen& chosen);
void add_serve(CLI::App& app, Chosen& chosen);
void add_status(CLI::App& app, Chosen& chosen);
void add_suspend(CLI::App& app, Chosen& chosen);
void add_sync(CLI::App& app, Chosen& chosen);
void add_table(CLI::App& app, Chosen& chosen);
void add_unpack(CLI::App& app, Chosen& chosen);
void add_watch(CLI::App& app, Chosen& chosen);

}  // namespace oxbow
