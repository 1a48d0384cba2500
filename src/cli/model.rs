//! `firn model`: the classifier that says which files will be used again.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::heard::Heard;
use crate::control::client::Client;
use crate::control::placement::ModelAct;
use crate::control::protocol::Verb;
use crate::failure::EXIT_DONE;
use crate::report;
use crate::report::model::ModelReport;
use crate::volume_dir;

mod eval;

/// Look at and control the classifier that says which files will be used again
///
/// It learns from the volume's own history, decides where the policy's mode is ml, and is switched
/// off by itself, visibly, while simple rules do better.
#[derive(Debug, Args)]
pub(super) struct Model {
    #[command(subcommand)]
    verb: ModelVerb,
}

#[derive(Debug, Subcommand)]
enum ModelVerb {
    /// Show how it does, beside what simple rules would do
    Status(OnVolume),
    /// Train one now from what is known; it takes over when it does well on later time
    Train(OnVolume),
    Eval(eval::Eval),
    /// Go back to the one before
    Rollback(OnVolume),
    /// Have the age decide alone, until it is switched on again
    Off(OnVolume),
    /// Let it decide again
    On(OnVolume),
}

#[derive(Debug, Args)]
struct OnVolume {
    /// A mountpoint or any path below one
    #[arg(default_value = ".")]
    volume: PathBuf,
    /// Print one JSON object: state, reason, version, kind, trained, has_previous, horizon_s,
    /// examples, maturing, evaluation and shadow
    #[arg(long)]
    json: bool,
}

impl Model {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let (act, on) = match self.verb {
            ModelVerb::Status(on) => (ModelAct::Status, on),
            ModelVerb::Train(on) => (ModelAct::Train, on),
            ModelVerb::Eval(eval) => return eval.run(),
            ModelVerb::Rollback(on) => (ModelAct::Rollback, on),
            ModelVerb::Off(on) => (ModelAct::Switch { on: false }, on),
            ModelVerb::On(on) => (ModelAct::Switch { on: true }, on),
        };
        let found = ask(&on.volume, act).context("classifier")?;
        if on.json {
            report::print_json(&found)?;
        } else {
            report::print(&found.text())?;
        }
        Ok(EXIT_DONE)
    }
}

fn ask(volume: &Path, act: ModelAct) -> anyhow::Result<ModelReport> {
    let target = volume_dir::resolve(volume)?;
    let mut heard = Heard::<ModelReport>::new();
    Client::connect(&target.volume)?.ask(Verb::Model(act), &mut heard)?;
    heard.items.pop().context("the daemon answered nothing")
}
