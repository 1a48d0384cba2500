//! Users and groups by name, as this machine knows them: from its files, or from a directory
//! service that its C library asks.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;

/// Longest answer in bytes; a group may have thousands of members.
const MAX_ANSWER: usize = 1 << 20;

/// Looks names up.
pub trait Users {
    /// The number of a user; `None` when there is none of this name.
    fn uid(&self, name: &str) -> Option<u32>;
    /// The number of a group.
    fn gid(&self, name: &str) -> Option<u32>;
}

/// Those of this machine. What cannot be looked up counts as not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Users for System {
    fn uid(&self, name: &str) -> Option<u32> {
        look_up(name, libc::getpwnam_r, |entry: &libc::passwd| entry.pw_uid)
    }

    fn gid(&self, name: &str) -> Option<u32> {
        look_up(name, libc::getgrnam_r, |entry: &libc::group| entry.gr_gid)
    }
}

/// A machine without users.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Users for Nobody {
    fn uid(&self, _name: &str) -> Option<u32> {
        None
    }

    fn gid(&self, _name: &str) -> Option<u32> {
        None
    }
}

/// `getpwnam_r` or `getgrnam_r`.
type LookUp<T> =
    unsafe extern "C" fn(*const c_char, *mut T, *mut c_char, usize, *mut *mut T) -> c_int;

fn look_up<T>(name: &str, ask: LookUp<T>, number: impl FnOnce(&T) -> u32) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let name: &CStr = &name;
    let mut text: Vec<c_char> = vec![0; 4 << 10];
    loop {
        let mut entry = MaybeUninit::<T>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and the length is that of `text`.
        let code = unsafe {
            ask(name.as_ptr(), entry.as_mut_ptr(), text.as_mut_ptr(), text.len(), &raw mut found)
        };
        match code {
            libc::EINTR => {}
            libc::ERANGE if text.len() < MAX_ANSWER => text.resize(text.len() * 4, 0),
            0 if !found.is_null() => {
                // SAFETY: an entry that was found was written to `entry`, whose pointers lead into
                // `text`, which is still there.
                let entry = unsafe { entry.assume_init_ref() };
                return Some(number(entry));
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_of_no_name_is() {
        assert_eq!(System.uid("root"), Some(0));
        assert_eq!(System.gid("root"), Some(0));
        assert_eq!(System.uid("no-such-user-here"), None);
        assert_eq!(System.uid("ro\0ot"), None);
    }
}
