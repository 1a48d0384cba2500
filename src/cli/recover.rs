//! `firn recover`: a volume from its cold tier alone, up to its last backup.
//!
//! *Crash*: the volume is built in a directory beside its place, repaired there if it was recovered
//! in part, and renamed; what is left of one that was cut short is read by nobody.

mod part;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use clap::Args;
use firn_mount::backup::{self, BackupError, RecoverOptions, Recovered, Skipped};
use firn_tiering::tier::{Access, Ownership, Tier};
use firn_tiering::{Clock, SystemClock};
use uuid::Uuid;

use super::check::CheckVerb;
use super::init::{hot_place, parse_cold};
use super::key::KeyArgs;
use crate::cold::{self, ColdSet, Identity};
use crate::config::{ColdUrls, Config, KeySource, MIN_HOT_CAPACITY};
use crate::failure::{self, EXIT_DAMAGE, EXIT_DONE, Explain};
use crate::key::Seal;
use crate::report;
use crate::report::check::Report;
use crate::report::escape::visible;
use crate::units::{Size, rounded_duration};
use crate::volume_dir::{self, VolumeDir, create, instance};

/// Make a volume from its cold tier alone
///
/// Opens everything up to the last backup, on a machine that has nothing else. The old machine
/// must not use the volume any more; should it come back, it can neither store nor delete in the
/// cold tier, which is this volume's from now on. Blocks are read from the cold tier when they are
/// needed. Whether all are there is looked up in the end, and files that lack some are named; exit
/// status 3 says that there are such.
/// The newest backup that is whole is taken. With --partial it is the newest that can be read at all:
/// parts of it that are gone come from older backups, or are left out, the namespace is repaired, and
/// every file that is older than the rest or lost is named; exit status 3 says that there are such.
#[derive(Debug, Args)]
pub(super) struct Recover {
    /// URL of the cold tier; of one that is spread over several stores, all of them in the order in
    /// which the volume was made with them
    #[arg(required = true)]
    cold_url: Vec<String>,
    /// Directory of the volume to make
    volume_dir: PathBuf,
    /// Of several stores, how many of the last ones hold parity
    #[arg(long, value_name = "COUNT")]
    cold_parity: Option<u8>,
    /// Directory of the hot tier, on fast local disk [default: <volume-dir>/hot]
    #[arg(long, value_name = "DIR")]
    hot: Option<PathBuf>,
    /// Bytes the volume may use locally [default: nine tenths of what is free]
    #[arg(long, value_name = "SIZE")]
    hot_capacity: Option<Size>,
    /// Bytes the volume may use in the cold tier [default: unlimited]
    #[arg(long, value_name = "SIZE")]
    cold_capacity: Option<Size>,
    /// Take the newest backup even if parts of it are gone, and name what is lost or older for that
    #[arg(long)]
    partial: bool,
    /// Do not look whether every block is there: one request for each segment
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    key: KeyArgs,
}

impl Recover {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let urls = parse_cold(&self.cold_url)?;
        let (recovered, mended) =
            self.recover(&urls).with_context(|| format!("recovering from {urls}"))?;
        recovered.skipped.iter().for_each(|skipped| self.warn_of(skipped));
        let ago = ago(recovered.backup.time);
        report::print(&format!(
            "recovered {} records of backup {}, made {ago} ago",
            recovered.records, recovered.backup.sequence,
        ))?;
        if let Some(mended) = &mended {
            report::print(&mended.text())?;
        }
        let is_whole = mended.is_none_or(|mended| mended.clean);
        let code = if is_whole { EXIT_DONE } else { EXIT_DAMAGE };
        if self.no_check {
            return Ok(code);
        }
        Ok(self.look_over()?.max(code))
    }

    /// Tells of a newer backup than the one that was taken.
    fn warn_of(&self, skipped: &Skipped) {
        let Skipped { sequence, time, reason } = skipped;
        let made = time.map(|time| format!(", made {} ago,", ago(time))).unwrap_or_default();
        report::note(&format!(
            "firn: warning: backup {sequence}{made} could not be used: {}",
            visible(reason)
        ));
        if time.is_some() && !self.partial {
            report::note("hint: --partial recovers what is left of it");
        }
    }

    /// Tells what is missing.
    fn look_over(&self) -> anyhow::Result<u8> {
        let volume = volume_dir::resolve(&self.volume_dir)?.volume;
        let report = CheckVerb::after_recovery(&volume)
            .context("looking whether every block is there; the volume itself is recovered")?;
        report::print(&report.text())?;
        Ok(if report.clean { EXIT_DONE } else { EXIT_DAMAGE })
    }

    /// The volume, and what was repaired and is lost of one that was recovered in part.
    fn recover(&self, urls: &ColdUrls) -> anyhow::Result<(Recovered, Option<Report>)> {
        // Checked first, so that a wrong number of stores is not taken for lost ones.
        self.config(Uuid::nil(), Path::new("hot"), MIN_HOT_CAPACITY, urls).check().wrong_usage()?;
        let set = &ColdSet::unknown(urls.clone(), self.cold_parity.unwrap_or(0));
        let path = create::check_place(&self.volume_dir)?;
        let (hot, capacity) = hot_place(&path, self.hot.as_deref(), self.hot_capacity)?;
        let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
        let tier = cold::probe(set, Access::Read, &runtime)?;
        let identity = cold::identity(set, tier.as_ref(), &runtime)?;
        let source = self.key.source()?;
        let seal = unlock(source.as_ref(), identity.as_ref(), &tier, &path.join(&hot), &runtime)?;
        let tier = cold::open_patiently(set, seal.as_ref())?;
        let mut recovered = None;
        create::build(&path, &hot, |aside| {
            let dir = aside.namespace_dir();
            let options = RecoverOptions { partial: self.partial, ..RecoverOptions::default() };
            let made = backup::recover(&tier, runtime.handle(), &dir, options)
                .map_err(|error| self.explained(error))
                .context("reading the backup of the namespace")?;
            let uuid = Uuid::from_bytes(made.backup.volume);
            if let Some(identity) = identity.filter(|identity| identity.uuid != uuid) {
                return Err(anyhow!(
                    "the backup is of volume {uuid}, the tier belongs to {}",
                    identity.uuid
                ));
            }
            let mut config = self.config(uuid, &hot, capacity, urls);
            if let (Some(source), Some(seal)) = (&source, &seal) {
                config = config.encrypted(source.clone());
                seal.keep(aside)?;
            }
            config.check().wrong_usage()?;
            let mended = match made.gaps.is_empty() {
                true => None,
                false => Some(part::mend(aside, &path, &config, &made)?),
            };
            recovered = Some((made, mended));
            take_over(aside, &tier, &runtime);
            Ok(config)
        })?;
        recovered.ok_or_else(|| anyhow!("there is no backup"))
    }

    /// A failure with what can be done about it.
    fn explained(&self, error: BackupError) -> anyhow::Error {
        let hint = match &error {
            BackupError::NoWholeBackup { readable: 1.., .. } if !self.partial => {
                "--partial recovers what is left, and names what is lost or older than the rest"
            }
            BackupError::NoBackup { segments: 1.., .. } | BackupError::NoWholeBackup { .. } => {
                "blocks without a backup have no names: look for older versions of what lies under \
                 `namespace/` there, or for the machine that had the volume"
            }
            _ => "is this the URL that the volume was made with?",
        };
        failure::hinted(error, hint)
    }

    fn config(&self, uuid: Uuid, hot: &Path, capacity: Size, urls: &ColdUrls) -> Config {
        let mut config = Config::new(uuid, capacity);
        hot.clone_into(&mut config.hot);
        config.cold = Some(urls.clone());
        config.cold_parity = self.cold_parity;
        config.cold_capacity = self.cold_capacity;
        config
    }
}

/// How long ago something was made, for people.
fn ago(time: SystemTime) -> String {
    rounded_duration(SystemClock.now().duration_since(time).unwrap_or_default())
}

/// The key of the volume, if it is encrypted; what was given and what is there must agree.
fn unlock(
    source: Option<&KeySource>,
    identity: Option<&Identity>,
    tier: &Arc<dyn Tier>,
    hot: &Path,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Option<Seal>> {
    match (source, identity.map(Identity::is_encrypted)) {
        (None, Some(true)) => Err(anyhow!("it is encrypted, and no key was given"))
            .hint("say where the key is kept with --key-file, --key-env or --key-command"),
        (Some(_), Some(false)) => Err(anyhow!("a key was given, and it is not encrypted"))
            .hint("leave the key away if it never was; else somebody changed volume.json"),
        (None, _) => Ok(None),
        (Some(source), _) => {
            let volume = identity.map(|identity| identity.uuid);
            Seal::from_cold(source, tier.as_ref(), volume, hot, runtime).map(Some)
        }
    }
}

/// Makes the recovered volume the owner of its cold tier: whoever recovers says that the old one is
/// gone, and should that come back, it may not delete what this one needs. Credentials that only
/// read are enough to recover; the first mount then says what is missing.
fn take_over(aside: &VolumeDir, tier: &Arc<dyn Tier>, runtime: &tokio::runtime::Runtime) {
    let claimed = instance::id_of(aside).and_then(|instance| {
        let clock = Arc::new(SystemClock);
        let ownership = Ownership::new(cold::claimant(instance), clock, cold::claim_ids());
        Ok(runtime.block_on(ownership.claim(tier.as_ref(), true))?)
    });
    if let Err(error) = claimed {
        report::note(&format!(
            "firn: warning: the cold tier could not be claimed: {}",
            failure::line(&error)
        ));
    }
}
