//! Hearing an answer whose items are all of one kind.

use anyhow::Context;
use serde::de::DeserializeOwned;

use crate::control::client::Listener;
use crate::control::protocol::Progress;
use crate::report::progress::Follower;

/// Keeps the items, and shows progress.
pub(super) struct Heard<T> {
    follower: Follower,
    pub(super) items: Vec<T>,
}

impl<T> Heard<T> {
    pub(super) fn new() -> Self {
        Self { follower: Follower::new(), items: Vec::new() }
    }
}

impl<T: DeserializeOwned> Listener for Heard<T> {
    fn progress(&mut self, progress: &Progress) {
        self.follower.show_quietly(progress);
    }

    fn warning(&mut self, text: &str) {
        self.follower.note(&format!("firn: warning: {text}"));
    }

    fn item(&mut self, item: serde_json::Value) -> anyhow::Result<()> {
        self.items.push(serde_json::from_value(item).context("the daemon's answer")?);
        Ok(())
    }
}
