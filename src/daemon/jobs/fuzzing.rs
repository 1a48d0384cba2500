//! The journal for fuzzers.

use super::job::MAX_FILES;
use super::journal::{add_line, read};
use super::queue::MOST_JOBS;

/// A file of jobs.
pub(in crate::daemon) fn journal(data: &[u8]) {
    let found = read(data).expect("memory can be read");
    assert!(found.jobs.len() <= MOST_JOBS);
    let mut text = format!("firn-jobs 1\nend {}\n", found.last);
    for job in found.jobs.values() {
        assert!(job.parts.len() <= MAX_FILES);
        text.push_str(&add_line(job).expect("a job is JSON"));
    }
    let again = read(text.as_bytes()).expect("memory can be read");
    assert_eq!((&again.jobs, again.last, &again.damage), (&found.jobs, found.last, &None));
}
