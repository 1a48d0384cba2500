//! Properties of datasets: what is set, what is inherited, and what a crash leaves.

use super::*;
use firn_tiering::encode::Compression;

use crate::namespace::{Property, Setting, Source};

fn make(world: &World, parent: Ino, name: &str, settings: &[Setting]) -> (Dataset, Ino) {
    let name = name.as_bytes();
    let made = world.ns.create_dataset(&ROOT_CALLER, parent, name, 0o755, settings).unwrap();
    (made, world.ns.lookup(parent, name).unwrap().ino)
}

#[test]
fn a_setting_holds_for_the_dataset_and_all_below_until_another_one() {
    let world = World::new();
    let ns = &world.ns;
    let (a, at) = make(&world, Ino::ROOT, "a", &[]);
    let (b, at) = make(&world, at, "b", &[Setting::Tier(Some("cold".to_owned()))]);
    let (c, at) = make(&world, at, "c", &[]);
    assert_eq!(
        *ns.properties(c).unwrap(),
        Properties { tier: Some("cold".to_owned()), ..Properties::default() }
    );
    let lz4 = Setting::Compression(Compression::LZ4);
    ns.set(a, &[lz4.clone(), Setting::ReadOnly(true), Setting::Quota(Some(5))]).unwrap();
    ns.set(c, &[Setting::ReadOnly(false)]).unwrap();
    let get = |dataset, property| ns.setting(dataset, property).unwrap();
    let off = Setting::Compression(Compression::AUTO);
    assert_eq!(get(Dataset::ROOT, Property::Compression), (off, Source::Default));
    assert_eq!(get(a, Property::Compression), (lz4.clone(), Source::Local));
    assert_eq!(get(c, Property::Compression), (lz4, Source::Inherited(a)));
    assert_eq!(get(b, Property::ReadOnly), (Setting::ReadOnly(true), Source::Inherited(a)));
    assert_eq!(get(c, Property::ReadOnly), (Setting::ReadOnly(false), Source::Local));
    // What lies below counts against it, so that nothing is taken over.
    assert_eq!(get(b, Property::Quota), (Setting::Quota(None), Source::Default));
    assert!(ns.properties(b).unwrap().read_only && !ns.properties(c).unwrap().read_only);
    assert_eq!(ns.properties_of(at).unwrap(), ns.properties(c).unwrap());
    ns.inherit(&[b, c], Property::ReadOnly).unwrap();
    ns.inherit(&[a], Property::Quota).unwrap();
    assert_eq!(get(c, Property::ReadOnly), (Setting::ReadOnly(true), Source::Inherited(a)));
    assert_eq!(ns.properties(a).unwrap().quota, None);
    let before: Vec<_> = [a, b, c].map(|of| ns.properties(of).unwrap()).into();
    world.assert_sound();
    let world = world.power_loss();
    let after: Vec<_> = [a, b, c].map(|of| world.ns.properties(of).unwrap()).into();
    assert_eq!(before, after);
    world.assert_sound();
}

#[test]
fn several_settings_are_changed_together_or_not_at_all() {
    let world = World::new();
    let (a, _) = make(&world, Ino::ROOT, "a", &[]);
    for refused in [Setting::Quota(Some(0)), Setting::Tier(Some("a/b".to_owned()))] {
        let property = refused.property();
        let outcome = world.ns.set(a, &[Setting::ReadOnly(true), refused.clone()]);
        assert!(matches!(outcome, Err(TreeError::InvalidSetting(of)) if of == property));
        let made = world.ns.create_dataset(&ROOT_CALLER, Ino::ROOT, b"x", 0o755, &[refused]);
        assert!(matches!(made, Err(TreeError::InvalidSetting(of)) if of == property));
    }
    assert!(!world.ns.properties(a).unwrap().read_only);
    assert!(matches!(world.ns.set(Dataset(99), &[]), Err(TreeError::NoDataset)));
    assert!(matches!(
        world.ns.inherit(&[a, Dataset(99)], Property::Tier),
        Err(TreeError::NoDataset)
    ));
}

#[test]
fn who_does_not_know_properties_refuses_a_volume_that_has_some() {
    let world = World::new();
    let volume = |world: &World| {
        let stored = world.ns.store().get(Space::Meta, key::VOLUME).unwrap().unwrap();
        VolumeRecord::decode(&stored).unwrap().features & VolumeRecord::PROPERTIES
    };
    let (a, _) = make(&world, Ino::ROOT, "a", &[]);
    assert_eq!(volume(&world), 0);
    world.ns.set(a, &[Setting::ReadOnly(true)]).unwrap();
    assert_eq!(volume(&world), VolumeRecord::PROPERTIES);
    world.ns.destroy_dataset(a, false).unwrap();
    let left = world.ns.store().page(Space::Meta, &[key::PROPERTIES], Some(b"q"), 9).unwrap();
    assert!(left.items.is_empty());
    let world = world.power_loss();
    assert_eq!(volume(&world), VolumeRecord::PROPERTIES);
    assert!(matches!(world.ns.properties(a), Err(TreeError::NoDataset)));
}

#[test]
fn a_property_of_a_later_version_is_not_ignored() {
    let world = World::new();
    let (a, _) = make(&world, Ino::ROOT, "a", &[Setting::ReadOnly(true)]);
    let store = Arc::clone(world.ns.store());
    let mut batch = Batch::new();
    batch.put(Space::Meta, &key::meta_number(key::PROPERTIES, a.0), vec![1, 1, 99, 0]);
    store.commit(batch, Durability::Durable).unwrap();
    let clock = Arc::new(firn_tiering::SystemClock);
    let opened = Namespace::open(store, clock, NamespaceOptions::default());
    let why = crate::file::chain(&opened.unwrap_err());
    assert!(why.contains("a property that this version does not know"), "{why}");
}

#[test]
fn a_quota_is_not_less_than_what_is_used() {
    let world = World::new();
    let (a, at) = make(&world, Ino::ROOT, "a", &[]);
    let (b, below) = make(&world, at, "b", &[]);
    let file = world.file(below, "f");
    world.write(file, 0, &[piece(0, 1000, 1)]);
    for dataset in [a, b] {
        let settings = [Setting::ReadOnly(true), Setting::Quota(Some(999))];
        let refused = world.ns.set(dataset, &settings);
        assert!(matches!(refused, Err(TreeError::QuotaBelowUse { used: 1000 })));
        assert!(!world.ns.properties(dataset).unwrap().read_only, "all or none");
        assert_eq!(world.ns.quota_of(dataset), None);
        world.ns.set(dataset, &[Setting::Quota(Some(1000))]).unwrap();
        // One that holds already may stay while more is used, and may be taken away.
        world.ns.set(dataset, &[Setting::Quota(None)]).unwrap();
    }
}
