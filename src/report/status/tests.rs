#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn sample() -> Status {
    Status {
        volume: "/srv/vol".to_owned(),
        uuid: "u".to_owned(),
        format: 1,
        mount: Some(MountStatus {
            mountpoint: "/data".to_owned(),
            pid: 7,
            uptime_s: 192,
            read_only: false,
            cache: "writeback".to_owned(),
            metrics: None,
        }),
        hot: HotStatus {
            place: "/srv/vol/hot".to_owned(),
            used_bytes: 1 << 30,
            capacity_bytes: 4 << 30,
            segments: 16,
        },
        cold: Some(ColdStatus {
            place: "s3://b/p".to_owned(),
            waiting_segments: 3,
            ..ColdStatus::default()
        }),
        receives: vec![InterruptedReceive {
            dataset: "/data/x".to_owned(),
            snapshot: "s".to_owned(),
            token: "01ab".to_owned(),
        }],
        counters: Some(Counters { written_bytes: 1 << 20, ..Counters::default() }),
        health: "ok".to_owned(),
        ..Status::default()
    }
}

#[test]
fn people_see_what_matters() {
    let text = sample().text();
    assert!(text.contains("at /data, since 3m12s, process 7"), "{text}");
    assert!(text.contains("1.00 GiB of 4.00 GiB (25 %), /srv/vol/hot"), "{text}");
    assert!(text.contains("s3://b/p, 3 segments to be copied"), "{text}");
    assert!(text.contains("/data/x@s was interrupted, token 01ab"), "{text}");
    assert!(text.contains("[#####---------------] 1.00 GiB"), "{text}");
    assert!(!text.contains("B/s"), "{text}");
}

#[test]
fn an_encrypted_cold_tier_is_told_with_which_key() {
    let mut status = sample();
    assert!(!status.text().contains("encrypted"));
    let cold = status.cold.as_mut().unwrap();
    cold.encryption = Some(EncryptionStatus {
        generation: Some(2),
        fingerprint: Some("0123456789abcdef".to_owned()),
    });
    assert!(status.text().contains("s3://b/p, encrypted (key 2, 0123456789abcdef), 3 segments"));
    status.cold.as_mut().unwrap().encryption = Some(EncryptionStatus::default());
    assert!(status.text().contains("encrypted (the wrapped key cannot be read)"));
}

#[test]
fn rates_come_from_two_looks() {
    let mut later = sample();
    let counters = later.counters.as_mut().unwrap();
    counters.written_bytes = 21 << 20;
    (counters.hot_reads, counters.cold_reads) = (3, 1);
    counters.cold_read_bytes = 6 << 20;
    let later = later.since(&sample(), Duration::from_secs(2));
    let rates = later.rates.unwrap();
    assert_eq!(rates.written_bytes_per_s, f64::from(10 << 20));
    assert_eq!(rates.hit_ratio, Some(0.75));
    let text = later.text();
    assert!(text.contains("written 10.0 MiB/s"), "{text}");
    assert!(text.contains("from cold 3.00 MiB/s, 75.0 % without the cold tier"), "{text}");
}

#[test]
fn another_mount_has_no_rates() {
    let mut later = sample();
    later.mount.as_mut().unwrap().pid += 1;
    assert_eq!(later.since(&sample(), Duration::from_secs(2)).rates, None);
}

#[test]
fn bars_stay_in_their_frame() {
    assert_eq!(bar(0, 0), "[--------------------] ");
    assert_eq!(bar(1, 1 << 40), "[#-------------------] ");
    assert_eq!(bar(u64::MAX, 1), "[####################] ");
}

#[test]
fn an_object_reads_back() {
    let text = serde_json::to_string(&sample()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), sample());
}
