//! Asking several stores at once without waiting for the slowest when enough have answered.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

/// How long the rest is waited for when enough have answered.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// ... by whom every answer is wanted.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Answers in the order of the calls; `None` for those that did not come within `grace` after
/// `enough` had come that count. `is_settled` ends the waiting at once.
pub(super) async fn gather<T: Send>(
    calls: Vec<BoxFuture<'_, T>>,
    (enough, grace): (usize, Duration),
    counts: impl Fn(&T) -> bool + Send,
    is_settled: impl Fn(&[Option<T>]) -> bool + Send,
) -> Vec<Option<T>> {
    let mut done: Vec<Option<T>> = calls.iter().map(|_| None).collect();
    let mut waiting: FuturesUnordered<_> =
        calls.into_iter().enumerate().map(|(at, call)| async move { (at, call.await) }).collect();
    let (mut good, mut until) = (0, None);
    loop {
        let next = match until {
            None => waiting.next().await,
            Some(until) => match timeout_at(until, waiting.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some((at, answer)) = next else { break };
        good += usize::from(counts(&answer));
        done[at] = Some(answer);
        if is_settled(&done) {
            break;
        }
        if good >= enough && until.is_none() {
            until = Some(Instant::now() + grace);
        }
    }
    done
}
