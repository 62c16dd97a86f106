// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/base_policy.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace oxbow {
namespace {

namespace fs = std::filesystem;

class BasePolicyTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "oxbow-policy-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = fs::canonical(name).string();
    for (const char* folder : {"layers", "layers/below", "images", "images2"})
      fs::create_directory(path(folder));
    for (const char* file : {"layers/work.oxb", "layers/near.img", "layers/below/deep.img",
                             "images/golden.img", "images2/other.img"}) {
      std::ofstream(path(file)) << "x";
    }
  }
  void TearDown() override { fs::remove_all(root_); }
  [[nodiscard]] std::string path(const std::string& name) const { return root_ + "/" + name; }

  // Empty when the layer may have the base.
  [[nodiscard]] std::string refused(const BasePolicy& policy, const std::string& base) const {
    const auto identity = identify_path(path("layers/work.oxb").c_str());
    const auto admitted = admit_base(policy, path("layers/work.oxb"), &*identity, path(base));
    return admitted ? "" : admitted.error().text();
  }
  void make_foreign() { ASSERT_EQ(::chmod(path("layers/work.oxb").c_str(), 0666), 0); }

  std::string root_;
};

TEST_F(BasePolicyTest, AnOwnLayerMayNameAnyBase) {
  EXPECT_EQ(refused({}, "layers/near.img"), "");
  EXPECT_EQ(refused({}, "images/golden.img"), "");
}

TEST_F(BasePolicyTest, ALayerThatOthersCanWriteMayNameWhatLiesBesideIt) {
  make_foreign();
  EXPECT_EQ(refused({}, "layers/near.img"), "");
  EXPECT_EQ(refused({}, "layers/below/deep.img"), "");
  const std::string golden = path("images/golden.img");
  EXPECT_EQ(refused({}, "images/golden.img"), "cannot open file: " + golden +
                                                  ": the layer can be written to by everybody, and may only "
                                                  "name a base in its own directory or below; "
                                                  "--allow-base " +
                                                  path("images") + " allows it");
}

TEST_F(BasePolicyTest, AForeignLayerMayNameWhatLiesBesideIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  ASSERT_EQ(::chown(path("layers/work.oxb").c_str(), 4711, 4711), 0);
  EXPECT_EQ(refused({}, "layers/near.img"), "");
  EXPECT_NE(
      refused({}, "images/golden.img").find("the layer belongs to another user (uid 4711), and may only"),
      std::string::npos);
}

TEST_F(BasePolicyTest, WithDirectoriesNothingElseIsAllowed) {
  const BasePolicy policy{.directories = {path("images")}, .files = {}};
  EXPECT_EQ(refused(policy, "images/golden.img"), "");
  EXPECT_EQ(refused(policy, "images2/other.img"),
            "cannot open file: " + path("images2/other.img") +
                ": it is in none of the directories that --allow-base names; --allow-base " +
                path("images2") + " allows it");
  EXPECT_NE(refused(policy, "layers/near.img"), "") << "not even beside the layer";
  make_foreign();
  EXPECT_EQ(refused(policy, "images/golden.img"), "");
  EXPECT_EQ(refused({.directories = {"/"}, .files = {}}, "images2/other.img"), "");
}

TEST_F(BasePolicyTest, LinksAndDotsDoNotLeadOut) {
  make_foreign();
  fs::create_symlink(path("images/golden.img"), path("layers/link.img"));
  fs::create_directory_symlink(path("images"), path("layers/inside"));
  for (const char* base : {"layers/link.img", "layers/inside/golden.img", "layers/../images/golden.img",
                           "layers/below/../../images/golden.img"}) {
    EXPECT_NE(refused({}, base), "") << base;
    EXPECT_NE(refused({.directories = {path("layers")}, .files = {}}, base), "") << base;
    EXPECT_EQ(refused({.directories = {path("images")}, .files = {}}, base), "") << base;
  }
}

TEST_F(BasePolicyTest, WhatTheUserNamedIsAllowed) {
  make_foreign();
  fs::create_symlink(path("images/golden.img"), path("named.img"));
  EXPECT_EQ(refused({.directories = {}, .files = {path("named.img")}}, "images/golden.img"), "");
  EXPECT_NE(refused({.directories = {}, .files = {path("named.img")}}, "images2/other.img"), "");
}

TEST_F(BasePolicyTest, AFileThatTakesTheBasesNameIsNotTheBase) {
  const auto layer = identify_path(path("layers/work.oxb").c_str());
  const auto admitted = admit_base({}, path("layers/work.oxb"), &*layer, path("layers/near.img"));
  ASSERT_TRUE(admitted);
  EXPECT_TRUE(admitted->is(*identify_path(path("layers/near.img").c_str())));
  fs::rename(path("images/golden.img"), path("layers/near.img"));
  EXPECT_FALSE(admitted->is(*identify_path(path("layers/near.img").c_str())));
}

TEST_F(BasePolicyTest, ALayerThatWasReplacedIsNotAsked) {
  const auto other = identify_path(path("layers/near.img").c_str());
  const auto admitted = admit_base({}, path("layers/work.oxb"), &*other, path("layers/near.img"));
  ASSERT_FALSE(admitted);
  EXPECT_EQ(admitted.error().text(),
            "cannot open file: " + path("layers/work.oxb") + ": it was replaced while it was opened");
}

TEST_F(BasePolicyTest, ALayerThatIsBeingMadeIsItsUsersOwn) {
  EXPECT_TRUE(admit_base({}, path("layers/new.oxb"), nullptr, path("images/golden.img")));
  EXPECT_FALSE(admit_base({.directories = {path("layers")}, .files = {}}, path("layers/new.oxb"), nullptr,
                          path("images/golden.img")));
}

TEST_F(BasePolicyTest, DirectoriesHaveToBeThere) {
  EXPECT_EQ(*allowed_directory(path("layers/../images")), path("images"));
  EXPECT_EQ(allowed_directory(path("none")).error().text(),
            "cannot allow bases: " + path("none") + ": No such file or directory");
  EXPECT_EQ(allowed_directory(path("layers/near.img")).error().text(),
            "cannot allow bases: " + path("layers/near.img") + ": Not a directory");
}

}  // namespace
}  // namespace oxbow
