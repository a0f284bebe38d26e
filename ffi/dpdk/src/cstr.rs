//! Strings from and to C.

use std::ffi::{CStr, CString, c_char};

/// A name or argument has a NUL byte inside and cannot be given to C.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} has a NUL byte in it")]
pub struct NulByte(pub String);

/// Copies `text` for C.
pub(crate) fn to_c(text: &str) -> Result<CString, NulByte> {
    CString::new(text).map_err(|_| NulByte(text.to_owned()))
}

/// The text in a fixed-size C character array, up to its NUL or its end.
pub(crate) fn from_array(array: &[c_char]) -> String {
    let bytes: Vec<u8> = array
        .iter()
        .map(|&c| c.cast_unsigned())
        .take_while(|&c| c != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text at a C string that never goes away.
///
/// # Safety
/// `text` points to a NUL-terminated string that lives as long as the program.
pub(crate) unsafe fn from_static(text: *const c_char) -> &'static str {
    // SAFETY: the caller promises a NUL-terminated string of static life.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}
