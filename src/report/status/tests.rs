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
    let text = sample().text(None);
    assert!(text.contains("at /data, since 3m12s, process 7"), "{text}");
    assert!(text.contains("1.00 GiB of 4.00 GiB (25 %), /srv/vol/hot"), "{text}");
    assert!(text.contains("s3://b/p, 3 segments to be copied"), "{text}");
    assert!(text.contains("/data/x@s was interrupted, token 01ab"), "{text}");
    assert!(!text.contains("rates"), "{text}");
}

#[test]
fn rates_come_from_two_looks() {
    let mut later = sample();
    later.counters.as_mut().unwrap().written_bytes = 21 << 20;
    let text = later.text(Some((&sample(), Duration::from_secs(2))));
    assert!(text.contains("written 10.0 MiB/s"), "{text}");
}

#[test]
fn an_object_reads_back() {
    let text = serde_json::to_string(&sample()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), sample());
}
