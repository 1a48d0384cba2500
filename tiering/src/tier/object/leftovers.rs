//! What killed processes leave in an object store: staging files beside local objects, and
//! unfinished multipart uploads on S3. Found here, removed when they are older than any upload
//! can be. Azure drops uncommitted blocks by itself after a week; on GCS a lifecycle rule
//! (`AbortIncompleteMultipartUpload`) does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::ClientOptions;
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpConnector, HttpRequest};
use object_store::multipart::MultipartStore;
use object_store::path::Path as StorePath;
use object_store::signer::{SignedUrlOptions, Signer};

use super::{Secrets, explain};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::tier::content::blocking;
use crate::tier::failure::{FailureKind, TierFailure};

/// Longest answer that is read: S3 lists 1000 uploads at a time, under 1 KiB each.
const MAX_LISTING_LEN: usize = 4 << 20;

/// Where to look for what uploads leave behind.
pub(super) enum Leftovers {
    /// Nowhere: the service cleans up itself.
    None,
    /// `name#number` beside the objects below this directory.
    Files(PathBuf),
    /// Unfinished uploads in the bucket.
    S3 {
        /// Signs and aborts.
        store: Arc<AmazonS3>,
        /// Sends what `object_store` has no call for.
        client: HttpClient,
    },
}

impl Leftovers {
    /// For a bucket.
    pub(super) fn s3(
        store: Arc<AmazonS3>,
        options: &ClientOptions,
        connector: &dyn HttpConnector,
    ) -> object_store::Result<Self> {
        let client = connector.connect(options)?;
        Ok(Self::S3 { store, client })
    }

    /// Removes what is older than `age`; returns how many.
    pub(super) async fn abort(
        &self,
        root: &StorePath,
        age: Duration,
        secrets: &Secrets,
    ) -> Result<u64> {
        let before = SystemClock.now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        match self {
            Self::None => Ok(0),
            Self::Files(dir) => {
                let dir = dir.clone();
                blocking(move || remove_staged(&dir, before)).await
            }
            Self::S3 { store, client } => abort_uploads(store, client, root, before, secrets).await,
        }
    }
}

/// Removes staging files of `object_store`'s local store (`<key>#<number>`) not written to since
/// `before`.
fn remove_staged(dir: &Path, before: SystemTime) -> Result<u64> {
    let failed = |error: std::io::Error| TierFailure::from_io("clean", "staging files", &error);
    let mut removed = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                dirs.push(entry.path());
                continue;
            }
            let name = entry.file_name();
            let is_staged = name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(
                |(key, number)| {
                    super::check_key(key).is_ok() && number.bytes().all(|b| b.is_ascii_digit())
                },
            );
            let is_old = || entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t < before);
            if kind.is_file() && is_staged && is_old() && std::fs::remove_file(entry.path()).is_ok()
            {
                removed += 1;
            }
        }
    }
    Ok(removed)
}

async fn abort_uploads(
    store: &AmazonS3,
    client: &HttpClient,
    root: &StorePath,
    before: SystemTime,
    secrets: &Secrets,
) -> Result<u64> {
    let failed = |error: object_store::Error| explain(secrets, "clean", "uploads", &error);
    let prefix =
        if root.as_ref().is_empty() { String::new() } else { format!("{}/", root.as_ref()) };
    let options =
        SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", prefix.as_str())]);
    let life = Duration::from_secs(60);
    let url = store
        .signed_url_opts(Default::default(), &StorePath::default(), life, &options)
        .await
        .map_err(failed)?;
    let listing = fetch(client, url.as_str(), secrets).await?;
    let before = iso_time(before);
    let mut aborted = 0;
    for upload in parse_uploads(&listing) {
        let Ok(path) = StorePath::parse(upload.key) else { continue };
        // ISO times of one zone sort as text.
        if upload.key.starts_with(&prefix) && upload.initiated < before.as_str() {
            let id = upload.id.to_owned();
            match store.abort_multipart(&path, &id).await {
                Ok(()) => aborted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(aborted)
}

/// One GET whose answer is text. A service that does not know the call has nothing to clean.
async fn fetch(client: &HttpClient, url: &str, secrets: &Secrets) -> Result<String> {
    let fail = |kind, message: String| -> Error {
        TierFailure::error(kind, "clean", "uploads", secrets.redact(message))
    };
    let mut request = HttpRequest::new(bytes::Bytes::new().into());
    *request.uri_mut() = url
        .parse()
        .map_err(|_| fail(FailureKind::Rejected, "the signed address is no URI".to_owned()))?;
    let unavailable =
        |error: object_store::client::HttpError| fail(FailureKind::Unavailable, error.to_string());
    let answer = client.execute(request).await.map_err(unavailable)?;
    let status = answer.status().as_u16();
    let body = answer.into_body().bytes().await.map_err(unavailable)?;
    match status {
        200..=299 if body.len() <= MAX_LISTING_LEN => Ok(String::from_utf8_lossy(&body).into()),
        200..=299 => Err(fail(FailureKind::Rejected, format!("a listing of {} bytes", body.len()))),
        400 | 404 | 405 | 501 => Ok(String::new()),
        401 | 403 => Err(fail(FailureKind::Refused, format!("status code: {status}"))),
        _ => Err(fail(FailureKind::Unavailable, format!("status code: {status}"))),
    }
}

/// An unfinished upload, as listed.
#[derive(Debug, PartialEq, Eq)]
struct Upload<'a> {
    key: &'a str,
    id: &'a str,
    initiated: &'a str,
}

/// The uploads in an answer to `ListMultipartUploads`. Our keys and the ids of real services
/// need no XML unescaping; what would is not ours and is skipped.
fn parse_uploads(xml: &str) -> Vec<Upload<'_>> {
    let field = |xml: &'_ str, name: &str| -> Option<(usize, usize)> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let start = xml.find(&open)? + open.len();
        let end = start + xml[start..].find(&close)?;
        (!xml[start..end].contains('&')).then_some((start, end))
    };
    let parts = xml.split("<Upload>").skip(1);
    parts
        .filter_map(|part| {
            let part = part.split("</Upload>").next()?;
            let get = |name| field(part, name).map(|(start, end)| &part[start..end]);
            Some(Upload { key: get("Key")?, id: get("UploadId")?, initiated: get("Initiated")? })
        })
        .collect()
}

/// `2026-11-20T16:00:00` in UTC. Days to date after Howard Hinnant's `civil_from_days`.
fn iso_time(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}", second % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn times_are_written_as_s3_writes_them() {
        let at = |seconds| iso_time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56");
        assert_eq!(at(1_795_190_400), "2026-11-20T16:00:00");
    }

    #[test]
    fn uploads_are_found_and_nonsense_is_not() {
        let xml = "<ListMultipartUploadsResult><Upload><Key>a/b.seg</Key><UploadId>id1</UploadId>\
            <Initiator><ID>x</ID></Initiator><Initiated>2026-11-19T10:00:00.000Z</Initiated>\
            </Upload><Upload><Key>a&amp;b</Key><UploadId>id2</UploadId></Upload>";
        let found = parse_uploads(xml);
        let first = Upload { key: "a/b.seg", id: "id1", initiated: "2026-11-19T10:00:00.000Z" };
        assert_eq!(found, [first]);
        assert!(parse_uploads("<Upload><Key>").is_empty());
    }

    #[test]
    fn only_old_staging_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("segments");
        std::fs::create_dir(&deep).unwrap();
        for name in ["one.seg#1", "one.seg", "two.seg#17", "odd#name"] {
            std::fs::write(deep.join(name), name).unwrap();
        }
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for name in ["one.seg#1", "one.seg", "odd#name"] {
            std::fs::File::open(deep.join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(remove_staged(dir.path(), long_ago + Duration::from_secs(1)).unwrap(), 1);
        let mut left: Vec<_> =
            std::fs::read_dir(&deep).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["odd#name", "one.seg", "two.seg#17"]);
    }
}
