//! `firn recover`: a volume from its cold tier alone, up to its last backup.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use firn_mount::backup::{self, RecoverOptions, Recovered};
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
use crate::units::{Size, rounded_duration};
use crate::volume_dir::{self, VolumeDir, create, instance};

/// Make a volume from its cold tier alone
///
/// Opens everything up to the last backup, on a machine that has nothing else. The old machine
/// must not use the volume any more; should it come back, it can neither store nor delete in the
/// cold tier, which is this volume's from now on. Blocks are read from the cold tier when they are
/// needed. Whether all are there is looked up in the end, and files that lack some are named; exit
/// status 3 says that there are such.
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
    /// Do not look whether every block is there: one request for each segment
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    key: KeyArgs,
}

impl Recover {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let urls = parse_cold(&self.cold_url)?;
        let recovered = self.recover(&urls).with_context(|| format!("recovering from {urls}"))?;
        for skipped in &recovered.skipped {
            report::note(&format!(
                "firn: warning: backup {} could not be used: {}",
                skipped.sequence, skipped.reason
            ));
        }
        let age = SystemClock.now().duration_since(recovered.backup.time).unwrap_or_default();
        report::print(&format!(
            "recovered {} records of backup {}, made {} ago",
            recovered.records,
            recovered.backup.sequence,
            rounded_duration(age)
        ))?;
        if self.no_check {
            return Ok(EXIT_DONE);
        }
        self.look_over()
    }

    /// Tells what is missing.
    fn look_over(&self) -> anyhow::Result<u8> {
        let volume = volume_dir::resolve(&self.volume_dir)?.volume;
        let report = CheckVerb::after_recovery(&volume)
            .context("looking whether every block is there; the volume itself is recovered")?;
        report::print(&report.text())?;
        Ok(if report.clean { EXIT_DONE } else { EXIT_DAMAGE })
    }

    fn recover(&self, urls: &ColdUrls) -> anyhow::Result<Recovered> {
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
            let options = RecoverOptions::default();
            let made = backup::recover(&tier, runtime.handle(), &dir, options)
                .context("reading the backup of the namespace")
                .hint("is this the URL that the volume was made with?")?;
            let uuid = Uuid::from_bytes(made.backup.volume);
            if let Some(identity) = identity.filter(|identity| identity.uuid != uuid) {
                return Err(anyhow!(
                    "the backup is of volume {uuid}, the tier belongs to {}",
                    identity.uuid
                ));
            }
            recovered = Some(made);
            let mut config = self.config(uuid, &hot, capacity, urls);
            if let (Some(source), Some(seal)) = (&source, &seal) {
                config = config.encrypted(source.clone());
                seal.keep(aside)?;
            }
            config.check().wrong_usage()?;
            take_over(aside, &tier, &runtime);
            Ok(config)
        })?;
        recovered.ok_or_else(|| anyhow!("there is no backup"))
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
