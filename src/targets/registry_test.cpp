// SPDX-License-Identifier: Apache-2.0
// Targets made from words, on real files: every construction check with its text.

#include "targets/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "os/queue.h"
#include "stores/file/file_store.h"
#include "stores/open_stores.h"
#include "targets/table/table_target.h"

namespace oxbow {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class RegistryTest : public testing::Test {
 protected:
  RegistryTest() {
    std::string name = (std::filesystem::temp_directory_path() / "oxbow-registry-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name, std::uintmax_t bytes) {
    const auto path = folder_ / name;
    std::ofstream(path).close();
    std::filesystem::resize_file(path, bytes);
    return path.string();
  }
  Result<MadeTarget> make(const std::string& type, const std::vector<std::string>& args,
                          std::uint64_t length_bytes = 4096) {
    return make_target(context_, type, args, length_bytes);
  }
  std::string why(const std::string& type, const std::vector<std::string>& args,
                  std::uint64_t length_bytes = 4096) {
    const auto made = make(type, args, length_bytes);
    return made ? "it was made" : made.error().text();
  }

  std::filesystem::path folder_;
  Queue queue_;
  OpenStores stores_;
  OpenContext context_{queue_, stores_, true, false};
};

TEST_F(RegistryTest, AnUnknownTypeNamesTheKnownOnes) {
  const std::string text = why("snapshot", {});
  EXPECT_THAT(text, StartsWith("cannot make target: snapshot: no such type; there are "));
  for (const TargetType& type : target_types()) EXPECT_THAT(text, HasSubstr(std::string(type.name)));
}

TEST_F(RegistryTest, EveryTypeHasADescription) {
  for (const TargetType& type : target_types()) EXPECT_FALSE(type.description.empty()) << type.name;
}

TEST_F(RegistryTest, FileMapsFromTheByteOn) {
  const std::string path = file("image", 10000);
  const auto made = make("file", {path, "1000"});
  ASSERT_TRUE(made.has_value()) << made.error().text();
  EXPECT_EQ(made->offset, 0U);
  EXPECT_EQ(made->target->size(), 4096U);
  EXPECT_TRUE(made->target->writable());
  EXPECT_EQ(made->target->status().table, path + " 1000");
  Extents out;
  ASSERT_EQ(made->target->locate({10, 100}, out).length, 100U);
  EXPECT_EQ(out[0].at, 1010U);
  EXPECT_EQ(out[0].store->describe(), path);
}

TEST_F(RegistryTest, FileFollowsTheModeOfTheTable) {
  const std::string path = file("image", 4096);
  context_.writable = false;
  const auto made = make("file", {path, "0"});
  ASSERT_TRUE(made.has_value()) << made.error().text();
  EXPECT_FALSE(made->target->writable());
}

TEST_F(RegistryTest, FileRefusesEachMistakeByName) {
  const std::string path = file("image", 10000);
  const std::string cannot = "cannot make target file: ";
  EXPECT_EQ(why("file", {}), cannot + "arguments: exactly two are needed (PATH BYTES), not 0");
  EXPECT_EQ(why("file", {path}), cannot + "arguments: exactly two are needed (PATH BYTES), not 1");
  EXPECT_EQ(why("file", {path, "0", "x"}), cannot + "arguments: exactly two are needed (PATH BYTES), not 3");
  EXPECT_EQ(why("file", {path, "one"}), cannot + "offset one: is not a number");
  EXPECT_EQ(why("file", {path, "12x"}), cannot + "offset 12x: has 'x' after the number");
  EXPECT_EQ(why("file", {path, "-1"}), cannot + "offset -1: is negative");
  EXPECT_EQ(why("file", {path, "9223372036854775808"}), cannot + "offset 9223372036854775808: is too large");
  EXPECT_EQ(why("file", {path, "18446744073709551616"}),
            cannot + "offset 18446744073709551616: is too large");
  EXPECT_EQ(why("file", {path, "10001"}),
            cannot + path + ": offset 10001 is beyond the end, which is at 10000");
  EXPECT_EQ(why("file", {path, "10000"}),
            cannot + path + ": File too small: 4096 bytes are needed from offset 10000 on, it has 0");
  EXPECT_EQ(why("file", {path, "5905"}),
            cannot + path + ": File too small: 4096 bytes are needed from offset 5905 on, it has 4095");
  EXPECT_EQ(why("file", {path, "5904"}), "it was made");
}

TEST_F(RegistryTest, FileTakesRegularFilesOnly) {
  const std::string text = ": is not a regular file; the target linear takes block devices";
  EXPECT_EQ(why("file", {folder_.string(), "0"}), "cannot make target file: " + folder_.string() + text);
  EXPECT_EQ(why("file", {"/dev/null", "0"}), "cannot make target file: /dev/null" + text);
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(why("file", {fifo, "0"}), "cannot make target file: " + fifo + text);
}

TEST_F(RegistryTest, AFileThatCannotBeOpenedSaysWhy) {
  const std::string missing = folder_ / "missing";
  EXPECT_THAT(why("file", {missing, "0"}), HasSubstr(missing + ": No such file or directory"));
  EXPECT_THAT(why("linear", {missing, "0"}), HasSubstr(missing + ": No such file or directory"));
}

TEST_F(RegistryTest, LinearMapsFromTheSectorOn) {
  const std::string path = file("image", 10240);
  const auto made = make("linear", {path, "12"});
  ASSERT_TRUE(made.has_value()) << made.error().text();
  EXPECT_EQ(made->target->status().table, path + " 12");
  Extents out;
  ASSERT_EQ(made->target->locate({10, 100}, out).length, 100U);
  EXPECT_EQ(out[0].at, 6154U);
}

TEST_F(RegistryTest, LinearRefusesEachMistakeByName) {
  const std::string path = file("image", 10240);
  const std::string cannot = "cannot make target linear: ";
  EXPECT_EQ(why("linear", {path}), cannot + "arguments: exactly two are needed (PATH SECTORS), not 1");
  EXPECT_EQ(why("linear", {path, "1.5"}), cannot + "offset 1.5: has '.5' after the number");
  EXPECT_EQ(why("linear", {path, "-2"}), cannot + "offset -2: is negative");
  EXPECT_EQ(why("linear", {path, "18014398509481984"}), cannot + "offset 18014398509481984: is too large");
  EXPECT_EQ(why("linear", {path, "21"}),
            cannot + path + ": offset 10752 is beyond the end, which is at 10240");
  EXPECT_EQ(why("linear", {path, "13"}),
            cannot + path + ": File too small: 4096 bytes are needed from offset 6656 on, it has 3584");
}

TEST_F(RegistryTest, ZeroAndErrorTakeNoArguments) {
  EXPECT_EQ(why("zero", {"a b"}), "cannot make target zero: a\\ b: it takes no arguments");
  EXPECT_EQ(why("error", {"1"}), "cannot make target error: 1: it takes no arguments");
  EXPECT_EQ(make("zero", {}, 12345 * 512)->target->size(), 12345U * 512);
  EXPECT_EQ(make("error", {}, 512)->target->size(), 512U);
}

TEST_F(RegistryTest, ATableLoadsPrintsAndLoadsAgain) {
  const std::string path = file("an image\\with\nodd\tname", 1 << 16);
  std::string words;
  for (const char c : path) {
    if (c == ' ' || c == '\\' || c == '\n' || c == '\t') words += '\\';
    words += c;
  }
  const std::string text = "0 8 linear " + words + " 1\n8 16 zero\n24 8 file " + words + " 513\n32 8 error\n";
  const auto table = load_table(context_, "# for the test\n" + text);
  ASSERT_TRUE(table.has_value()) << table.error().text();
  EXPECT_EQ((*table)->size(), 40U * 512);
  EXPECT_TRUE((*table)->writable());
  EXPECT_EQ((*table)->status().table, text);
  const auto again = load_table(context_, (*table)->status().table);
  ASSERT_TRUE(again.has_value()) << again.error().text();
  EXPECT_EQ((*again)->status().table, text);
}

TEST_F(RegistryTest, ATableNamesTheLineThatCannotBeMade) {
  const std::string path = file("image", 4096);
  const auto refused = load_table(context_, "0 8 zero\n\n8 9 file " + path + " 0\n", "t.table");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().text(),
            "cannot load table: t.table line 3: cannot make target file: " + path +
                ": File too small: 4608 bytes are needed from offset 0 on, it has 4096");
  const auto unknown = load_table(context_, "0 8 linaer x 0\n");
  ASSERT_FALSE(unknown.has_value());
  EXPECT_THAT(
      unknown.error().text(),
      StartsWith("cannot load table: table line 1: cannot make target: linaer: no such type; there are "));
}

}  // namespace
}  // namespace oxbow
