//! `firn key`, and how the key of an encrypted volume is named at the command line: never itself,
//! since arguments are for everybody to see.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use firn_tiering::throttle::Priority;

use crate::cold::{self, Terms};
use crate::config::KeySource;
use crate::failure::{EXIT_DONE, Explain};
use crate::key;
use crate::key::rotation::Rotation;
use crate::mounts;
use crate::report;
use crate::volume_dir::lock::{Owner, VolumeLock};
use crate::volume_dir::{self, VolumeDir};

/// Where the key is kept.
#[derive(Debug, Args)]
#[group(id = "key", multiple = false)]
pub(super) struct KeyArgs {
    /// File with the key: 32 bytes or 64 hexadecimal digits, or a passphrase
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Variable of the environment with the key; whoever may look into the daemon sees it there
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// Command line for `sh` that prints the key
    #[arg(long, value_name = "COMMAND")]
    key_command: Option<String>,
}

impl KeyArgs {
    /// Where, if it was said.
    pub(super) fn source(&self) -> anyhow::Result<Option<KeySource>> {
        source(self.key_file.as_ref(), self.key_env.as_ref(), self.key_command.as_ref())
    }
}

/// Where the new key is kept.
#[derive(Debug, Args)]
#[group(id = "new_key", multiple = false, required = true)]
struct NewKeyArgs {
    /// File with the new key: 32 bytes or 64 hexadecimal digits, or a passphrase
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// Variable of the environment with the new key
    #[arg(long, value_name = "NAME")]
    new_key_env: Option<String>,
    /// Command line for `sh` that prints the new key
    #[arg(long, value_name = "COMMAND")]
    new_key_command: Option<String>,
}

fn source(
    file: Option<&PathBuf>,
    env: Option<&String>,
    command: Option<&String>,
) -> anyhow::Result<Option<KeySource>> {
    Ok(match (file, env, command) {
        (Some(path), ..) => {
            // It is written into `firn.toml`, which is text.
            let path = std::path::absolute(path).context("key file")?;
            if path.to_str().is_none() {
                return Err(anyhow!("{} is no UTF-8", mounts::shown(&path)))
                    .context("key file")
                    .hint("give the file another name")
                    .wrong_usage();
            }
            Some(KeySource::File(path))
        }
        (_, Some(name), _) => Some(KeySource::Env(name.clone())),
        (.., Some(line)) => Some(KeySource::shell(line.clone())),
        _ => None,
    })
}

/// Keys of encrypted volumes
#[derive(Debug, Args)]
pub(super) struct KeyVerb {
    #[command(subcommand)]
    verb: KeyAct,
}

#[derive(Debug, Subcommand)]
enum KeyAct {
    Rotate(Rotate),
}

impl KeyVerb {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match self.verb {
            KeyAct::Rotate(verb) => verb.run(),
        }
    }
}

/// Have another key open an encrypted volume
///
/// The volume must not be mounted. Its own key, under which everything is encrypted, stays the same
/// and is wrapped anew, so no data is written; from then on the old key opens nothing. Whoever has
/// the old key and kept a copy of `key` or of `keys/...` can still read: for them, copy the data to a
/// new volume. `firn.toml` names the new key afterwards. A rotation that is interrupted leaves the
/// old key or the new one in force, as `firn.toml` says; begin it anew.
#[derive(Debug, Args)]
struct Rotate {
    /// Directory of the volume
    volume_dir: PathBuf,
    #[command(flatten)]
    new: NewKeyArgs,
    /// The new key is a passphrase: it is made expensive to guess
    #[arg(long)]
    passphrase: bool,
}

impl Rotate {
    fn run(self) -> anyhow::Result<u8> {
        let volume = volume_dir::resolve(&self.volume_dir).context("rotating a key")?.volume;
        let shown = mounts::shown(volume.root());
        let what = || format!("rotating the key of {shown}");
        self.rotate(&volume).with_context(what)?;
        report::print(&format!("{shown}: the new key opens it, the old one does not any more"))?;
        Ok(EXIT_DONE)
    }

    fn rotate(&self, volume: &VolumeDir) -> anyhow::Result<()> {
        let new = &self.new;
        let named = source(
            new.new_key_file.as_ref(),
            new.new_key_env.as_ref(),
            new.new_key_command.as_ref(),
        )?;
        let source = named.context("no key is named")?;
        let _lock = VolumeLock::acquire(volume, Owner::this("key", None), Duration::ZERO)?;
        let config = volume.config()?;
        let terms = Terms::of(volume, &config, true)?;
        let Some(old) = &terms.seal else {
            return Err(anyhow!("it is not encrypted"))
                .hint("encryption is chosen when a volume is made: `firn init --encrypt`");
        };
        let rotation = Rotation::prepare(volume, old, source, key::derivation(self.passphrase))?;
        let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
        let cold = cold::open(&config, &terms, &runtime)?.context("there is no cold tier")?;
        rotation.run(&config, cold.at(Priority::WriteBack), &runtime, |_| Ok(()))?;
        Ok(())
    }
}
