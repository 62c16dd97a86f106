// SPDX-License-Identifier: Apache-2.0
#include "os/task.h"

#include <gtest/gtest.h>

#include <deque>

namespace oxbow {
namespace {

// Stands for a store that is told when to complete what. Thread safety: one thread.
class Later {
 public:
  Progress submit(Io& io) {
    waiting_.push_back(&io);
    return Progress::pending();
  }
  void finish(Queue& queue, IoStatus status = {}) {
    Io* io = waiting_.front();
    waiting_.pop_front();
    queue.post(*io, status);
    queue.poll();
  }
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

 private:
  std::deque<Io*> waiting_;
};

// The end of a request.
struct End : Io {
  explicit End(Queue& owner) : Io(owner, [](Io& self) noexcept { ++static_cast<End&>(self).ends; }) {}
  int ends = 0;
};

Task at_once(Queue& /*queue*/, IoStatus status) { co_return status; }

Task waits(Queue& queue, Later& later, int times) {
  WaitIo io(queue);
  for (int round = 0; round < times; ++round) {
    const IoStatus status = co_await io(later.submit(io));
    if (!status.ok()) co_return status;
  }
  co_return IoStatus{};
}

Task nested(Queue& queue, Later& later, int depth) {
  if (depth == 0) co_return co_await waits(queue, later, 1);
  co_return co_await nested(queue, later, depth - 1);
}

TEST(Task, RunsToItsEndAtOnceWhereNothingIsPending) {
  Queue queue;
  const Task task = at_once(queue, IoStatus::error(ENOSPC));
  EXPECT_TRUE(task.finished());
  EXPECT_EQ(task.status().error_number(), ENOSPC);
  End end(queue);
  const Progress progress = at_once(queue, {}).detach(end);
  EXPECT_TRUE(progress.is_done());
  EXPECT_TRUE(progress.status().ok());
  queue.poll();
  EXPECT_EQ(end.ends, 0) << "done, so nobody is called back";
}

TEST(Task, DetachedCompletesItsIoOnceAtTheEnd) {
  Queue queue;
  Later later;
  End end(queue);
  EXPECT_TRUE(waits(queue, later, 3).detach(end).is_pending());
  later.finish(queue);
  later.finish(queue);
  EXPECT_EQ(end.ends, 0);
  later.finish(queue, IoStatus::error(EIO));
  EXPECT_EQ(end.ends, 1);
  EXPECT_EQ(end.status.error_number(), EIO);
  EXPECT_EQ(later.waiting(), 0U);
}

TEST(Task, ErrorsEndTheWaiting) {
  Queue queue;
  Later later;
  End end(queue);
  EXPECT_TRUE(waits(queue, later, 3).detach(end).is_pending());
  later.finish(queue, IoStatus::error(ENOSPC));
  EXPECT_EQ(end.status.error_number(), ENOSPC);
  EXPECT_EQ(end.ends, 1);
}

TEST(Task, TasksAwaitTasks) {
  Queue queue;
  Later later;
  End end(queue);
  EXPECT_TRUE(nested(queue, later, 50).detach(end).is_pending());
  later.finish(queue, IoStatus::error(ERANGE));
  EXPECT_EQ(end.ends, 1);
  EXPECT_EQ(end.status.error_number(), ERANGE);
}

// A member coroutine, which finds its pool in the second parameter, after the object.
struct Object {
  Task member(Io& io, Later& later) {
    WaitIo wait(*io.queue);
    co_return co_await wait(later.submit(wait));
  }
};

TEST(Task, FramesComeFromTheQueuesPool) {
  Queue queue;
  Later later;
  End end(queue);
  Object object;
  std::array<void*, 2> frames{};
  for (void*& frame : frames) {
    // Whatever the frame took from the pool is the first to be lent again.
    EXPECT_TRUE(object.member(end, later).detach(end).is_pending());
    later.finish(queue);
    frame = queue.frames().allocate(256);
    FramePool::release(frame);
  }
  EXPECT_EQ(end.ends, 2);
  EXPECT_EQ(frames[0], frames[1]);
}

Task batched(Queue& queue, Later& later, std::vector<Progress> at_once, std::size_t pending) {
  WaitBatch<4> batch(queue);
  for (const Progress& progress : at_once) {
    (void)batch.next();
    batch.submitted(progress);
  }
  for (std::size_t index = 0; index < pending; ++index) {
    if (batch.full()) {
      const IoStatus status = co_await batch;
      if (!status.ok()) co_return status;
    }
    batch.submitted(later.submit(batch.next()));
  }
  co_return co_await batch;
}

TEST(WaitBatch, WaitsForAllAndTellsTheFirstError) {
  Queue queue;
  Later later;
  End end(queue);
  EXPECT_TRUE(batched(queue, later, {Progress::done(), Progress::done()}, 0).finished());
  EXPECT_EQ(
      batched(queue, later, {Progress::failed(EIO), Progress::failed(ENOSPC)}, 0).status().error_number(),
      EIO);

  EXPECT_TRUE(batched(queue, later, {Progress::done()}, 3).detach(end).is_pending());
  EXPECT_EQ(later.waiting(), 3U);
  later.finish(queue);
  later.finish(queue, IoStatus::error(ENOSPC));
  EXPECT_EQ(end.ends, 0) << "an error doesn't end the others";
  later.finish(queue, IoStatus::error(EIO));
  EXPECT_EQ(end.ends, 1);
  EXPECT_EQ(end.status.error_number(), ENOSPC);
}

TEST(WaitBatch, MayBeUsedAgain) {
  Queue queue;
  Later later;
  End end(queue);
  EXPECT_TRUE(batched(queue, later, {}, 10).detach(end).is_pending());
  for (int finished = 0; finished < 10; ++finished) {
    EXPECT_EQ(end.ends, 0);
    later.finish(queue);
  }
  EXPECT_EQ(end.ends, 1);
  EXPECT_TRUE(end.status.ok());
}

}  // namespace
}  // namespace oxbow
