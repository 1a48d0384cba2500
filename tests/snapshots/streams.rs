//! Streams between volumes on days that go wrong: crashes, ends of mounts, full tiers.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{at, take};
use crate::harness::{Volume, now, shell};

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn stream(volume: &Volume, args: &[&str], name: &str) -> Vec<u8> {
    let mut command = volume.firn();
    let output =
        command.args(["snapshot", "send"]).args(args).arg(at(volume, "", name)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn receiver(volume: &Volume, args: &[&str]) -> Child {
    let mut command = volume.firn();
    command.args(["snapshot", "receive"]).args(args).arg(volume.path("copy"));
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a command that must fail, and returns what it said.
pub fn failed(mut child: Child) -> String {
    drop(child.stdin.take());
    drop(child.stdout.take());
    let start = now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it hangs");
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn datasets(volume: &Volume) -> usize {
    let list =
        volume.run(&["dataset", "list", "-r", "--json", volume.mountpoint.to_str().unwrap()]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list["datasets"].as_array().unwrap().len()
}

fn source(mib: u32) -> (Volume, Vec<u8>) {
    let volume = Volume::mounted();
    let fill = format!("head -c {mib}M /dev/urandom >\"$1\"");
    shell(&fill, &[&volume.path("file")]);
    take(&volume, "", "s");
    let sent = stream(&volume, &[], "s");
    (volume, sent)
}

/// A receive that has read half of the stream and waits for the rest.
pub fn half_received(volume: &Volume, args: &[&str], stream: &[u8]) -> Child {
    let mut child = receiver(volume, args);
    child.stdin.as_mut().unwrap().write_all(&stream[..stream.len() / 2]).unwrap();
    // What is in pipes and sockets is less than a megabyte.
    std::thread::sleep(Duration::from_secs(1));
    child
}

#[test]
fn a_receive_that_kill_9_cut_goes_on_or_leaves_nothing() {
    let (sender, stream) = source(24);
    for resumable in [true, false] {
        let mut volume = Volume::mounted();
        let child = half_received(&volume, if resumable { &["-s"] } else { &[] }, &stream);
        volume.kill();
        failed(child);
        volume.mount();
        assert_eq!(datasets(&volume), 1, "nothing shows");
        let mut child = receiver(&volume, &[]);
        let fed = child.stdin.take().unwrap().write_all(&stream);
        if resumable {
            let said = failed(child);
            let token = said.split("send -t ").nth(1).unwrap().split(' ').next().unwrap();
            let resume = "set -o pipefail
                \"$1\" snapshot send -t $4 \"$2\" | \"$1\" snapshot receive -s \"$3\"";
            let firn = std::path::Path::new(crate::harness::FIRN);
            shell(resume, &[firn, &sender.mountpoint, &volume.path("copy"), token.as_ref()]);
        } else {
            fed.unwrap();
            assert!(child.wait().unwrap().success());
        }
        assert!(
            fs::read(sender.path("file")).unwrap() == fs::read(volume.path("copy/file")).unwrap()
        );
        volume.umount();
        volume.run(&["check", volume.dir.to_str().unwrap()]);
    }
}

#[test]
fn an_unmount_ends_sends_and_receives_that_wait() {
    let (mut sender, stream) = source(24);
    let mut volume = Volume::mounted();
    let receiving = half_received(&volume, &["-s"], &stream);
    let mut sending = sender
        .firn()
        .args(["snapshot", "send", &at(&sender, "", "s")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0; 100];
    sending.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    let start = now();
    volume.umount();
    sender.umount();
    assert!(start.elapsed() < PATIENCE);
    let said = failed(receiving);
    assert!(said.contains("being unmounted") && said.contains("send -t "), "{said}");
    let said = failed(sending);
    assert!(!said.is_empty());
    volume.mount();
    volume.run(&["snapshot", "receive", "-A", volume.path("copy").to_str().unwrap()]);
    assert_eq!(datasets(&volume), 1);
}

#[test]
fn a_sender_or_receiver_that_is_killed_ends_its_work() {
    let (sender, stream) = source(24);
    let volume = Volume::mounted();
    let mut child = half_received(&volume, &[], &stream);
    child.kill().unwrap();
    child.wait().unwrap();
    let start = now();
    // As long as it is being received there, nothing else can be.
    loop {
        let mut child = receiver(&volume, &[]);
        let _ = child.stdin.take().unwrap().write_all(&stream);
        if child.wait().unwrap().success() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it goes on without its asker");
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut sending = sender.firn();
    let mut sending = sending
        .args(["snapshot", "send", &at(&sender, "", "s")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sending.stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
    sending.kill().unwrap();
    sending.wait().unwrap();
    // What is being sent cannot be destroyed.
    let destroy = ["snapshot", "destroy", &at(&sender, "", "s")];
    while !sender.firn().args(destroy).stderr(Stdio::null()).status().unwrap().success() {
        assert!(start.elapsed() < PATIENCE, "it is sent to nobody");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_full_tier_ends_a_receive_with_nothing_left() {
    let (_sender, stream) = source(64);
    let mut volume = Volume::with(&["--hot-capacity", "256MiB"], &[]);
    shell("head -c 190M /dev/urandom >\"$1\" && sync \"$1\"", &[&volume.path("ballast")]);
    let mut child = receiver(&volume, &[]);
    let _ = child.stdin.take().unwrap().write_all(&stream);
    let said = failed(child);
    assert!(said.contains("space"), "{said}");
    assert_eq!(datasets(&volume), 1);
    // What it had taken comes back.
    let start = now();
    while !takes_more(&volume) {
        assert!(start.elapsed() < PATIENCE, "the tier stays full");
        std::thread::sleep(Duration::from_millis(500));
    }
    volume.umount();
    volume.mount();
    assert_eq!(datasets(&volume), 1);
}

fn takes_more(volume: &Volume) -> bool {
    let write = "head -c 24M /dev/urandom >\"$1\" && sync \"$1\"";
    let mut command = Command::new("bash");
    command.args(["-ec", write, "test"]).arg(volume.path("after")).stderr(Stdio::null());
    command.status().unwrap().success()
}
