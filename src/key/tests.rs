//! That the right key opens and no other, and that a rotation may end anywhere.
#![allow(clippy::unwrap_used, reason = "tests")]

use firn_tiering::tier::Memory;

use super::rotation::{Rotation, Step};
use super::*;
use crate::units::Size;

struct Scene {
    dir: tempfile::TempDir,
    memory: Arc<Memory>,
    runtime: Runtime,
}

impl Scene {
    /// A volume whose key opens to the file `a`; `b` and `c` hold others.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, digit) in [("a", "1"), ("b", "2"), ("c", "3")] {
            fs::write(dir.path().join(name), digit.repeat(64)).unwrap();
        }
        let mut config = Config::new(Uuid::from_u128(5), Size(1 << 30));
        config.cold = Some("file:///srv/cold".parse().unwrap());
        let config = config.encrypted(KeySource::File("a".into()));
        let scene = Self { dir, memory: Arc::new(Memory::new()), runtime: Runtime::new().unwrap() };
        let volume = scene.volume();
        fs::write(scene.dir.path().join(crate::config::FILE_NAME), config.render()).unwrap();
        let seal = Seal::create(&scene.source("a"), Derivation::Key, config.uuid, &PathBuf::new());
        let seal = seal.unwrap();
        seal.keep(&volume).unwrap();
        scene.runtime.block_on(seal.publish(scene.memory.as_ref())).unwrap();
        let tier = sealed(scene.tier(), Some(&seal));
        scene.runtime.block_on(tier.put("segments/x", "snow".into())).unwrap();
        scene
    }

    fn volume(&self) -> VolumeDir {
        VolumeDir::unchecked(self.dir.path().to_owned())
    }

    fn tier(&self) -> Arc<dyn Tier> {
        Arc::clone(&self.memory) as Arc<dyn Tier>
    }

    fn source(&self, name: &str) -> KeySource {
        KeySource::File(name.into()).below(self.dir.path())
    }

    /// Opens the volume directory by what its configuration names, and reads the object.
    fn open(&self) -> anyhow::Result<Seal> {
        let seal =
            Seal::open(&self.volume(), &self.volume().config()?, || Ok(self.tier()))?.unwrap();
        let tier = sealed(self.tier(), Some(&seal));
        assert_eq!(self.runtime.block_on(tier.get("segments/x")).unwrap(), "snow");
        Ok(seal)
    }

    /// Opens the cold tier.
    fn recover(&self, name: &str) -> anyhow::Result<Seal> {
        let (source, volume) = (self.source(name), Some(Uuid::from_u128(5)));
        Seal::from_cold(&source, self.memory.as_ref(), volume, &PathBuf::new(), &self.runtime)
    }

    fn rotate(&self, name: &str, end: Option<Step>) -> anyhow::Result<Generation> {
        let (volume, config) = (self.volume(), self.volume().config()?);
        let old = self.open()?;
        let rotation = Rotation::prepare(&volume, &old, self.source(name), Derivation::Key)?;
        rotation.run(&config, &self.tier(), &self.runtime, |step| {
            self.open()?;
            if Some(step) == end { Err(anyhow!("the lights go out")) } else { Ok(()) }
        })
    }
}

fn says<T: std::fmt::Debug>(result: anyhow::Result<T>, what: &str) {
    let said = crate::failure::line(&result.unwrap_err());
    assert!(said.contains(what), "{said}");
    assert!(!said.contains("1111"), "{said}");
}

#[test]
fn a_rotation_may_end_anywhere_and_be_begun_anew() {
    let steps = [Step::Published, Step::Written, Step::Named, Step::Replaced, Step::Removed];
    for step in steps {
        let scene = Scene::new();
        let stored = scene.memory.peek("segments/x").unwrap();
        says(scene.rotate("b", Some(step)), "the lights go out");
        scene.open().unwrap();
        assert_eq!(scene.recover("a").is_ok(), step != Step::Removed, "{step:?}");
        scene.recover("b").unwrap();
        // A crash of the next one, too.
        says(scene.rotate("c", Some(Step::Written)), "the lights go out");
        scene.open().unwrap();
        scene.rotate("c", None).unwrap();
        scene.open().unwrap();
        scene.recover("c").unwrap();
        for old in ["a", "b"] {
            says(scene.recover(old), "the key does not open this volume");
        }
        let keys: Vec<_> = scene.memory.keys();
        assert_eq!(keys.iter().filter(|key| key.starts_with("keys/")).count(), 1, "{keys:?}");
        assert_eq!(scene.memory.peek("segments/x").unwrap(), stored, "data is not written again");
        assert!(!scene.dir.path().join(NEXT_NAME).exists());
    }
}

#[test]
fn what_cannot_open_is_one_clear_error() {
    let scene = Scene::new();
    let path = scene.dir.path().to_owned();
    fs::copy(path.join("b"), path.join("a")).unwrap();
    says(scene.open(), "the key does not open this volume");
    fs::write(path.join("a"), "nonsense").unwrap();
    says(scene.open(), "is neither 32 bytes nor 64 hexadecimal digits");
    fs::remove_file(path.join("a")).unwrap();
    says(scene.open(), "No such file");

    let scene = Scene::new();
    let key = scene.dir.path().join(FILE_NAME);
    let mut bytes = fs::read(&key).unwrap();
    bytes[40] ^= 1;
    let object = Generation(1).object_key();
    let wrapped = scene.memory.lose(&object).unwrap();
    fs::write(&key, &bytes).unwrap();
    says(scene.open(), "damaged wrapped key");
    fs::remove_file(&key).unwrap();
    says(scene.open(), "is missing");
    scene.memory.overwrite(&object, bytes);
    says(scene.open(), "is missing; the copy in the cold tier");
    scene.memory.overwrite(&object, wrapped);
    scene.open().unwrap();

    let other = Scene::new();
    let key = other.volume();
    let volume = Uuid::from_u128(6);
    let seal = Seal::create(&other.source("a"), Derivation::Key, volume, &PathBuf::new()).unwrap();
    seal.keep(&key).unwrap();
    says(other.open(), "the wrapped key is of volume");
}

#[test]
fn only_whole_objects_of_their_generation_are_believed() {
    let scene = Scene::new();
    let key = Generation(1).object_key();
    let wrapped = scene.memory.lose(&key).unwrap();
    says(scene.recover("a"), "holds no wrapped key");
    scene.memory.overwrite(&Generation(7).object_key(), wrapped.clone());
    says(scene.recover("a"), "it is of generation 1");
    scene.memory.overwrite(&Generation(8).object_key(), vec![0; 5000]);
    says(scene.recover("a"), "keys/000000000000000");
    scene.memory.overwrite(&key, wrapped);
    scene.recover("a").unwrap();
}

#[test]
fn a_source_that_tells_another_key_each_time_locks_nobody_out() {
    let scene = Scene::new();
    let old = scene.open().unwrap();
    let (volume, config) = (scene.volume(), scene.volume().config().unwrap());
    let random = KeySource::shell("head -c 32 /dev/urandom".to_owned());
    let rotation = Rotation::prepare(&volume, &old, random, Derivation::Key).unwrap();
    let done = rotation.run(&config, &scene.tier(), &scene.runtime, |_| Ok(()));
    says(done, "tells another key each time");
    scene.open().unwrap();
    assert_eq!(scene.memory.keys(), ["keys/0000000000000001", "segments/x"]);
}

/// Either copy of the wrapped key is enough, together with what the owner keeps.
#[test]
fn a_key_file_that_is_lost_or_damaged_is_replaced_by_the_one_in_the_cold_tier() {
    let scene = Scene::new();
    let key = scene.dir.path().join(FILE_NAME);
    let whole = fs::read(&key).unwrap();
    for damaged in [None, Some(&whole[..10]), Some(&[0; 4000][..])] {
        match damaged {
            None => fs::remove_file(&key).unwrap(),
            Some(bytes) => fs::write(&key, bytes).unwrap(),
        }
        scene.open().unwrap();
        assert_eq!(fs::read(&key).unwrap(), whole);
    }
    // Nothing is fetched that the owner's key does not open.
    fs::remove_file(&key).unwrap();
    fs::copy(scene.dir.path().join("b"), scene.dir.path().join("a")).unwrap();
    says(scene.open(), "the key does not open this volume");
    assert!(!key.exists());
}
