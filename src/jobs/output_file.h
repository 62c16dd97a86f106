// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

class FileStore;

// A file that has its name only when it is whole: it is written without a name, made durable, and then named. Whoever
// ends before that leaves nothing, except on file systems that know no files without a name (O_TMPFILE): there a name
// with a dot in front is left when the process is killed. Thread safety: none.
class OutputFile {
 public:
  // In the directory of `path`, with the mode of any new file. Refuses a `path` that exists, unless it is to be
  // replaced and is a file that nobody has in use. `what` begins all errors: "cannot pack layer".
  [[nodiscard]] static Result<OutputFile> make(std::string what, std::string path, bool replace);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // A path by which this process can open it.
  [[nodiscard]] std::string path_for_opening() const;

  // Makes the file durable and gives it its name, durably too. What stood there before is gone then, if it was to be
  // replaced; a file that came there meanwhile, if not, is an error and stays.
  [[nodiscard]] Result<void> publish();

 private:
  OutputFile() = default;
  [[nodiscard]] int name(const std::string& name) noexcept;
  [[nodiscard]] int give_name() noexcept;
  [[nodiscard]] Error failed(int number) const;

  std::string what_;
  std::string path_;
  std::string own_name_;   // for as long as it takes, where it needs one
  bool has_name_ = false;  // own_name_ is in the directory
  bool replace_ = false;
  UniqueFd fd_;
  UniqueFd directory_;
  std::shared_ptr<FileStore> replaced_;  // locked, so that nobody opens what is about to be gone
};

}  // namespace oxbow
