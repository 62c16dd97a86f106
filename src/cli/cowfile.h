// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the commands do with a cowfile of cowloop where a layer could be named too.

#include <optional>
#include <string>

#include "cli/command.h"
#include "formats/cowloop/head.h"

namespace oxbow {

// What a file that is made is to be.
enum class LayerFormat : std::uint8_t { oxb, cowloop, cowloop_32 };
// Adds --format.
CLI::Option* add_format_option(CLI::App& app, LayerFormat& format);
// Of a format that isn't oxb.
[[nodiscard]] cowloop::Layout layout_of(LayerFormat format) noexcept;

// Adds --base of a cowfile's read-only file. `use` ends the description.
CLI::Option* add_cowfile_base_option(CLI::App& app, std::optional<std::string>& base, const std::string& use);

// Whether the file is a cowfile, packed or not, but not compressed.
[[nodiscard]] bool is_cowfile(const std::string& path);
// Whether the file is a packed cowfile, compressed or not, or any cowfile.
[[nodiscard]] bool is_packed_cowfile(const std::string& path);

// Fails because an option that was given means nothing for this kind of file; `option` may be empty: then nothing is
// wrong. `what` begins the error, `kind` is what the option is for ("layers").
[[nodiscard]] Result<void> refuse_option(const std::string& option, const std::string& what,
                                         const std::string& path, const std::string& kind);

[[nodiscard]] ExitStatus create_cowfile(const std::string& base, const std::string& path, LayerFormat format);
[[nodiscard]] ExitStatus show_cowfile(const std::string& path, bool json);
[[nodiscard]] ExitStatus check_cowfile(const std::string& path, const std::optional<std::string>& base,
                                       bool data, bool json);
[[nodiscard]] ExitStatus repair_cowfile(const std::string& path, bool dry_run, bool force, bool json);
[[nodiscard]] ExitStatus merge_cowfile(const std::string& path, const std::optional<std::string>& base,
                                       bool yes);
[[nodiscard]] ExitStatus pack_cowfile(const std::string& path, const std::string& out, bool gzip,
                                      bool replace);
[[nodiscard]] ExitStatus unpack_cowfile(const std::string& path, const std::string& out, bool replace);

}  // namespace oxbow
