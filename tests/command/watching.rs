//! Looking on: `firn status --watch`, metrics over HTTP, and `firn bench`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::mounted::Scene;
use crate::run::command;

/// Writes `metrics` into the volume's configuration.
fn serve_metrics(scene: &Scene, address: &str) {
    let toml = scene.volume.join("firn.toml");
    let text = fs::read_to_string(&toml).unwrap();
    let off = "#metrics = \"127.0.0.1:9464\"";
    assert!(text.contains(off), "{text}");
    fs::write(&toml, text.replace(off, &format!("metrics = \"{address}\""))).unwrap();
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_come_and_go_with_the_mount() {
    let scene = Scene::new();
    serve_metrics(&scene, "127.0.0.1:0");
    scene.mount().done();
    fs::write(scene.mountpoint.join("file"), vec![7_u8; 3 << 20]).unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    let status = scene.status();
    let address = status["mount"]["metrics"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let answer = scrape(&address);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let uuid = status["uuid"].as_str().unwrap();
    let written = format!("firn_written_bytes_total{{volume=\"{uuid}\"}} {}", 3 << 20);
    assert!(answer.lines().any(|line| line == written), "{written} is missing in: {answer}");
    let capacity =
        format!("firn_tier_capacity_bytes{{volume=\"{uuid}\",tier=\"hot\"}} 2147483648.0");
    assert!(answer.contains(&capacity), "{answer}");
    scene.umount_done();
    assert!(TcpStream::connect(&address).is_err(), "metrics outlive the mount");
}

#[test]
fn an_address_in_use_costs_the_metrics_and_not_the_mount() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::new();
    serve_metrics(&scene, &taken.local_addr().unwrap().to_string());
    scene.mount().done();
    let status = scene.status();
    assert_eq!(status["health"], "warning", "{status}");
    assert!(status["warnings"][0].as_str().unwrap().contains("metrics are not served"), "{status}");
    assert!(scene.log().contains("metrics are not served"), "{}", scene.log());
    scene.umount_done();
}

#[test]
fn an_address_that_others_reach_is_refused_with_a_word() {
    let scene = Scene::new();
    serve_metrics(&scene, "192.168.7.7:9464");
    let ran = scene.mount();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("0.0.0.0 serves every interface"), "{}", ran.err);
}

/// A command that runs until it is dropped.
struct Running(Child);

impl Running {
    fn start(args: &[&str]) -> Self {
        Self(command(args).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn lines(&mut self) -> impl Iterator<Item = String> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn watching_is_one_object_a_line_with_rates_from_the_second_on() {
    let scene = Scene::mounted();
    let mut watch = Running::start(&["status", "--watch=200ms", "--json", scene.mnt()]);
    let mut lines = watch.lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(first["health"], "ok");
    assert!(first.get("rates").is_none(), "{first}");
    fs::write(scene.mountpoint.join("file"), vec![9_u8; 2 << 20]).unwrap();
    scene.firn(&["sync", scene.mnt()]).done();
    let written = lines.take(50).any(|line| {
        let look: serde_json::Value = serde_json::from_str(&line).unwrap();
        look["rates"]["written_bytes_per_s"].as_f64().unwrap() > 0.0
    });
    assert!(written, "no look shows what was written");
}

#[test]
fn watching_without_a_terminal_is_one_line_a_look() {
    let scene = Scene::mounted();
    let mut watch = Running::start(&["status", "--watch=200ms", scene.mnt()]);
    let lines: Vec<String> = watch.lines().take(3).collect();
    for line in &lines {
        assert!(line.starts_with(&format!("{} ok; hot ", scene.vol())), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
    assert!(!lines[0].contains("/s"), "{}", lines[0]);
    assert!(lines[2].contains("read from hot 0 B/s"), "{}", lines[2]);
}

#[test]
fn a_bench_measures_the_mount_and_leaves_nothing() {
    let scene = Scene::mounted();
    let ran = scene.firn(&["bench", "--json", "--size", "8MiB", scene.mnt()]).done();
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8, "{report}");
    for row in rows {
        assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["count"].as_u64().unwrap() > 0, "{row}");
    }
    assert_eq!(rows[0]["count"], 8, "{report}");
    assert_eq!(fs::read_dir(&scene.mountpoint).unwrap().count(), 0);
    scene.firn(&["bench", "--size", "4GiB", scene.cold.to_str().unwrap()]).refused(1, &["cold"]);
    scene.umount_done();
    scene.firn(&["bench", scene.vol()]).refused(1, &["not mounted"]);
}
