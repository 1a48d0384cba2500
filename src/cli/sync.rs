//! `firn sync`: everything acknowledged so far becomes durable. `sync(2)` and `syncfs(2)` cannot
//! do that for a FUSE filesystem: they start writing and wait for nothing.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::control::client::{Client, Silent};
use crate::control::protocol::Verb;
use crate::failure::EXIT_DONE;
use crate::mounts;
use crate::volume_dir;

/// Make everything durable that was written so far
///
/// Returns when it is. Applications that need this for single files call fsync.
#[derive(Debug, Args)]
pub(super) struct Sync {
    /// The mountpoint, or any path below it
    mountpoint: PathBuf,
}

impl Sync {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let what = || format!("syncing {}", mounts::shown(&self.mountpoint));
        let target = volume_dir::resolve(&self.mountpoint).with_context(what)?;
        let client = Client::connect(&target.volume).with_context(what)?;
        client.ask(Verb::Sync, &mut Silent).with_context(what)?;
        Ok(EXIT_DONE)
    }
}
