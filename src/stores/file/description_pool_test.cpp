// SPDX-License-Identifier: Apache-2.0
#include "stores/file/description_pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

namespace oxbow {
namespace {

// Whether two descriptors are of one open file description: then they share its offset.
bool share(int one, int other) {
  EXPECT_EQ(::lseek(one, 0, SEEK_SET), 0);
  EXPECT_EQ(::lseek(other, 5, SEEK_SET), 5);
  return ::lseek(one, 0, SEEK_CUR) == 5;
}

TEST(DescriptionPool, LendsEachToOneAtATime) {
  const UniqueFd file(::memfd_create("pool", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 4096), 0);
  DescriptionPool pool(file.get());
  std::vector<DescriptionPool::Lease> lent;
  for (int i = 0; i < 20; ++i) lent.push_back(pool.take());  // more than it keeps
  for (std::size_t i = 0; i < lent.size(); ++i) {
    ASSERT_TRUE(lent[i]);
    EXPECT_FALSE(share(file.get(), lent[i].fd()));
    for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(share(lent[j].fd(), lent[i].fd()));
  }
}

TEST(DescriptionPool, LendsTheSameAgain) {
  const UniqueFd file(::memfd_create("pool", MFD_CLOEXEC));
  DescriptionPool pool(file.get());
  const int first = pool.take().fd();
  EXPECT_EQ(pool.take().fd(), first);
  EXPECT_NE(::fcntl(first, F_GETFD) & FD_CLOEXEC, 0);
}

TEST(DescriptionPool, IsOfTheFileWhateverItsNameIs) {
  const UniqueFd file(::memfd_create("pool", MFD_CLOEXEC));
  DescriptionPool pool(file.get());
  ASSERT_EQ(::pwrite(pool.take().fd(), "x", 1, 0), 1);
  char byte = 0;
  ASSERT_EQ(::pread(file.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
}

TEST(DescriptionPool, HasNoneOfAFileThatIsNotOpen) {
  DescriptionPool pool(-1);
  EXPECT_FALSE(pool.take());
}

}  // namespace
}  // namespace oxbow
