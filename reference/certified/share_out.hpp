// A loop's turns shared out to threads.
#pragma once

#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <cstddef>
#include <cstdint>

namespace norma {

/// Calls work(first, last) for ranges that make up [0, count), of `grain` turns or more (the last may be shorter), on
/// at most `threads` threads; 0: on as many as there are.
///
/// All there are work in the arena that the caller is in, whose workers wait a while for the next call: the second one
/// begins within a microsecond. An arena made for the call begins with waking them: 30 to 90 us in a virtual machine
/// (measured), in which one thread rounds 64 to 256 rows of 3072. Isolated: a caller that waits here must not pick up
/// work from outside.
template <class Work>
void share_out(std::int64_t count, std::int64_t grain, int threads, const Work& work) {
  namespace tbb = oneapi::tbb;
  if (count <= 0) return;
  if (threads == 1 || count <= grain) {
    work(std::int64_t{0}, count);
    return;
  }
  const auto parts = [&] {
    tbb::parallel_for(tbb::blocked_range<std::int64_t>(0, count, static_cast<std::size_t>(grain)),
                      [&](const auto& range) { work(range.begin(), range.end()); });
  };
  if (threads <= 0 || threads >= tbb::this_task_arena::max_concurrency()) {
    tbb::this_task_arena::isolate(parts);
  } else {
    tbb::task_arena fewer(threads);
    fewer.execute(parts);
  }
}

}  // namespace norma
