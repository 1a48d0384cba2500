//! What a panic does to a mounted volume. One on a thread that serves requests leaves its caller
//! without an answer for ever, so the mount is ended in order instead; the library can be brought
//! to it by a single request (fuser 0.18: a time of `i64::MIN` seconds and some nanoseconds).

use std::sync::{Mutex, PoisonError};

use firn_mount::fuse;
use tokio::sync::Notify;

static SERVING_THREAD: Notify = Notify::const_new();

/// Logs a panic before it goes to standard error, so that the log file has it too, and tells
/// [`of_serving_thread`].
pub(super) fn watch() {
    let print = std::panic::take_hook();
    let last = Mutex::new(());
    std::panic::set_hook(Box::new(move |info| {
        let _one_at_a_time = last.lock().unwrap_or_else(PoisonError::into_inner);
        tracing::error!("{info}");
        print(info);
        if std::thread::current().name().is_some_and(fuse::is_serving_thread) {
            SERVING_THREAD.notify_one();
        }
    }));
}

/// Waits until a thread that serves requests has panicked.
pub(super) async fn of_serving_thread() {
    SERVING_THREAD.notified().await;
}
