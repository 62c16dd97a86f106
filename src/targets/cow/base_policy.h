// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which files a layer may have opened as its base. A layer may come from somebody else, and says itself where its base
// is: without a rule it could have any file served that this process can read.

#include <string>
#include <vector>

#include "os/fd.h"
#include "os/file_identity.h"
#include "oxbow/error.h"

namespace oxbow {

// What was allowed. Without directories the usual rule holds: a layer may name any base if it belongs to this user or
// to root and not everybody can write to it, and else only one in the directory that it is in, or below. With
// directories only what is in or below them is allowed, whoever the layer belongs to. A file that the user named is
// always allowed.
// Thread safety: a value.
struct BasePolicy {
  std::vector<std::string> directories;  // canonical
  std::vector<std::string> files;        // as the user named them
};

// The directory as it is compared: without links. Errors: it isn't there, or is no directory.
[[nodiscard]] Result<std::string> allowed_directory(const std::string& path);

// The policy that directories on a command line or in a configuration make.
[[nodiscard]] Result<BasePolicy> allowed_bases(const std::vector<std::string>& directories);

// A base that may be opened: held, so that it can be told from whatever takes its name meanwhile. Thread safety: none.
class AdmittedBase {
 public:
  AdmittedBase(UniqueFd fd, FileIdentity identity) noexcept : fd_(std::move(fd)), identity_(identity) {}
  // Whether the file that was opened is the one that was admitted.
  [[nodiscard]] bool is(const FileIdentity& opened) const noexcept { return identity_.same_file(opened); }

 private:
  UniqueFd fd_;  // O_PATH: the inode stays this file's
  FileIdentity identity_;
};

// Looks where `base_path` really is, without opening it, and whether the layer, which is open and is the file `layer`,
// may have it as its base. A layer that is only being made (null) is its user's own. The error names the directory to
// allow.
[[nodiscard]] Result<AdmittedBase> admit_base(const BasePolicy& policy, const std::string& layer_path,
                                              const FileIdentity* layer, const std::string& base_path);

}  // namespace oxbow
