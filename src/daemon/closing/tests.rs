#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use firn_tiering::tier::{Fault, Faulty, Memory, Op, Tier};
use uuid::Uuid;

use super::*;
use crate::config::Config;
use crate::daemon::assemble;
use crate::units::{Period, Size};
use crate::volume_dir::{VolumeDir, create};

/// An open volume in `dir` whose cold tier is `tier`.
fn volume(dir: &Path, tier: Arc<dyn Tier>, runtime: &tokio::runtime::Runtime) -> Arc<Parts> {
    let path = dir.join("volume");
    let mut config = Config::new(Uuid::new_v4(), Size(1 << 30));
    config.umount_deadline = Period::secs(1);
    config.backup_interval = Period::secs(1);
    let made = config.clone();
    create::build(&path, Path::new("hot"), |aside| {
        assemble::create(aside)?;
        Ok(made)
    })
    .unwrap();
    let dir = VolumeDir::open(&path).unwrap();
    Arc::new(
        assemble::open(
            &dir,
            config,
            Some(crate::cold::ColdTier::plain(tier)),
            false,
            firn_mount::thaw::ThawMode::Never,
            runtime.handle(),
        )
        .unwrap(),
    )
}

#[test]
fn a_backup_that_hangs_holds_the_end_up_no_longer_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()) as Arc<dyn Tier>));
    let parts = volume(dir.path(), Arc::clone(&faulty) as Arc<dyn Tier>, &runtime);
    for _ in 0..100 {
        faulty.fail_next(Some(Op::Put), "namespace/", Fault::Hang);
    }
    parts.start_schedule();
    while faulty.calls(Op::Put) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let began = parts.clock.instant();
    let phase = Phase::default();
    parts.volume.close().unwrap();
    copy_to_cold(&parts, &phase);
    assert!(parts.clock.instant() - began < Duration::from_secs(10));
    assert_eq!(phase.state().warnings.len(), 1);
    // Nobody is left who waits on what goes now.
    while Arc::strong_count(&parts) > 1 {
        assert!(parts.clock.instant() - began < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    runtime.shutdown_background();
}
