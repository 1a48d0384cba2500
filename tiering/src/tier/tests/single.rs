//! One object front to back: whole or not at all, whatever the connection does.

use std::io::{Read, Write};

use firn_tests::{BUCKET, SECRET_KEY, Server};

use super::*;
use crate::store::testing::eventually;
use crate::tier::{ObjectReader, ObjectWriter};

/// A place for objects, and where they lie.
struct Place {
    _server: Option<Server>,
    variables: Vec<(String, String)>,
    dir: tempfile::TempDir,
    base: String,
}

impl Place {
    fn s3() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).unwrap();
        let variables = server.variables();
        Self { _server: Some(server), variables, dir, base: format!("s3://{BUCKET}/Some Dir") }
    }

    fn files() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("file://{}", dir.path().display());
        Self { _server: None, variables: Vec::new(), dir, base }
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    fn write(&self, name: &str) -> Result<ObjectWriter> {
        ObjectWriter::create_with(&self.url(name), self.variables.clone())
    }

    fn read(&self, name: &str) -> Result<ObjectReader> {
        ObjectReader::open_with(&self.url(name), self.variables.clone())
    }

    /// Names of the files that hold objects.
    fn files_below(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => dirs.push(entry.path()),
                    false => found.push(entry.file_name().into_string().unwrap()),
                }
            }
        }
        found
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

#[test]
fn what_was_written_is_read_at_every_length() {
    for place in [Place::s3(), Place::files()] {
        for len in [0, 1, 8 << 20, (8 << 20) + 1, 30 << 20] {
            let (name, plain) = (format!("Stream-{len}.firn"), bytes(len));
            let mut writer = place.write(&name).unwrap();
            plain.chunks(70_001).for_each(|chunk| writer.write_all(chunk).unwrap());
            assert!(matches!(place.read(&name), Err(Error::NotFound(_))), "it appeared early");
            assert_eq!(writer.finish().unwrap(), len as u64);
            let mut reader = place.read(&name).unwrap();
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert!(back == plain, "{len} bytes came back otherwise");
            assert_eq!(reader.len(), len as u64);
            let there = place.write(&name).map(drop);
            assert!(matches!(there, Err(Error::Exists(_))), "{there:?}");
        }
    }
}

#[test]
fn what_is_given_up_leaves_nothing() {
    for place in [Place::s3(), Place::files()] {
        let before = place.files_below();
        let mut writer = place.write("cut").unwrap();
        writer.write_all(&bytes(20 << 20)).unwrap();
        drop(writer);
        assert!(matches!(place.read("cut"), Err(Error::NotFound(_))));
        // A server may need a moment to notice that a part is not coming any more.
        eventually("nothing is left", || place.files_below() == before);
    }
}

#[test]
fn an_object_that_is_replaced_meanwhile_is_not_read_as_one() {
    let place = Place::files();
    let path = place.dir.path().join("o");
    std::fs::write(&path, bytes(40 << 20)).unwrap();
    let mut reader = place.read("o").unwrap();
    let mut some = vec![0; 1000];
    reader.read_exact(&mut some).unwrap();
    let mut other = bytes(40 << 20);
    other.reverse();
    std::fs::write(place.dir.path().join("new"), other).unwrap();
    std::fs::rename(place.dir.path().join("new"), &path).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.get_ref().unwrap().downcast_ref::<Error>().is_some(), "{error:?}");
}

#[test]
fn nonsense_is_explained_and_secrets_stay_secret() {
    let place = Place::s3();
    let bad = ["s3://ice", "s3://ice/", "ftp://x/y", "s3://user:pw@ice/x", "file:///no/such/dir/x"];
    for url in bad {
        let error = ObjectWriter::create_with(url, place.variables.clone()).map(drop).unwrap_err();
        assert!(error.hint().is_some(), "{url}: {error}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    let mut variables = place.variables.clone();
    variables.iter_mut().filter(|(n, _)| n == "AWS_ACCESS_KEY_ID").for_each(|v| v.1 = "x".into());
    let error = ObjectReader::open_with(&place.url("x"), variables).map(drop).unwrap_err();
    let text = format!("{error:?}");
    assert!(!text.contains(SECRET_KEY), "{text}");
}

/// A way to a server on which every connection is cut after so many bytes of answers.
fn cutting(server: std::net::SocketAddr, after: usize) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let upstream = std::net::TcpStream::connect(server).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
            std::thread::spawn(move || {
                let mut answers = (&upstream).take(after as u64);
                drop(std::io::copy(&mut answers, &mut &client));
                drop(client.shutdown(std::net::Shutdown::Both));
                drop(upstream.shutdown(std::net::Shutdown::Both));
            });
        }
    });
    address
}

#[test]
fn a_connection_that_is_cut_again_and_again_costs_time_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).unwrap();
    let url = format!("s3://{BUCKET}/o");
    let mut writer = ObjectWriter::create_with(&url, server.variables()).unwrap();
    writer.write_all(&bytes(20 << 20)).unwrap();
    writer.finish().unwrap();
    // Less than a range at a time.
    let way = cutting(server.address(), 3 << 20);
    let mut reader = ObjectReader::open_with(&url, firn_tests::variables(way)).unwrap();
    let mut back = Vec::new();
    reader.read_to_end(&mut back).unwrap();
    assert!(back == bytes(20 << 20), "other bytes came back");
}
