// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "cli/cowloop/read_head.h"
#include "cli/cowloop/words.h"
#include "cli/progress.h"
#include "jobs/cowloop/open_cowfile.h"
#include "jobs/cowloop/pack_cowfile.h"
#include "jobs/cowloop/unpack_cowfile.h"

namespace oxbow::cowloop_commands {
namespace {

// Thread safety: a value.
struct Arguments {
  bool unpack = false;
  bool gzip = false;
  std::string source;
  std::string dest;
};

std::optional<Arguments> parse(const Call& call) {
  Arguments arguments;
  int modes = 0;
  for (int letter = 0; (letter = ::getopt(call.argc, call.argv, "zpu")) != -1;) {
    if (letter == '?') return std::nullopt;
    if (letter == 'z') {
      arguments.gzip = true;
      continue;
    }
    ++modes;
    arguments.unpack = letter == 'u';
  }
  if (modes != 1 || call.argc - optind != 2) return std::nullopt;
  arguments.source = call.argv[optind];
  arguments.dest = call.argv[optind + 1];
  return arguments;
}

std::string text_of(const HeadError& error, bool unpack) {
  switch (error.kind) {
    case HeadError::Kind::not_opened:
      break;
    case HeadError::Kind::not_read:
      return "Reading cowheader: " + error.why;
    case HeadError::Kind::no_cowfile:
      return "Not a valid cowfile (" + error.why + ")";
    case HeadError::Kind::unknown_version:
      return "Version of cowfile not supported";
  }
  return (unpack ? "Opening inputfile: " : "Opening cowfile: ") + error.why;
}

// What there is to say against a source that is not compressed; nothing when it is as it should be.
std::optional<std::string> refused_source(const Arguments& arguments) {
  const auto head = read_head(arguments.source);
  if (!head) return text_of(head.error(), arguments.unpack);
  if (head->dirty) return "Cowfile is dirty";
  if (head->packed == arguments.unpack) return std::nullopt;
  return arguments.unpack ? "Cowfile is not packed" : "Cowfile is packed already";
}

std::optional<std::string> refused_gzip(Queue& queue, const Arguments& arguments) {
  const UniqueFd file(::open(arguments.source.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return std::string("Opening inputfile: ") + std::strerror(errno);
  if (cowloop::kind_of_file(queue, arguments.source) == cowloop::FileKind::gzip) return std::nullopt;
  return "Not a valid cowfile (it is not compressed by gzip)";
}

// Why nothing can be made at `path`, as opening it would tell; nothing where that is not known before.
std::optional<int> refused_dest(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (file.valid()) return std::nullopt;
  if (errno != ENOENT) return errno;
  const auto folder = std::filesystem::path(path).parent_path();
  if (::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) == 0) return std::nullopt;
  return errno;
}

Result<void> carry_out(Queue& queue, const Arguments& arguments) {
  ProgressBar bar(arguments.unpack ? "unpacking" : "packing");
  std::optional<Error> failed;
  if (arguments.unpack) {
    const cowloop::UnpackCowfile spec{arguments.source, arguments.dest, true};
    if (const auto done = cowloop::unpack_cowfile(queue, spec, bar.feed()); !done) failed = done.error();
  } else {
    const cowloop::PackCowfile spec{arguments.source, arguments.dest, arguments.gzip, true};
    if (const auto done = cowloop::pack_cowfile(queue, spec, bar.feed()); !done) failed = done.error();
  }
  bar.clear();
  if (failed) return std::unexpected(std::move(*failed));
  return {};
}

}  // namespace

int cowpack(const Call& call) {
  const auto arguments = parse(call);
  if (!arguments) return wrong_usage(call);
  ::umask(S_IRWXG | S_IRWXO);
  Queue queue;
  const bool compressed = arguments->unpack && arguments->gzip;
  if (const auto refused = compressed ? refused_gzip(queue, *arguments) : refused_source(*arguments)) {
    complain(*refused);
    return k_failed;
  }
  if (const auto refused = refused_dest(arguments->dest)) {
    complain(std::string(arguments->unpack ? "Opening cowfile: " : "Opening outputfile: ") +
             std::strerror(*refused));
    return k_failed;
  }
  if (const auto done = carry_out(queue, *arguments); !done) {
    complain(call, done.error());
    return k_failed;
  }
  return k_done;
}

}  // namespace oxbow::cowloop_commands
