//! A volume that was recovered in part: its namespace is made to fit together again, and what is
//! lost or older than the rest gets the names of files.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use firn_mount::backup::{Gap, Recovered};
use firn_mount::namespace::{CheckOptions, Fate, FindingKind, Namespace};
use firn_tiering::{Budget, Clock, SystemClock};

use super::ago;
use crate::cli::check::repair::{self, Aside};
use crate::config::Config;
use crate::daemon::assemble::{self, OpenNamespace};
use crate::mounts;
use crate::report::check::{Damage, Report};
use crate::report::names;
use crate::volume_dir::VolumeDir;

/// Files that are named in all.
const MAX_NAMED: usize = 100_000;

/// Repairs the namespace of a volume that is being made in `aside` and will be at `place`.
pub(super) fn mend(
    aside: &VolumeDir,
    place: &Path,
    config: &Config,
    made: &Recovered,
) -> anyhow::Result<Report> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let budget = Budget::new(config.memory.0, Arc::clone(&clock));
    let OpenNamespace { namespace, .. } =
        assemble::open_namespace_to_repair(aside, &budget, &clock)?;
    let mut kept = Aside::new(aside, clock.as_ref())?;
    let mut done = namespace
        .repair(CheckOptions::default(), &mut kept)
        .context("repairing what was recovered in part")?;
    let mut report = Report { volume: mounts::shown(place), ..Report::default() };
    report.inodes = done.remaining.inodes;
    report.entries = done.remaining.entries;
    report.block_references = done.remaining.block_references;
    // Counted, and no news of any file.
    done.repairs.retain(|repair| repair.fate != Fate::Mended || !is_derived(repair.kind));
    repair::tell(&mut report, &done);
    tell_gaps(&mut report, &namespace, made)?;
    report.found += done.remaining.found;
    report.damage.extend(done.remaining.findings.iter().map(repair::damage_of));
    namespace.close().context("closing the namespace")?;
    report.kept = kept.dir().and_then(Path::file_name).map(|name| mounts::shown(&place.join(name)));
    report.finish();
    kept.finish(&report)?;
    Ok(report)
}

/// Whether what was made anew follows from records that are as they were.
fn is_derived(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::MissingBackref
            | FindingKind::StaleBackref
            | FindingKind::MissingBorn
            | FindingKind::Usage
    )
}

fn tell_gaps(report: &mut Report, namespace: &Namespace, made: &Recovered) -> anyhow::Result<()> {
    let mut named = 0;
    for gap in &made.gaps {
        let mut damage = damage_of(gap);
        if damage.repairable {
            report.repaired.push(Damage { repairable: true, ..damage });
            continue;
        }
        let (paths, more) = gap
            .paths(namespace, MAX_NAMED - named)
            .with_context(|| format!("looking for what lies in {gap}"))?;
        named += paths.len();
        damage.paths = paths.iter().map(|path| names::text(path)).collect();
        if more > 0 {
            damage.paths.push(format!("and {more} more"));
        }
        report.found += 1;
        report.damage.push(damage);
    }
    Ok(())
}

fn damage_of(gap: &Gap) -> Damage {
    let what = match (gap.is_derived(), gap.older()) {
        (true, _) => "was gone and is made anew".to_owned(),
        (false, Some(older)) => format!(
            "older than the rest: from backup {}, made {} ago",
            older.sequence,
            ago(older.time)
        ),
        (false, None) => {
            "lost: no backup has it whole; names that led there are dropped".to_owned()
        }
    };
    Damage {
        part: "backup".to_owned(),
        place: gap.to_string(),
        what,
        paths: Vec::new(),
        repairable: gap.is_derived(),
    }
}
