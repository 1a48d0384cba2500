//! A cold tier that was away at the mount: asked again until it answers, then claimed as it would
//! have been. Until then reads wait or fail, and nothing is stored or deleted there.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::Error;
use firn_tiering::tier::is_retriable;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Runtime;

use super::{ColdSet, ColdTier, Terms};
use crate::config::Config;
use crate::failure;

/// Between two attempts, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The error of a store that does not answer. Says nothing beside its source.
#[derive(Debug, thiserror::Error)]
#[error("does not answer")]
pub(super) struct Absence(#[source] Error);

impl Absence {
    /// Tells a store that is away from one that refuses.
    pub(super) fn sort(error: Error) -> anyhow::Error {
        if is_retriable(&error) { Self(error).into() } else { error.into() }
    }
}

/// Whether an error says that the store is away, and nothing worse.
pub(super) fn is_absence(error: &anyhow::Error) -> bool {
    let passes = |error: &(dyn std::error::Error + 'static)| {
        error.is::<Absence>() || error.downcast_ref::<Error>().is_some_and(is_retriable)
    };
    error.chain().any(passes)
}

/// Goes on trying in the background until it is dropped.
#[derive(Debug, Default)]
pub struct Contact {
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    is_ending: bool,
    /// Why the store will not be this mount's, as far as can be seen.
    refusal: Option<String>,
}

impl Contact {
    /// Begins; `succeeded` is called once the store has answered and is ours.
    pub fn begin(
        cold: &Arc<ColdTier>,
        config: &Config,
        terms: &Terms,
        succeeded: impl FnOnce() + Send + 'static,
    ) -> Self {
        let this = Self::default();
        let (state, cold) = (Arc::clone(&this.state), Arc::downgrade(cold));
        let (config, terms) = (config.clone(), terms.clone());
        let thread = std::thread::Builder::new().name("firn-contact".into()).spawn(move || {
            let mut pause = FIRST_PAUSE;
            while sleep(&state, pause) {
                let Some(cold) = cold.upgrade() else { return };
                match attempt(&config, &terms, &cold) {
                    Ok(()) => {
                        tracing::info!("the cold tier is back");
                        state.0.lock().refusal = None;
                        return succeeded();
                    }
                    Err(error) => {
                        tracing::warn!("the cold tier: {}", failure::line(&error));
                        state.0.lock().refusal =
                            (!is_absence(&error)).then(|| failure::line(&error));
                    }
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread to ask for the cold tier");
        }
        this
    }

    /// Why the store will not be this mount's.
    pub fn refusal(&self) -> Option<String> {
        self.state.0.lock().refusal.clone()
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        self.state.0.lock().is_ending = true;
        self.state.1.notify_all();
    }
}

/// `false` when it is time to end.
fn sleep(state: &(Mutex<State>, Condvar), pause: Duration) -> bool {
    let mut guard = state.0.lock();
    state.1.wait_while_for(&mut guard, |state| !state.is_ending, pause);
    !guard.is_ending
}

/// On a runtime of its own: nothing of it outlives the attempt.
fn attempt(config: &Config, terms: &Terms, cold: &ColdTier) -> anyhow::Result<()> {
    let Some(set) = ColdSet::of(config) else { return Ok(()) };
    let runtime = Runtime::new()?;
    let made = super::make_contact(config, &set, terms, cold.ownership(), &runtime);
    runtime.shutdown_background();
    made
}
