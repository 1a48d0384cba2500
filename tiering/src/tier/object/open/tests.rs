//! Wrong URLs and missing credentials: one clear error with a hint, and no secret in it.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn fails(url: &str, variables: &[(&str, &str)]) -> (String, String) {
    let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let error = open_tier_with(url, Patience::PROBE, variables).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2"), "{text}");
    let hint = error.hint().unwrap_or_else(|| panic!("no hint: {error}")).to_owned();
    (error.to_string(), hint)
}

#[test]
fn each_wrong_url_has_its_own_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let not_a_dir = format!("file://{}", file.path().display());
    for (url, reason, hint) in [
        ("nonsense", "not a URL", "file:///path"),
        ("", "not a URL", "file:///path"),
        ("ftp://host/x", "unknown scheme \"ftp\"", "s3://bucket"),
        ("s4://bucket", "unknown scheme \"s4\"", "s3://bucket"),
        ("s3://", "names no bucket", "s3://bucket"),
        ("file://host/x", "not an absolute path", "file:///path"),
        ("file:///nonexistent/firn", "no such directory", "mkdir -p"),
        ("/nonexistent/firn", "no such directory", "mkdir -p"),
        (&not_a_dir, "not a directory", "directory"),
        ("s3://user:hunter2@bucket", "more than a place", "environment"),
        ("s3://bucket/x?sig=hunter2", "more than a place", "environment"),
        ("s3:// hunter2", "not a URL", "file:///path"),
    ] {
        let (error, advice) = fails(url, &[]);
        assert!(error.contains(reason), "{url}: {error}");
        assert!(advice.contains(hint), "{url}: {advice}");
    }
}

#[test]
fn missing_credentials_are_named() {
    let id = ("AWS_ACCESS_KEY_ID", "somebody");
    let secret = ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2");
    let http = ("AWS_ENDPOINT", "http://127.0.0.1:1");
    for (url, variables, reason, hint) in [
        ("s3://b", vec![], "no credentials", "AWS_ACCESS_KEY_ID"),
        ("s3://b", vec![id], "AWS_SECRET_ACCESS_KEY is not set", "set it"),
        ("s3://b", vec![secret], "AWS_ACCESS_KEY_ID is not set", "set it"),
        ("s3://b", vec![id, ("AWS_SECRET_ACCESS_KEY", "")], "not set", "set it"),
        ("s3://b", vec![id, secret, http], "plain http", "AWS_ALLOW_HTTP"),
        ("s3://b", vec![id, secret, ("AWS_ENDPOINT", "b")], "not a URL", "https://host"),
        ("gs://b", vec![], "no credentials", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://b", vec![], "no storage account", "AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://b", vec![("AZURE_STORAGE_ACCOUNT_NAME", "a")], "no credentials", "ACCOUNT_KEY"),
    ] {
        let (error, advice) = fails(url, &variables);
        assert!(error.contains(reason), "{url} {variables:?}: {error}");
        assert!(advice.contains(hint), "{url} {variables:?}: {advice}");
    }
}

#[test]
fn every_scheme_opens_and_says_where_it_is() {
    let key = "aHVudGVyMi1odW50ZXIy";
    let variables = [
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2"),
        ("GOOGLE_SKIP_SIGNATURE", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", key),
    ];
    for url in ["s3://bucket/a/b", "s3://bucket", "gs://bucket/a", "az://container/a"] {
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let tier = open_tier_with(url, Patience::READ, variables).unwrap();
        assert_eq!(tier.describe(), url);
        let debug = format!("{tier:?}");
        assert!(!debug.contains("hunter2") && !debug.contains(key), "{debug}");
    }
}

#[test]
fn a_volume_may_make_its_directory_but_not_its_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let url = format!("file://{}", path.display());
    prepare_tier(&url).unwrap();
    prepare_tier(&url).unwrap();
    assert!(path.is_dir());
    prepare_tier("s3://bucket").unwrap();
    assert!(prepare_tier("file:///proc/nonexistent").unwrap_err().hint().is_some());
}

#[test]
fn secrets_are_cut_out_of_messages_and_paths_are_not() {
    let pairs = [
        ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/key.json"),
        ("AWS_SKIP_SIGNATURE", "true"),
        ("PATH", "/usr/bin"),
    ];
    let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let env = Environment::new(pairs, Arc::default());
    let text = env.secrets().redact("a true hunter2-hunter2 in /etc/key.json".to_owned());
    assert_eq!(text, "a true *** in /etc/key.json");
}
